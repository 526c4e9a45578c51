"""Applies the output format that a client asks for to the answer of an agent that has no output type."""

import functools
import json
from collections.abc import Callable, Iterator
from typing import Any

from agents import AgentOutputSchemaBase

from gateway_core.errors import ModelBehaviorError
from gateway_core.types import AnswerFormat

MAX_REFERENCES = 10_000
"""Maximum number of references that a validation follows: a small schema of a client can describe endless work."""


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

    left = iter(range(MAX_REFERENCES))

    def counted(follow: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        @functools.wraps(follow)
        def following(*arguments: Any) -> Iterator[Any]:
            if next(left, None) is None:
                raise _TooMuchWorkError
            yield from follow(*arguments) or ()

        return following

    changed: dict[str, Any] = {name: counted(Draft202012Validator.VALIDATORS[name]) for name in ("$ref", "$dynamicRef")}
    # A regular expression of a client's could block the event loop for hours.
    changed |= dict.fromkeys(("pattern", "patternProperties"))
    kept = {name: rule for name, rule in {**Draft202012Validator.VALIDATORS, **changed}.items() if rule is not None}
    validators = extend(Draft202012Validator)  # type: ignore[no-untyped-call]
    validators.VALIDATORS = kept
    # Without the empty registry, the library would fetch remote references.
    return validators(schema, registry=Registry())
