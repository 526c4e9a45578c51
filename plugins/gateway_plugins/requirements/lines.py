"""One line of a requirements file becomes a requirement, or is refused with a reason.

It reads no file. It takes in far less than pip does: pip obeys options in a file, expands environment variables and
installs from any URL or folder that a line names.
"""

import re

from packaging.requirements import InvalidRequirement, Requirement

from gateway_plugins.requirements.declarations import Declared, Place, Refusal

_HASH = re.compile(r"--hash=(sha256:[0-9a-fA-F]{64}|sha384:[0-9a-fA-F]{96}|sha512:[0-9a-fA-F]{128})")
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
_PATH = re.compile(r"[.~/\\]|[A-Za-z]:|[^;\[<>=!]*[/\\]")
# pip takes a name that ends like this for a file in its working directory.
_ARCHIVE = re.compile(r"\.(whl|zip|tar|tgz|tbz|txz|tlz|egg|tar\.[a-z0-9]+)\Z", re.IGNORECASE)
# Far above any honest line, and below where parsers run out of stack or refuse a number.
_MAX_CHARACTERS = 2000
_BY_NAME = (
    "name a project and its versions, such as requests>=2; other places to install from are the operator's choice"
)
_PEP_508 = "write a project and its versions, such as requests>=2,<3"


def parse_requirement(text: str, place: Place) -> Declared | Refusal:
    """What a line without comments means.

    Args:
        text: One requirement, with `--hash=` options or without.
        place: Where it stands.
    """
    if "${" in text:
        return Refusal(place, "environment variables are not put into requirements", "write the value itself")
    words = text.split()
    first_option = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    options = words[first_option:]
    for option in options:
        if first_option == 0 or not option.startswith("--hash="):
            return Refusal(
                place, f"the option {option.partition('=')[0]} is not taken from a requirements file", _BY_NAME
            )
        if not _HASH.fullmatch(option):
            return Refusal(place, "this is no sha256, sha384 or sha512 hash", "write --hash=sha256:…", malformed=True)
    wanted = " ".join(words[:first_option])
    if len(wanted) > _MAX_CHARACTERS or not wanted.isprintable():
        return Refusal(place, "this is no requirement: too long, or not printable", _PEP_508, malformed=True)
    try:
        requirement = Requirement(wanted)
        Declared(requirement, place).applies  # noqa: B018 - some markers can only be refuted by asking them
    except (InvalidRequirement, ValueError, RecursionError) as error:
        return _unparsable(wanted, place, error)
    if requirement.url is not None:
        return Refusal(place, f"{requirement.name} is not installed from a URL or a folder", _BY_NAME)
    if _ARCHIVE.search(requirement.name):
        return Refusal(place, f"{requirement.name} looks like a file", _BY_NAME)
    return Declared(requirement, place, tuple(option.removeprefix("--hash=") for option in options))


def _unparsable(wanted: str, place: Place, error: Exception) -> Refusal:
    if _URL.match(wanted):
        return Refusal(place, "nothing is installed from a URL", _BY_NAME)
    if _PATH.match(wanted):
        return Refusal(place, "nothing is installed from a file or folder", _BY_NAME)
    problem = str(error).partition("\n")[0]
    return Refusal(place, f"this is no requirement: {problem}", _PEP_508, malformed=True)
