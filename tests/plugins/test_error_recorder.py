"""The last failures can be looked up, without what people wrote."""

from agents import Agent

from gateway_core.testing import call, gateway_in_memory, script


async def test_the_last_failures_are_remembered_with_their_request():
    agent = Agent(name="x", model=script(call("nothing")))
    config = {"plugins": {"error_recorder": {"capacity": 2}}}
    async with gateway_in_memory({"X": agent}, config=config) as g:
        for number in range(3):
            await g.http.post(
                "/v1/chat/completions",
                json={"model": "X" if number else "nope", "messages": [{"role": "user", "content": "canary"}]},
                headers={"x-request-id": f"r{number}"},
            )
        facts = g.gateway.hooks.describe()["error_recorder"]
    assert facts["total"] == 3
    assert [error["request_id"] for error in facts["errors"]] == ["r1", "r2"]
    assert facts["errors"][0]["agent_id"] == "X"
    assert "canary" not in str(facts)
