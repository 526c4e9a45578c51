"""An exception from a module's import becomes a diagnosis: kind, file, line, the author's own line, a hint.

It must not import the module again, nor any part of the SDK.
"""

import linecache
import os
import re
import sys
import traceback
from pathlib import Path

from gateway_core.catalog.module_isolation import is_private, public_names
from gateway_core.daemon_thread import ThreadExitError
from gateway_core.errors import GatewayError, LoadError

# Where the name to install is not the name to import, and another project may have that one.
_DISTRIBUTIONS = {
    "bs4": "beautifulsoup4",
    "cv2": "opencv-python",
    "dateutil": "python-dateutil",
    "dotenv": "python-dotenv",
    "guardrails": "openai-guardrails",
    "PIL": "pillow",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}
_NO_KEY = re.compile(r"api_key|credentials", re.IGNORECASE)
# Python 3.12 reads f-strings that reuse their own quotes, as Agent Builder writes them; 3.11 stops at them.
_NEW_F_STRING = re.compile(r"f-string")
_NO_TEXT = re.compile(r"codec can't decode|null bytes|Non-UTF-8")


def diagnose(error: BaseException, source: str) -> GatewayError:
    """What an operator needs to know about a failed load.

    Args:
        error: What the import raised.
        source: Where the agent comes from. When that is a file, the last frame in its folder is blamed.
    """
    if isinstance(error, GatewayError):
        return error
    if isinstance(error, ThreadExitError) and error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, SyntaxError) and error.filename:
        # The file may have been another one when its lines were last looked at.
        linecache.checkcache(error.filename)
        file: str | None = error.filename
        line = error.lineno
        text: str | None = linecache.getline(error.filename, error.lineno or 0).strip()
    else:
        file, line, text = blame(traceback.extract_tb(error.__traceback__), source)
    code, message, hint = _explain(error, source)
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


def blame(stack: traceback.StackSummary, source: str) -> tuple[str | None, int | None, str | None]:
    """The file, the line and its text that a stack blames: the innermost frame in the folder of the agent's file."""
    origin = Path(source)
    folder = origin.parent.resolve() if origin.is_file() else None
    own = [f for f in stack if folder is not None and Path(f.filename).is_relative_to(folder)]
    return (own[-1].filename, own[-1].lineno, own[-1].line) if own else (None, None, None)


def _explain(error: BaseException, source: str) -> tuple[str, str, str | None]:
    name = type(error).__name__
    if isinstance(error, SyntaxError):
        newer = sys.version_info < (3, 12) and _NEW_F_STRING.search(str(error.msg))
        if newer:
            hint = "this f-string reuses its own quotes, which only Python 3.12 and newer read; run the gateway there"
        elif _NO_TEXT.search(str(error.msg)):
            hint = "save the file as UTF-8"
        else:
            hint = "mend the syntax"
        return "syntax", f"{name}: {error.msg}", hint
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").partition(".")[0]
        if is_private(package):
            sibling = (error.name or "").partition(".")[2]
            return "import", f"there is no module '{sibling}' beside it", "create it, or mend the import"
        return "dependency", f"the module '{error.name}' is not installed", _how_to_find(package, source)
    if isinstance(error, ImportError):
        return "import", f"{name}: {public_names(str(error))}", None
    if isinstance(error, SystemExit):
        return "import", "the module calls exit() while it is imported", "guard it by `if __name__ == '__main__':`"
    if isinstance(error, KeyboardInterrupt):
        return "import", "the module raises KeyboardInterrupt while it is imported", None
    if isinstance(error, KeyError) and _raised_by_environ(error):
        return "environment", f"the environment variable {error.args[0]} is not set", "set it where the gateway starts"
    if isinstance(error, EOFError):
        return "import", f"{name}: {error}", "nobody is there to type: move input() below `if __name__ == '__main__':`"
    if isinstance(error, FileNotFoundError) and error.filename and not os.path.isabs(error.filename):
        hint = "a relative path starts where the gateway was started; write `Path(__file__).parent / …`"
        return "import", f"{name}: {error}", hint
    if name == "OpenAIError" and _NO_KEY.search(str(error)):
        return "environment", "an OpenAI client is made without a key", "set OPENAI_API_KEY where the gateway starts"
    return "import", f"{name}: {error}", None


def _how_to_find(package: str, source: str) -> str | None:
    if not package:
        return None
    if known := _DISTRIBUTIONS.get(package):
        return f"pip install {known}"
    file = Path(source)
    if file.is_file() and file.with_name(f"{package}.py").is_file():
        return f"a single file has no helpers: make it {file.stem}/agent.py, with {package}.py in the same folder"
    return f"pip install {package}, or put {package}.py into the agent's folder if it is your own"


def _raised_by_environ(error: KeyError) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return bool(frames) and frames[-1].name == "__getitem__" and Path(frames[-1].filename).stem in ("os", "<frozen os>")
