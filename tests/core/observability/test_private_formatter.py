"""Exceptions in log lines: their type and place, never their text."""

import io
import logging

from gateway_core import hookimpl
from gateway_core.observability.private_formatter import PrivateFormatter
from gateway_core.testing import gateway_in_memory

SECRET = "canary-of-a-secret"


def test_an_exception_is_formatted_without_its_text():
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(PrivateFormatter("%(message)s"))
    logger = logging.Logger("alone")
    logger.addHandler(handler)
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise ValueError(SECRET) from error
    except ValueError:
        logger.exception("it failed")
    text = stream.getvalue()
    assert SECRET not in text
    assert text.startswith("it failed\nbuiltins.ValueError\n  ")
    assert "caused by builtins.KeyError" in text
    assert "test_private_formatter.py:" in text


async def test_the_text_of_a_plugins_exception_reaches_no_log_line():
    """Every hook whose failure is logged with `logger.exception`, and an endpoint that fails."""

    class Failing:
        def __init__(self, *_):
            pass

        @hookimpl
        def describe(self):
            raise ValueError(SECRET)

        @hookimpl
        def measurements(self):
            raise ValueError(SECRET)

        @hookimpl
        def watch_paths(self):
            raise ValueError(SECRET)

        @hookimpl
        async def readiness(self):
            raise ValueError(SECRET)

        @hookimpl
        def on_run_end(self, run, outcome):
            raise ValueError(SECRET)

        @hookimpl
        def routes(self):
            from starlette.routing import Route

            async def fail(request):
                raise ValueError(SECRET)

            return [Route("/failing", fail)]

    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger().addHandler(handler)
    try:
        async with gateway_in_memory({}, plugins={"failing": Failing}) as g:
            g.gateway.hooks.describe()
            g.gateway.measurements()
            await g.http.get("/readyz")
            answer = await g.http.get("/failing")
    finally:
        logging.getLogger().removeHandler(handler)
    assert answer.status_code == 500
    assert SECRET not in answer.text
    logged = stream.getvalue()
    assert logged.count("ValueError") >= 5
    assert SECRET not in logged
