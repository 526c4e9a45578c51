"""The settings in `__gateway__` that describe an agent to chat UIs."""

from types import ModuleType

import pytest
from agents import Agent

from gateway_core.catalog.presentation import presentation, unknown_settings
from gateway_core.errors import LoadError
from gateway_core.testing import gateway_in_memory, script

SETTINGS = {
    "display_name": "Weather",
    "description": "Knows the weather.",
    "icon": "https://example.org/sun.png",
    "prompts": ["Rain in Paris?", {"title": ["Sun", "in Rome"], "content": "Is it sunny in Rome?"}],
    "tags": ["weather", "demo"],
    "capabilities": {"vision": False, "file_upload": False},
}


def module(settings):
    made = ModuleType("weather")
    made.agent = Agent(name="w", model=script("hi", "hi"))
    made.__gateway__ = settings
    return made


async def test_the_models_have_the_metadata_that_open_webui_reads():
    async with gateway_in_memory({"W": module(SETTINGS), "X": Agent(name="x", handoff_description="Plain.")}) as g:
        listed = {each["id"]: each for each in (await g.http.get("/v1/models")).json()["data"]}
        assert listed["W"]["name"] == "Weather"
        assert listed["W"]["info"]["meta"] == {
            "description": "Knows the weather.",
            "profile_image_url": "https://example.org/sun.png",
            "suggestion_prompts": [
                {"content": "Rain in Paris?", "title": ["Rain in Paris?", ""]},
                {"content": "Is it sunny in Rome?", "title": ["Sun", "in Rome"]},
            ],
            "tags": [{"name": "weather"}, {"name": "demo"}],
            "capabilities": {"vision": False, "file_upload": False},
        }
        assert listed["X"]["info"]["meta"] == {"description": "Plain."}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"icon": "sun.png"}, "`icon` must be the URL of an image"),
        ({"icon": "javascript:alert(1)"}, "`icon` must be"),
        ({"icon": 5}, "`icon` must be a non-empty string"),
        ({"icon": "data:image/png;base64," + "A" * 300_000}, "longer than 256 KiB"),
        ({"prompts": "Rain?"}, "`prompts` must be a list"),
        ({"prompts": [5]}, r"`prompts\[0\]` must be"),
        ({"prompts": [{"title": "x"}]}, r"`prompts\[0\].content` must be"),
        ({"prompts": [{"content": "x", "titel": "y"}]}, "unknown key 'titel'"),
        ({"prompts": [{"content": "x", "title": ["a", "b", "c"]}]}, "has 3 lines"),
        ({"prompts": [{"content": "x", "title": 5}]}, r"`prompts\[0\].title` must be"),
        ({"tags": "weather"}, "`tags` must be a list"),
        ({"tags": [""]}, r"`tags\[0\]` must be"),
        ({"capabilities": ["vision"]}, "`capabilities` must be a dict"),
        ({"capabilities": {"vision": "no"}}, "must be True or False"),
        ({"description": ["x"]}, "`description` must be"),
        ({"display_name": 5}, "`display_name` must be"),
    ],
)
async def test_a_wrong_value_is_a_load_error(settings, message):
    with pytest.raises(LoadError, match=message):
        presentation(settings, "agent.py")
    async with gateway_in_memory({"W": module(settings)}) as g:
        [agent] = (await g.http.get("/admin/agents")).json()["agents"]
        assert agent["state"] == "broken"
        assert agent["diagnosis"]["message"].startswith("`__gateway__`: ")


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        ({"icom": "x"}, "did you mean 'icon'?"),
        ({5: "x"}, "known names: "),
        ({"capabilities": {"visoin": True}}, "did you mean 'vision'?"),
    ],
)
async def test_an_unknown_name_is_a_warning(settings, warning):
    [found] = unknown_settings(settings)
    assert warning in found
    async with gateway_in_memory({"W": module(settings)}) as g:
        [agent] = (await g.http.get("/admin/agents")).json()["agents"]
        assert agent["state"] == "ok"
        assert found in agent["warnings"]
