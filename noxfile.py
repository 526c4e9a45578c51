"""All checks of the project.

`nox` runs the fast sessions, `nox -t all` every session, as the continuous integration does, and `nox -s tests` one.
"""

from pathlib import Path

import nox

nox.options.sessions = ["lint", "types", "imports", "tests"]
nox.options.reuse_existing_virtualenvs = True
nox.needs_version = ">=2025.2.9"

ROOT = Path(__file__).parent

# Distribute whole files, so that the fixtures of a module are set up once.
TWO_AT_A_TIME = ("-n", "2", "--dist", "loadfile")


def install(session: nox.Session, *arguments: str) -> None:
    """Install packages with uv, which is faster than pip."""
    session.install("uv")
    session.run("uv", "pip", "install", "--quiet", "--python", session.virtualenv.bin + "/python", *arguments)


def install_project(session: nox.Session, group: str = "test") -> None:
    """Install the project and a group for tests that start many processes, each of which would compile the packages."""
    install(session, "--compile-bytecode", "-e", ".", "-e", "./agents_pkg", "--group", group)


@nox.session(tags=["all"])
def lint(session: nox.Session) -> None:
    """Check the style, common mistakes, and the wording of docstrings, messages and pages."""
    install(session, "--group", "lint")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("python", "tests/prose/prose_lint.py")


@nox.session(tags=["all"])
def types(session: nox.Session) -> None:
    """Check types with mypy in strict mode."""
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "types")
    session.run("mypy")


@nox.session(tags=["all"])
def imports(session: nox.Session) -> None:
    """Check the layers and the independence of plugins with import-linter."""
    install(session, "-e", ".", "--group", "imports")
    session.run("lint-imports")
    session.run("pytest", *TWO_AT_A_TIME, "tests/imports", *session.posargs)


@nox.session(tags=["all"])
def tests(session: nox.Session) -> None:
    """Run the tests that need no other process."""
    install_project(session)
    elsewhere = [
        f"--ignore=tests/{folder}"
        for folder in ("acceptance", "reliability", "journeys", "clients", "conformance", "docs", "imports")
    ]
    session.run("pytest", *TWO_AT_A_TIME, "tests", *elsewhere, *session.posargs)


@nox.session(tags=["all"])
def acceptance(session: nox.Session) -> None:
    """Run the tests that start the real command on a port and use the official client."""
    install_project(session)
    session.run("pytest", *TWO_AT_A_TIME, "tests/acceptance", *session.posargs)


@nox.session(tags=["all"])
def reliability(session: nox.Session) -> None:
    """Test the guarantees under load and attack, in a short form; EXAMPLES and SOAK_SECONDS make it longer."""
    install_project(session, "reliability")
    session.run("pytest", *TWO_AT_A_TIME, "tests/reliability", *session.posargs)


@nox.session(tags=["all"])
def journeys(session: nox.Session) -> None:
    """Follow the documentation as its readers do, in a terminal, and print the duration of each step."""
    install_project(session, "journeys")
    session.run("pytest", "-s", "tests/journeys", *session.posargs)


@nox.session(tags=["all"])
def clients(session: nox.Session) -> None:
    """Test third-party clients in Python and, if Node is installed, in JavaScript."""
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "clients")
    session.run("pytest", "tests/clients", *session.posargs)


@nox.session(tags=["all"])
def conformance(session: nox.Session) -> None:
    """Run other projects' test suites against a gateway with a scripted model."""
    install(session, "-e", ".", "-e", "./agents_pkg", "--group", "conformance")
    # `tests/conftest.py` runs asynchronous tests. The suites leave connections open.
    session.run("pytest", "-p", "no:asyncio", "-W", "ignore", "-rs", "tests/conformance", *session.posargs)


@nox.session(tags=["all"])
def docs(session: nox.Session) -> None:
    """Compare the documentation with the code: settings, hooks, errors, links, examples."""
    install_project(session)
    session.run("pytest", "tests/docs", *session.posargs)


@nox.session(tags=["all"])
def package(session: nox.Session) -> None:
    """Build both distributions, install them into a new environment, and use them there."""
    install(session, "build", "virtualenv")
    session.run("python", "tests/package_check.py", str(ROOT))


@nox.session
def bench(session: nox.Session) -> None:
    """Compare the gateway with a hand-written server, and measure tool calls, security, reloads and observability."""
    install(session, "-e", ".", "-r", "benchmarks/requirements.txt")
    session.run("python", "benchmarks/run.py", *session.posargs)
    session.run("python", "benchmarks/tools.py")
    session.run("python", "benchmarks/security.py")
    session.run("python", "benchmarks/reload.py")
    session.run("python", "benchmarks/observability.py")
