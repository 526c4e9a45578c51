"""`current_run` and `progress_reporter` inside tools."""

from agents import Agent, function_tool
from agents.tool_context import ToolContext

from gateway_core import current_run, progress_reporter
from gateway_core.testing import call, gateway_in_memory, script

known = []


@function_tool
async def work(context: ToolContext) -> str:
    """Work."""
    run = current_run()
    known.append((run.agent_id, run.principal.id) if run else None)
    report = progress_reporter(context.tool_call_id)
    report("half way")
    return "worked"


@function_tool
def work_in_a_thread() -> str:
    """Work in a thread."""
    run = current_run()
    known.append((run.agent_id, run.principal.id) if run else None)
    return "worked"


async def test_a_tool_can_read_its_run():
    known.clear()
    agent = Agent(name="inner", tools=[work, work_in_a_thread])
    model = script([call("work"), call("work_in_a_thread")], "done")
    async with gateway_in_memory({"Worker": agent}, model=model) as g:
        await g.openai.chat.completions.create(model="Worker", messages=[{"role": "user", "content": "go"}])
        [(run, _)] = g.ended
    assert known == [("Worker", run.principal.id)] * 2


async def test_progress_is_sent_to_a_streaming_client():
    agent = Agent(name="inner", tools=[work])
    config = {"clients": {"rendering": "reasoning"}}
    async with gateway_in_memory({"Worker": agent}, model=script(call("work"), "done"), config=config) as g:
        body = {"model": "Worker", "messages": [{"role": "user", "content": "go"}], "stream": True}
        text = (await g.http.post("/v1/chat/completions", json=body)).text
    assert "`half way`" in text
    assert text.index("**work**") < text.index("half way") < text.index("worked")


def test_outside_a_run_there_is_no_current_run_and_progress_is_discarded():
    assert current_run() is None
    progress_reporter("call")("discarded")
