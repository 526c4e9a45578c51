"""RunEvents in the form of OpenAI's Responses: one object, or a stream of typed events.

Pure: it writes bytes, and sends nothing. Tools that the gateway ran are items of their own. A client runs a call that
has no output, so each call here gets one before the end, or becomes a question for approval.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway_core.http import error_responses
from gateway_core.http.activity_rendering import question
from gateway_core.http.responses.item_references import item_id
from gateway_core.types import (
    ApprovalAsked,
    Completed,
    Failed,
    ReasoningDelta,
    RunEvent,
    TextDelta,
    ToolFinished,
    ToolStarted,
    Usage,
)

Json = dict[str, Any]

CANCELLED = "run_cancelled"
"""The code of the error with which a client ends a run."""
_ERROR_CODES = {"upstream_rate_limited": "rate_limit_exceeded", "rate_limit_exceeded": "rate_limit_exceeded"}


def usage_object(usage: Usage) -> Json:
    """OpenAI's usage object of the Responses API, as the upstream counted."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


class ResponseWriter:
    """Writes one response.

    Args:
        response_id: Its id.
        model: The model's name, as the client may use it again.
        echo: Fields of the request that the response repeats.
        request_id: The id under which an operator finds what failed.
        store: Whether it can be fetched later.
        reasoning: Whether reasoning is shown.
        tools: Whether calls of tools, and questions for approval, are items; text tells what there is to know without.
    """

    def __init__(
        self,
        response_id: str,
        model: str,
        echo: Mapping[str, Any],
        *,
        request_id: str,
        store: bool,
        reasoning: bool,
        tools: bool,
    ) -> None:
        self._request_id = request_id
        self._sequence = 0
        self._reasoning = reasoning
        self._tools = tools
        self._open: _OpenItem | None = None
        self._calls: dict[str, ToolStarted] = {}
        self._places: dict[str, int] = {}
        self.said: list[Json] = []
        """What an agent is told of this response when the conversation goes on, shown or not."""
        self.output: list[Json] = []
        self.response: Json = {
            "id": response_id,
            "object": "response",
            "created_at": int(time.time()),
            "completed_at": None,
            "status": "in_progress",
            "error": None,
            "incomplete_details": None,
            "model": model,
            "output": [],
            "parallel_tool_calls": True,
            "service_tier": "default",
            "store": store,
            "text": {"format": {"type": "text"}},
            "tool_choice": "auto",
            "tools": [],
            "top_logprobs": 0,
            "truncation": "disabled",
            "usage": None,
            **echo,
            "temperature": 1.0 if echo["temperature"] is None else echo["temperature"],
            "top_p": 1.0 if echo["top_p"] is None else echo["top_p"],
        }

    def start(self) -> bytes:
        """The first two events."""
        return self._event("response.created", response=self.response) + self._event(
            "response.in_progress", response=self.response
        )

    def events(self, events: Iterable[RunEvent]) -> bytes:
        """The events of the stream for events of the run; the last one of a run ends the response."""
        return b"".join([self._one(event) for event in events])

    def so_far(self) -> Json:
        """The response as far as it is."""
        return {**self.response, "output": self.output}

    def _one(self, event: RunEvent) -> bytes:
        match event:
            case TextDelta():
                return self._text(event.text)
            case ReasoningDelta():
                return self._thought(event.text) if self._reasoning else b""
            case ToolStarted():
                return self._call(event)
            case ToolFinished():
                return self._finished(event)
            case ApprovalAsked():
                return self._asked(event)
            case Completed():
                return self._completed(event)
            case Failed():
                return self._failed(event)
        return b""

    def _text(self, text: str) -> bytes:
        out = b""
        if not isinstance(self._open, _Message):
            out += self._close()
            self._open = item = _Message(self._new_id("msg"), len(self.output))
            out += self._event("response.output_item.added", output_index=item.index, item=item.as_json("in_progress"))
            part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            out += self._event("response.content_part.added", **item.place, content_index=0, part=part)
            text = text.removeprefix("\n\n")  # what parts paragraphs elsewhere parts items here
        item = self._open
        item.texts.append(text)
        return out + self._event("response.output_text.delta", **item.place, content_index=0, delta=text, logprobs=[])

    def _thought(self, text: str) -> bytes:
        out = b""
        if not isinstance(self._open, _Reasoning):
            out += self._close()
            self._open = item = _Reasoning(self._new_id("rs"), len(self.output))
            out += self._event("response.output_item.added", output_index=item.index, item=item.as_json("in_progress"))
            part = {"type": "summary_text", "text": ""}
            out += self._event("response.reasoning_summary_part.added", **item.place, summary_index=0, part=part)
        item = self._open
        item.texts.append(text)
        return out + self._event("response.reasoning_summary_text.delta", **item.place, summary_index=0, delta=text)

    def _call(self, event: ToolStarted) -> bytes:
        self._calls[event.call_id] = event
        if not self._tools:
            return b""
        out = self._close()
        index = self._places[event.call_id] = len(self.output)
        item = {"type": "function_call", "id": self._new_id("fc"), "call_id": event.call_id, "name": event.name}
        place = {"item_id": item["id"], "output_index": index}
        started = {**item, "arguments": "", "status": "in_progress"}
        self.output.append({**started, "arguments": event.arguments})
        out += self._event("response.output_item.added", output_index=index, item=started)
        out += self._event("response.function_call_arguments.delta", **place, delta=event.arguments)
        return out + self._event(
            "response.function_call_arguments.done", **place, name=event.name, arguments=event.arguments
        )

    def _finished(self, event: ToolFinished) -> bytes:
        out = self._close() if self._tools else b""
        if (call := self._calls.pop(event.call_id, None)) is not None:
            self._keep_text()
            kept = {"call_id": event.call_id, "name": call.name, "arguments": call.arguments}
            self.said.append({"type": "function_call", **kept})
            self.said.append({"type": "function_call_output", "call_id": event.call_id, "output": event.output})
        return out + self._called(event.call_id, event.output, "completed")

    def _called(self, call_id: str, output: str, status: str) -> bytes:
        """A call is over: its item is done, and its output is the next one."""
        if not self._tools:
            return b""
        out = b""
        if (index := self._places.pop(call_id, None)) is not None:
            out = self._done(index, self.output[index] | {"status": status})
        # The API allows a text as well; Open WebUI reads nothing but parts.
        parts = [{"type": "input_text", "text": output}]
        item = {"type": "function_call_output", "id": self._new_id("fco"), "call_id": call_id}
        return out + self._whole({**item, "output": parts, "status": status})

    def _asked(self, event: ApprovalAsked) -> bytes:
        out = self._text(question(event))
        if not self._tools:
            return out
        out += self._close()
        for position, call in enumerate(event.calls):
            item = {
                "type": "mcp_approval_request",
                "id": f"{event.id}.{position}",
                "server_label": "gateway",
                "name": call.name,
                "arguments": call.arguments,
            }
            # It takes the place of the call, which was not made.
            index = self._places.pop(call.call_id, None)
            out += self._whole(item) if index is None else self._done(index, item)
        return out

    def _done(self, index: int, item: Json) -> bytes:
        self.output[index] = item
        return self._event("response.output_item.done", output_index=index, item=item)

    def _end_calls(self, status: str) -> bytes:
        """The calls that are still on: those of tools that a model's server ran, or that the run's end cut off."""
        return b"".join([self._called(call_id, "", status) for call_id in [*self._places]])

    def _keep_text(self) -> None:
        item = self._open
        if isinstance(item, _Message) and (text := "".join(item.texts[item.kept :])):
            item.kept = len(item.texts)
            self.said.append({"role": "assistant", "content": text.removeprefix("\n\n")})

    def _new_id(self, prefix: str) -> str:
        """An id for the next item, from which `item_references` finds the response."""
        return item_id(prefix, self.response["id"], len(self.output))

    def _whole(self, item: Json) -> bytes:
        """An item that is there at once."""
        out = self._close()
        index = len(self.output)
        self.output.append(item)
        return (
            out
            + self._event("response.output_item.added", output_index=index, item=item)
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _close(self) -> bytes:
        self._keep_text()
        item, self._open = self._open, None
        if item is None:
            return b""
        done = item.as_json("completed")
        self.output.append(done)
        text = "".join(item.texts)
        if isinstance(item, _Message):
            out = self._event("response.output_text.done", **item.place, content_index=0, text=text, logprobs=[])
            out += self._event("response.content_part.done", **item.place, content_index=0, part=done["content"][0])
        else:
            out = self._event("response.reasoning_summary_text.done", **item.place, summary_index=0, text=text)
            out += self._event(
                "response.reasoning_summary_part.done", **item.place, summary_index=0, part=done["summary"][0]
            )
        return out + self._event("response.output_item.done", output_index=item.index, item=done)

    def _completed(self, event: Completed) -> bytes:
        out = self._close() + self._end_calls("completed")
        self.response |= {"output": self.output, "usage": usage_object(event.usage), "completed_at": int(time.time())}
        if event.finish_reason != "stop":
            reason = "max_output_tokens" if event.finish_reason == "length" else event.finish_reason
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
            return out + self._event("response.incomplete", response=self.response)
        self.response["status"] = "completed"
        return out + self._event("response.completed", response=self.response)

    def _failed(self, event: Failed) -> bytes:
        out = self._close() + self._end_calls("incomplete")
        error, told = event.error, error_responses.body(event.error, self._request_id)["error"]["message"]
        self.response |= {
            "status": "failed",
            "output": self.output,
            "usage": usage_object(event.usage),
            "error": {"code": _ERROR_CODES.get(error.code, "server_error"), "message": told},
        }
        # A stream has no event for it.
        if error.code == CANCELLED and self.response["background"]:
            self.response |= {"status": "cancelled", "error": None}
        return out + self._event("response.failed", response=self.response)

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


class _OpenItem:
    def __init__(self, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index
        self.texts: list[str] = []
        self.kept = 0

    @property
    def place(self) -> Json:
        return {"item_id": self.id, "output_index": self.index}

    def as_json(self, status: str) -> Json:
        raise NotImplementedError


class _Message(_OpenItem):
    def as_json(self, status: str) -> Json:
        part = {"type": "output_text", "text": "".join(self.texts), "annotations": [], "logprobs": []}
        content = [part] if status == "completed" else []
        return {"type": "message", "id": self.id, "role": "assistant", "status": status, "content": content}


class _Reasoning(_OpenItem):
    def as_json(self, status: str) -> Json:
        summary = [{"type": "summary_text", "text": "".join(self.texts)}] if status == "completed" else []
        return {"type": "reasoning", "id": self.id, "summary": summary, "status": status}
