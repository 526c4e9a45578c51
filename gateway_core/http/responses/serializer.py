"""Serializes run events as OpenAI responses: a single object or a stream of typed events.

It returns bytes and performs no I/O. Tools that the gateway ran become separate items. Clients run every function call
without an output, so each call gets an output before the response ends, or is replaced by an approval request.
https://platform.openai.com/docs/api-reference/responses-streaming
"""

import time
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from gateway_core.http import error_responses
from gateway_core.http.activity_rendering import approval_question, markdown_link
from gateway_core.http.responses.item_ids import item_id
from gateway_core.runs.run_events import (
    ApprovalAsked,
    Citation,
    ClientCallsAsked,
    Completed,
    Failed,
    Media,
    PendingCall,
    ReasoningDelta,
    RunEvent,
    TextDelta,
    ToolFinished,
    ToolStarted,
)
from gateway_core.types import Usage

Json = dict[str, Any]

CANCELLED = "run_cancelled"
"""The error code of a run that was cancelled through the API."""
_HOSTED_PREFIXES = {
    "code_interpreter_call": "ci",
    "file_search_call": "fs",
    "image_generation_call": "ig",
    "mcp_call": "mcp",
    "web_search_call": "ws",
}
_ERROR_CODES = {"upstream_rate_limited": "rate_limit_exceeded", "rate_limit_exceeded": "rate_limit_exceeded"}


def usage_object(usage: Usage) -> Json:
    """Returns the usage object of the Responses API, with the counts reported by the upstream."""
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": usage.total_tokens,
    }


