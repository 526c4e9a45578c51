"""Applies the output format that a client asks for to the answer of an agent that has no output type."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from agents import AgentOutputSchemaBase

from gateway_core.errors import ModelBehaviorError
from gateway_core.types import AnswerFormat

MAX_STEPS = 200_000
"""Maximum number of rules that a validation applies, about two seconds: a small schema can describe endless work."""

_ITEMS_PER_STEP = 5
"""Number of entries of a rule, or of the value, that cost as much as a rule."""

_STEPS_PER_ERROR = 5


class ClientSchema(AgentOutputSchemaBase):
    """The format as the model receives it. For the SDK, the output remains text.

    Args:
        wanted: The format.
    """

    def __init__(self, wanted: AnswerFormat) -> None:
        self._wanted = wanted

    def is_plain_text(self) -> bool:
        return False

    def name(self) -> str:
        return self._wanted.name

    def json_schema(self) -> dict[str, Any]:
        return self._wanted.schema

    def is_strict_json_schema(self) -> bool:
        return self._wanted.strict

    def validate_json(self, json_str: str) -> Any:
        return json_str


def check(answer: str, wanted: AnswerFormat) -> None:
    """Validate an answer.

    Raises:
        ModelBehaviorError: The answer is not JSON, or does not match the schema. The message contains the place and
            the violated keyword, and no part of the answer.
    """
    from jsonschema import ValidationError
    from jsonschema.exceptions import best_match
    from referencing.exceptions import Unresolvable

    try:
        value = json.loads(answer)
        error = best_match(_validator(wanted.schema).iter_errors(value))
    except (ValueError, RecursionError) as cause:
        raise _mismatch("it is not JSON") from cause
    except Unresolvable as cause:
        raise _mismatch("the schema has a reference that cannot be resolved") from cause
    except _TooMuchWorkError as cause:
        raise _mismatch("the schema takes too long to validate") from cause
    if isinstance(error, ValidationError):
        raise _mismatch(f"{error.json_path} violates '{error.validator}'")


def _mismatch(reason: str) -> ModelBehaviorError:
    return ModelBehaviorError(f"the answer does not match the requested format: {reason}", code="answer_format")


class _TooMuchWorkError(Exception):
    pass


def _validator(schema: dict[str, Any]) -> Any:
    from jsonschema import Draft202012Validator
    from jsonschema.validators import extend
    from referencing import Registry

    left = MAX_STEPS

    def spend(steps: int) -> None:
        nonlocal left
        left -= steps
        if left < 0:
            raise _TooMuchWorkError

    def counted(rule: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        @functools.wraps(rule)
        def apply(validator: Any, value: Any, instance: Any, whole: Any) -> Iterator[Any]:
            spend(1 + (_size(value) + _size(instance)) // _ITEMS_PER_STEP)
            for error in rule(validator, value, instance, whole) or ():
                spend(_STEPS_PER_ERROR)
                yield error

        return apply

    rules: dict[str, Any] = {**Draft202012Validator.VALIDATORS, "uniqueItems": _unique_items}
    # A regular expression of a client's could block the event loop for hours.
    for name in ("pattern", "patternProperties"):
        del rules[name]
    validators = extend(Draft202012Validator)  # type: ignore[no-untyped-call]
    validators.VALIDATORS = {name: counted(rule) for name, rule in rules.items()}
    # Without the empty registry, the library would fetch remote references.
    return validators(schema, registry=Registry())


def _size(value: Any) -> int:
    return len(value) if isinstance(value, list | dict) else 0


def _unique_items(_validator: Any, value: Any, instance: Any, _schema: Any) -> Iterator[Any]:
    """Replaces the library's rule, which compares each item with all others."""
    from jsonschema import ValidationError

    if not value or not isinstance(instance, list):
        return
    if len({json.dumps(item, sort_keys=True) for item in instance}) < len(instance):
        yield ValidationError("the items are not unique")
