"""A log formatter that leaves out the text of exceptions.

The text of an exception may hold a prompt, a tool's arguments or a secret; its type and the places it passed do not.
"""

import logging
import traceback
from types import TracebackType

_ExceptionInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class PrivateFormatter(logging.Formatter):
    """Formats an exception as its type and its stack, and those of its causes."""

    def formatException(self, ei: _ExceptionInfo) -> str:  # noqa: N802 - the name in `logging.Formatter`
        """The exception without its text, one line for each frame."""
        lines: list[str] = []
        error = ei[1]
        seen: set[int] = set()
        while error is not None and id(error) not in seen:
            seen.add(id(error))
            label = "caused by " if lines else ""
            lines.append(f"{label}{type(error).__module__}.{type(error).__qualname__}")
            lines += [
                f"  {frame.filename}:{frame.lineno} in {frame.name}"
                for frame in traceback.extract_tb(error.__traceback__)
            ]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
        return "\n".join(lines)