class ResponseWriter:
    """Serializes one response.

    Args:
        response_id: Id of the response.
        model: The model id.
        echo: Request fields that the response repeats.
        request_id: Id of the request, which error messages contain.
        store: Whether the response is stored and can be fetched later.
        reasoning: Whether to include reasoning.
        tools: Whether tool calls and approval requests are output items; otherwise only text describes them.
        live: Whether the client streams the events.
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
        live: bool,
    ) -> None:
        self._live = live
        self._request_id = request_id
        self._sequence = 0
        self._reasoning = reasoning
        self._tools = tools
        self._open: _OpenItem | None = None
        self._length = 0
        self._calls: dict[str, ToolStarted] = {}
        self._places: dict[str, int] = {}
        self.conversation_items: list[Json] = []
        """The items that this response adds to the conversation, including those that the client does not see."""
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
        """Returns the first two events."""
        return self._event("response.created", response=self.response) + self._event(
            "response.in_progress", response=self.response
        )

    def events(self, events: Iterable[RunEvent]) -> bytes:
        """Returns the stream events for events of the run, except the last one, which `end` returns."""
        return b"".join([self._one(event) for event in events])

    def end(self) -> bytes:
        """Returns the last stream event, which contains the whole response, after the last event of the run."""
        status = self.response["status"]
        return self._event(f"response.{'failed' if status == 'cancelled' else status}", response=self.response)

    def snapshot(self) -> Json:
        """Returns the response in its current state."""
        return {**self.response, "output": self.output}

    def _one(self, event: RunEvent) -> bytes:
        match event:
            case TextDelta():
                out = self._text(event.text)
                self._length += len(event.text)
                return out
            case Citation():
                return self._citation(event)
            case ReasoningDelta():
                return self._thought(event.text) if self._reasoning else b""
            case ToolStarted():
                return self._call(event)
            case ToolFinished():
                return self._finished(event)
            case ApprovalAsked():
                return self._approval_asked(event)
            case ClientCallsAsked():
                return b"".join([self._client_call(call) for call in event.calls])
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
            start = self._length + len(text)
            text = text.removeprefix("\n\n")  # a paragraph break is redundant at the start of an item
            item.start = start - len(text)
        item = self._open
        if not text:
            return out
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

    def _citation(self, event: Citation) -> bytes:
        item = self._open
        if not isinstance(item, _Message):
            return b""
        places = ("start_index", "end_index", "index")
        moved = {name: event.data[name] - item.start for name in places if isinstance(event.data.get(name), int)}
        annotation = {**event.data, **moved}
        item.annotations.append(annotation)
        place = {**item.place, "content_index": 0, "annotation_index": len(item.annotations) - 1}
        return self._event("response.output_text.annotation.added", **place, annotation=annotation)

    def _call(self, event: ToolStarted) -> bytes:
        if not self._tools:
            self._calls[event.call_id] = event
            # The AI SDK repeats a request that fails before the first item, even if the tool has acted.
            return self._text("") if self._live and not self.output and self._open is None else b""
        out = self._close()
        if event.hosted is not None:
            return out + self._hosted_call(event.call_id, event.hosted)
        self._calls[event.call_id] = event
        self._places[event.call_id] = len(self.output)
        return out + self._function_call(event)

    def _client_call(self, call: PendingCall) -> bytes:
        """Adds a call that the client executes: one without an output."""
        out = self._close()
        kept = {"call_id": call.call_id, "name": call.name, "arguments": call.arguments}
        self.conversation_items.append({"type": "function_call", **kept})
        index = len(self.output)
        out += self._function_call(call)
        return out + self._done(index, self.output[index] | {"status": "completed"})

    def _function_call(self, call: ToolStarted | PendingCall) -> bytes:
        index = len(self.output)
        item = {"type": "function_call", "id": self._new_id("fc"), "call_id": call.call_id, "name": call.name}
        place = {"item_id": item["id"], "output_index": index}
        started = {**item, "arguments": "", "status": "in_progress"}
        self.output.append({**started, "arguments": call.arguments})
        out = self._event("response.output_item.added", output_index=index, item=started)
        out += self._event("response.function_call_arguments.delta", **place, delta=call.arguments)
        return out + self._event(
            "response.function_call_arguments.done", **place, name=call.name, arguments=call.arguments
        )

    def _hosted_call(self, call_id: str, hosted: Mapping[str, Any]) -> bytes:
        """Starts a call that the model's server makes, which has the form of OpenAI's own API."""
        kind: str = hosted["type"]
        index = self._places[call_id] = len(self.output)
        item = {"status": "in_progress", **hosted, "id": self._new_id(_HOSTED_PREFIXES.get(kind, "item"))}
        self.output.append(item)
        out = self._event("response.output_item.added", output_index=index, item=item)
        return out + self._event(f"response.{kind}.in_progress", item_id=item["id"], output_index=index)

    def _hosted_finished(self, event: ToolFinished, hosted: Mapping[str, Any]) -> bytes:
        index = self._places.pop(event.call_id)
        item = {"status": "completed", **hosted, "id": self.output[index]["id"]}
        out = self._close()
        if item["type"] == "mcp_call":
            result = "failed" if item.get("error") else "completed"
            place = {"item_id": item["id"], "output_index": index}
            out += self._event("response.mcp_call_arguments.done", **place, arguments=item.get("arguments", ""))
        else:
            result = "completed"
        out += self._event(f"response.{item['type']}.{result}", item_id=item["id"], output_index=index)
        return out + self._done(index, item)

    def _finished(self, event: ToolFinished) -> bytes:
        if event.hosted is not None:
            # The model knows from its own text what a hosted tool found, so a conversation does not repeat it.
            self._calls.pop(event.call_id, None)
            return self._hosted_finished(event, event.hosted) if self._tools else self._links(event)
        out = self._close() if self._tools else b""
        if (call := self._calls.pop(event.call_id, None)) is not None:
            self._flush_text()
            kept = {"call_id": event.call_id, "name": call.name, "arguments": call.arguments}
            self.conversation_items.append({"type": "function_call", **kept})
            self.conversation_items.append(
                {"type": "function_call_output", "call_id": event.call_id, "output": event.output}
            )
        return out + (self._called(event.call_id, event.output, "completed", event.media) or self._links(event))

    def _links(self, event: ToolFinished) -> bytes:
        """Adds what a tool produced to the text, for a client that does not get the tool's call."""
        links = [link for medium in event.media if (link := markdown_link(medium, event.name))]
        if not links:
            return b""
        text = "\n\n" + "\n\n".join(links) + "\n\n"
        out = self._text(text)
        if self._open is not None:
            self._open.start -= len(text)  # the agent's own text, which citations count, does not contain the links
        return out

    def _called(self, call_id: str, output: str, status: str, media: Iterable[Media] = ()) -> bytes:
        """Ends a call: its item is done, and its output is the next item."""
        if not self._tools:
            return b""
        out = b""
        if (index := self._places.pop(call_id, None)) is not None:
            call = self.output[index] | {"status": status}
            out = self._done(index, call)
            if call["type"] != "function_call":
                return out
        # The API also allows a string, but Open WebUI reads only parts.
        parts = [{"type": "input_text", "text": output}, *map(_media_part, media)]
        item = {"type": "function_call_output", "id": self._new_id("fco"), "call_id": call_id}
        return out + self._whole({**item, "output": parts, "status": status})

    def _approval_asked(self, event: ApprovalAsked) -> bytes:
        out = self._text(approval_question(event))
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
            # The approval request replaces the call, which did not run.
            index = self._places.pop(call.call_id, None)
            out += self._whole(item) if index is None else self._done(index, item)
        return out

    def _done(self, index: int, item: Json) -> bytes:
        self.output[index] = item
        return self._event("response.output_item.done", output_index=index, item=item)

    def _close_calls(self, status: str) -> bytes:
        """Ends the open calls: calls of hosted tools, and calls that were interrupted by the end of the run."""
        return b"".join([self._called(call_id, "", status) for call_id in [*self._places]])

    def _flush_text(self) -> None:
        item = self._open
        if isinstance(item, _Message) and (text := "".join(item.texts[item.kept :])):
            item.kept = len(item.texts)
            self.conversation_items.append({"role": "assistant", "content": text.removeprefix("\n\n")})

    def _new_id(self, prefix: str) -> str:
        """Returns the id of the next item, which `item_ids` can map to the response."""
        return item_id(prefix, self.response["id"], len(self.output))

    def _whole(self, item: Json) -> bytes:
        """Adds an item that is complete from the start."""
        out = self._close()
        index = len(self.output)
        self.output.append(item)
        return (
            out
            + self._event("response.output_item.added", output_index=index, item=item)
            + self._event("response.output_item.done", output_index=index, item=item)
        )

    def _close(self) -> bytes:
        self._flush_text()
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
        waits = event.finish_reason == "tool_calls"
        out = self._close() + self._close_calls("incomplete" if waits else "completed")
        self.response |= {"output": self.output, "usage": usage_object(event.usage), "completed_at": int(time.time())}
        if event.finish_reason != "stop" and not waits:
            reason = "max_output_tokens" if event.finish_reason == "length" else event.finish_reason
            self.response |= {"status": "incomplete", "incomplete_details": {"reason": reason}}
        else:
            self.response["status"] = "completed"
        return out

    def _failed(self, event: Failed) -> bytes:
        out = self._close() + self._close_calls("incomplete")
        error, message = event.error, error_responses.body(event.error, self._request_id)["error"]["message"]
        self.response |= {
            "status": "failed",
            "output": self.output,
            "usage": usage_object(event.usage),
            "error": {"code": _ERROR_CODES.get(error.code, "server_error"), "message": message},
        }
        # The API has no stream event for a cancelled response.
        if error.code == CANCELLED and self.response["background"]:
            self.response |= {"status": "cancelled", "error": None}
        return out

    def _event(self, kind: str, **fields: Any) -> bytes:
        data = orjson.dumps({"type": kind, "sequence_number": self._sequence, **fields})
        self._sequence += 1
        return b"event: " + kind.encode() + b"\ndata: " + data + b"\n\n"


