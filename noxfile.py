"""Every check of the project: `pip install nox && nox`. One session is one command: `nox -s tests`."""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "imports", "tests", "acceptance", "reliability", "clients", "docs", "package"]
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.2.9"

ROOT = Path(__file__).parent

# Whole files, so that what a file sets up is set up once.
TWO_AT_A_TIME = ("-n", "2", "--dist", "loadfile")


def install(session: nox.Session, *arguments: str) -> None:
    """Install with uv: seven environments in the time of one."""
    session.install("uv")
    session.run("uv", "pip", "install", "--quiet", "--python", session.virtualenv.bin + "/python", *arguments)


def install_project(session: nox.Session) -> None:
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "test")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, common mistakes, and the wording of docstrings, messages and pages."""
    install(session, "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tests/prose/prose_lint.py")


@nox.session
def types(session: nox.Session) -> None:
    """mypy, strict."""
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "types")
    session.run("mypy")


@nox.session
def imports(session: nox.Session) -> None:
    """The layers and the plugins' independence, as contracts."""
    install(session, "-e", ".", "--group", "imports")
    session.run("lint-imports")
    session.run("pytest", *TWO_AT_A_TIME, "tests/imports", *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """Everything that needs no second process."""
    install_project(session)
    elsewhere = [f"--ignore=tests/{folder}" for folder in ("acceptance", "reliability", "clients", "docs", "imports")]
    session.run("pytest", *TWO_AT_A_TIME, "tests", *elsewhere, *session.posargs)


@nox.session
def acceptance(session: nox.Session) -> None:
    """The real command on a real port, driven by the official client."""
    install_project(session)
    session.run("pytest", *TWO_AT_A_TIME, "tests/acceptance", *session.posargs)


@nox.session
def reliability(session: nox.Session) -> None:
    """What is promised under load and attack, in a short form; longer with EXAMPLES and SOAK_SECONDS."""
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "reliability")
    session.run("pytest", *TWO_AT_A_TIME, "tests/reliability", *session.posargs)


@nox.session
def clients(session: nox.Session) -> None:
    """Clients that others wrote, in Python and, where Node is installed, in JavaScript."""
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "clients")
    session.run("pytest", "tests/clients", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation against the code: settings, hooks, errors, links, examples."""
    install_project(session)
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session
def package(session: nox.Session) -> None:
    """Build both distributions, install them into a fresh environment and use them there."""
    install(session, "build", "virtualenv")
    session.run("python", "tests/package_check.py", str(ROOT))


@nox.session
def bench(session: nox.Session) -> None:
    """Requests and tokens a second against a hand-written server, what governing a tool and watching cost."""
    install(session, "-e", ".", "-r", "benchmarks/requirements.txt")
    session.run("python", "benchmarks/run.py", *session.posargs)
    session.run("python", "benchmarks/tools.py")
    session.run("python", "benchmarks/security.py")
    session.run("python", "benchmarks/reload.py")
    session.run("python", "benchmarks/observability.py")
