"""A hand-written server to compare with: Starlette, uvicorn and the SDK, in less than 80 lines."""

import json
import os
import sys
import time
import uuid

import uvicorn
from agents import Agent, ModelSettings, RunConfig, Runner, function_tool, set_tracing_disabled
from agents.models.multi_provider import MultiProvider
from openai import AsyncOpenAI
from openai.types.responses import ResponseTextDeltaEvent
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

set_tracing_disabled(True)
client = AsyncOpenAI(base_url=os.environ["OPENAI_BASE_URL"], api_key="none")
provider = MultiProvider(openai_client=client, openai_use_responses=False)


@function_tool
def get_weather(city: str) -> str:
    """The weather in a city."""
    return f"18 degrees in {city}"


AGENT = Agent(name="Bench", instructions="You are helpful.", model="bench", tools=[get_weather])
SETTINGS = ModelSettings(include_usage=True)


async def chat(request: Request) -> Response:
    body = await request.json()
    config = RunConfig(model_provider=provider, model_settings=SETTINGS)
    head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": body["model"]}
    if not body.get("stream"):
        result = await Runner.run(AGENT, body["messages"], run_config=config)
        message = {"role": "assistant", "content": result.final_output}
        used = result.context_wrapper.usage
        usage = {"prompt_tokens": used.input_tokens, "completion_tokens": used.output_tokens}
        usage["total_tokens"] = used.total_tokens
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        return JSONResponse({**head, "object": "chat.completion", "choices": choices, "usage": usage})

    async def stream():
        def chunk(delta: dict[str, str], reason: str | None = None) -> str:
            choices = [{"index": 0, "delta": delta, "finish_reason": reason}]
            return f"data: {json.dumps({**head, 'object': 'chat.completion.chunk', 'choices': choices})}\n\n"

        result = Runner.run_streamed(AGENT, body["messages"], run_config=config)
        yield chunk({"role": "assistant", "content": ""})
        try:
            async for event in result.stream_events():
                if event.type == "raw_response_event" and isinstance(event.data, ResponseTextDeltaEvent):
                    yield chunk({"content": event.data.delta})
        finally:
            if not result.is_complete:
                result.cancel()
        yield chunk({}, "stop")
        yield "data: [DONE]\n\n"

    return StreamingResponse(stream(), media_type="text/event-stream")


app = Starlette(routes=[Route("/v1/chat/completions", chat, methods=["POST"])])
uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", access_log=False)
