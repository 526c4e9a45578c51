"""Converts an exception from a module's import to a diagnosis: error code, file, line, source line and hint.

This module must not import the failed module again, nor any part of the SDK.
"""

import linecache
import os
import re
import sys
import traceback
from pathlib import Path

from gateway_core.catalog.import_stop import CURE, script_failure, top_level
from gateway_core.catalog.missing_modules import explain_import
from gateway_core.daemon_thread import ThreadExitError
from gateway_core.errors import GatewayError, LoadError

REALTIME_HINT = (
    "the gateway serves text over HTTP: export an `Agent` with the same instructions and tools, and run the voice "
    "agent with `RealtimeRunner` in a separate process"
)
_NO_KEY = re.compile(r"api_key|credentials", re.IGNORECASE)
# Python 3.12 accepts f-strings that reuse their own quotes, as Agent Builder writes them; Python 3.11 does not.
_NEW_F_STRING = re.compile(r"f-string")
_PUBLIC = {
    "syntax": "the module has a syntax error",
    "dependency": "a package that it requires is not installed",
    "environment": "its environment is incomplete",
    "export": "the module exports nothing that can be served",
    "timeout": "importing the module timed out",
    "sandbox": "it requires a sandbox, and none is configured",
    "unknown_tool": "it uses a gateway tool that is not available",
}
"""The reasons that clients see, by error code."""
_NOT_INSTALLED = re.compile(r"the module '[\w.]+' is not installed")
_NO_TEXT = re.compile(r"codec can't decode|null bytes|Non-UTF-8")


def diagnose(error: BaseException, source: str) -> GatewayError:
    """Return the diagnosis of a failed load.

    Args:
        error: The exception that the import raised.
        source: The location of the agent. If it is a file, the diagnosis names the innermost frame in its folder.
    """
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ThreadExitError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SyntaxError) and error.filename:
        # The file may have changed since `linecache` last read it.
        linecache.checkcache(error.filename)
        file: str | None = error.filename
        line = error.lineno
        text: str | None = linecache.getline(error.filename, error.lineno or 0).strip()
    else:
        script = script_failure(error)
        stack = traceback.extract_tb((script[0] if script else error).__traceback__)
        file, line, text = blame(top_level(stack) if script else stack, source)
    code, message, hint = _explain(error, source, (file, line), text or "")
    diagnosis = LoadError(
        message,
        source=file or source,
        line=line,
        source_line=text,
        hint=hint,
        code=code,
    )
    diagnosis.__cause__ = error
    return diagnosis


def public_reason(error: GatewayError) -> str:
    """Return the reason of a failed load for clients.

    The diagnosis may contain paths, names of environment variables and text of an author's exception, which only
    operators may see.
    """
    reason = _PUBLIC.get(error.code)
    if _NOT_INSTALLED.fullmatch(error.message):
        reason = error.message
    elif error.message.startswith("`__gateway__"):
        reason = "its `__gateway__` is invalid"
    elif reason is None:
        cause = error.__cause__.__cause__ if isinstance(error.__cause__, ThreadExitError) else error.__cause__
        reason = f"importing the module raises {type(cause).__name__}" if cause is not None else "loading it failed"
    line = getattr(error, "line", None)
    where = f" (line {line})" if line else ""
    return f"{reason}{where}; the gateway's log and `agent-gateway check` show the details"


def blame(stack: traceback.StackSummary, source: str) -> tuple[str | None, int | None, str | None]:
    """Return the file, line number and source line of the innermost frame in the folder of the agent's file."""
    origin = Path(source)
    folder = origin.parent.resolve() if origin.is_file() else None
    own = [f for f in stack if folder is not None and Path(f.filename).is_relative_to(folder)]
    return (own[-1].filename, own[-1].lineno, own[-1].line) if own else (None, None, None)


def _explain(
    error: BaseException, source: str, place: tuple[str | None, int | None], place_text: str
) -> tuple[str, str, str | None]:
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        newer = sys.version_info < (3, 12) and _NEW_F_STRING.search(str(error.msg))
        if newer:
            hint = "this f-string reuses its own quotes, which needs Python 3.12 or newer; run the gateway with it"
        elif _NO_TEXT.search(str(error.msg)):
            hint = "save the file as UTF-8"
        elif "outside function" in str(error.msg) and "await" in str(error.msg):
            hint = "move the statement into `async def main()`, below the agents; only a notebook accepts it here"
        elif place_text.startswith(("!", "%")):
            hint = "remove the line, which is a command of notebooks; list packages in requirements.txt"
        else:
            hint = "fix the syntax error"
        return "syntax", f"{name}: {error.msg}", hint
    if isinstance(error, ModuleNotFoundError):
        stack = traceback.extract_tb(error.__traceback__)
        if any(Path(frame.filename).parts[-3:-1] == ("agents", "realtime") for frame in stack):
            return "export", "the module defines a voice agent (RealtimeAgent)", REALTIME_HINT
    if script := script_failure(error):
        return "import", script[1], CURE
    if isinstance(error, ImportError):
        return explain_import(error, source, *place)
    if isinstance(error, SystemExit):
        hint = "move the call under `if __name__ == '__main__':`"
        return "import", "the module calls exit() when it is imported", hint
    if isinstance(error, KeyboardInterrupt):
        return "import", "the module raises KeyboardInterrupt when it is imported", None
    if isinstance(error, KeyError) and _raised_by_environ(error):
        hint = "set it in the environment of the gateway"
        return "environment", f"the environment variable {error.args[0]} is not set", hint
    if isinstance(error, FileNotFoundError) and error.filename and not os.path.isabs(error.filename):
        hint = "relative paths are resolved against the gateway's working directory; write `Path(__file__).parent / …`"
        return "import", f"{name}: {error}", hint
    if isinstance(error, NameError) and error.name == "get_ipython":
        return "import", f"{name}: {error}", "remove the line, which only works in a notebook"
    if isinstance(error, ValueError) and "signal only works in main thread" in str(error):
        hint = f"{CURE}; the gateway handles signals, and calls the module's `teardown()`"
        return "import", "the module sets a signal handler when it is imported", hint
    if isinstance(error, TypeError) and "abstract class" in str(error) and "stream_response" in str(error):
        hint = "define `stream_response` to raise NotImplementedError; the gateway then calls `get_response` instead"
        return "import", f"{name}: {error}", hint
    if name == "OpenAIError" and _NO_KEY.search(str(error)):
        hint = "set OPENAI_API_KEY in the environment of the gateway"
        return "environment", "the module creates an OpenAI client without an API key", hint
    return "import", f"{name}: {error}", None


def _raised_by_environ(error: KeyError) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name == "__getitem__" and Path(frames[-1].filename).stem in ("os", "<frozen os>")
