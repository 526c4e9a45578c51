"""Defines the built-in tools: the current time, and a calculator.

They have no side effects, and do not execute code from a model.
"""

import ast
import math
import operator
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

_MAX_DEPTH = 50
_MAX_LENGTH = 500
_MAX_DIGITS = 1000

_OPERATORS: Mapping[type, Callable[..., Any]] = MappingProxyType(
    {
        ast.Add: operator.add,
        ast.Sub: operator.sub,
        ast.Mult: operator.mul,
        ast.Div: operator.truediv,
        ast.FloorDiv: operator.floordiv,
        ast.Mod: operator.mod,
        ast.UAdd: operator.pos,
        ast.USub: operator.neg,
    }
)
_FUNCTIONS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {"abs": abs, "round": round, "min": min, "max": max, "sqrt": math.sqrt, "log": math.log, "exp": math.exp}
)
_CONSTANTS: Mapping[str, float] = MappingProxyType({"pi": math.pi, "e": math.e})


def current_time(time_zone: str = "UTC") -> str:
    """Return the current date, weekday and time.

    Args:
        time_zone: An IANA name such as Europe/Paris.
    """
    try:
        zone = ZoneInfo(time_zone)
    except (ValueError, OSError, KeyError):
        return f"Unknown time zone {time_zone!r}. Use an IANA name such as Europe/Paris."
    return datetime.now(zone).strftime("%A, %Y-%m-%d %H:%M:%S %Z")


def calculate(expression: str) -> str:
    """Evaluate an arithmetic expression.

    Args:
        expression: Numbers with + - * / // % ** and parentheses; abs, round, min, max, sqrt, log, exp, pi and e.
    """
    if len(expression) > _MAX_LENGTH:
        return f"The expression is longer than {_MAX_LENGTH} characters."
    try:
        value = _value(ast.parse(expression.strip(), mode="eval").body, 0)
        return str(value)
    except (SyntaxError, ValueError, TypeError, ArithmeticError, RecursionError, MemoryError) as error:
        return f"The expression could not be evaluated: {type(error).__name__}."


def _value(node: ast.expr, depth: int) -> Any:
    if depth > _MAX_DEPTH:
        raise ValueError
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.Name(id=name) if name in _CONSTANTS:
            return _CONSTANTS[name]
        case ast.UnaryOp(op=op, operand=operand) if type(op) in _OPERATORS:
            return _OPERATORS[type(op)](_value(operand, depth + 1))
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left, depth + 1), _value(right, depth + 1))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _OPERATORS:
            return _checked(_OPERATORS[type(op)](_value(left, depth + 1), _value(right, depth + 1)))
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _FUNCTIONS:
            return _FUNCTIONS[name](*(_value(argument, depth + 1) for argument in arguments))
    raise ValueError


def _power(base: Any, exponent: Any) -> Any:
    # A short expression can require hours of computation, so the size is checked before the result is computed.
    if isinstance(base, int) and isinstance(exponent, int) and base.bit_length() * abs(exponent) > _MAX_DIGITS * 4:
        raise OverflowError
    result = base**exponent
    if isinstance(result, complex):
        raise ValueError
    return result


def _checked(value: Any) -> Any:
    if isinstance(value, int) and value.bit_length() > _MAX_DIGITS * 4:
        raise OverflowError
    return value