def _media_part(medium: Media) -> Json:
    if medium.kind == "image":
        return {"type": "input_image", "image_url": medium.url, "detail": "auto"}
    field = "file_url" if medium.url.startswith(("http://", "https://")) else "file_data"
    return {"type": "input_file", field: medium.url} | ({"filename": medium.name} if medium.name else {})


class _OpenItem:
    def __init__(self, item_id: str, index: int) -> None:
        self.id = item_id
        self.index = index
        self.texts: list[str] = []
        self.start = 0
        self.annotations: list[Json] = []
        self.kept = 0

    @property
    def place(self) -> Json:
        return {"item_id": self.id, "output_index": self.index}

    def as_json(self, status: str) -> Json:
        raise NotImplementedError


class _Message(_OpenItem):
    def as_json(self, status: str) -> Json:
        text = "".join(self.texts)
        part = {"type": "output_text", "text": text, "annotations": self.annotations, "logprobs": []}
        content = [part] if status == "completed" else []
        return {"type": "message", "id": self.id, "role": "assistant", "status": status, "content": content}


class _Reasoning(_OpenItem):
    def as_json(self, status: str) -> Json:
        summary = [{"type": "summary_text", "text": "".join(self.texts)}] if status == "completed" else []
        return {"type": "reasoning", "id": self.id, "summary": summary, "status": status}
