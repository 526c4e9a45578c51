"""Stored chat completions: those of requests with `store`, for the principal that made them.

Each one is a record with the completion, its metadata and the messages of the request. Ids begin with the time, so the
order of the keys is the order of creation.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson
from attrs import frozen
from starlette.requests import Request
from starlette.responses import Response

from gateway_core.errors import InvalidRequestError, NotFoundError
from gateway_core.gateway import RunningGateway
from gateway_core.http import json_fields
from gateway_core.http.agent_request import read_request
from gateway_core.http.auth import authenticated
from gateway_core.http.json_io import json_response
from gateway_core.http.openapi import schemas
from gateway_core.http.openapi.describe import described
from gateway_core.http.pages import page_of, page_query
from gateway_core.types import Principal

Json = dict[str, Any]

COMPLETION = "chat_completion"
"""The record kind."""
_METADATA = re.compile(r"metadata\[(.+)\]")


@frozen
class ToStore:
    """The content that is stored next to a completion."""

    metadata: Mapping[str, str]
    messages: Sequence[Mapping[str, Any]]


async def put_completion(gateway: RunningGateway, owner: str, completion: Json, to_store: ToStore) -> None:
    """Stores a completion.

    Args:
        gateway: The gateway with the record store.
        owner: The id of the principal.
        completion: The completion as the client receives it, not streamed.
        to_store: The messages and metadata of the request.

    Raises:
        GatewayError: The completion could not be stored.
    """
    record = {"completion": {**completion, "metadata": to_store.metadata}, "messages": to_store.messages}
    seconds = gateway.config.http.keep_responses
    await gateway.records.put(COMPLETION, completion["id"], owner, orjson.dumps(record), seconds=seconds)


class StoredCompletions:
    """The endpoints.

    Args:
        gateway: The gateway whose record store is used.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway

    @described(
        "List the stored chat completions, oldest first by default",
        answers=schemas.LIST,
        query={**schemas.PAGE, "model": schemas.TEXT},
    )
    async def list(self, request: Request) -> Response:
        """`GET /v1/chat/completions`; `model` and `metadata[NAME]` select completions."""
        principal = await authenticated(request, self._gateway)
        query = page_query(request, order="asc")
        model = request.query_params.get("model")
        wanted = {
            match[1]: value for name, value in request.query_params.items() if (match := _METADATA.fullmatch(name))
        }
        listed: list[Json] = [{"id": key} for key in await self._gateway.records.keys(COMPLETION, principal.id)]
        if model is not None or wanted:
            kept = await self._completions(listed, principal)
            return json_response(page_of([each for each in kept if _matches(each, model, wanted)], query))
        page = page_of(listed, query)
        return json_response({**page, "data": await self._completions(page["data"], principal)})

    async def _completions(self, listed: Sequence[Json], principal: Principal) -> Sequence[Json]:
        """Returns the completions with these ids, without those deleted in the meantime."""
        records = [await self._record(each["id"], principal) for each in listed]
        return [record["completion"] for record in records if record is not None]

    @described("Get a stored chat completion", answers=schemas.COMPLETION)
    async def get(self, request: Request) -> Response:
        """`GET /v1/chat/completions/{id}`."""
        principal = await authenticated(request, self._gateway)
        return json_response((await self._found(request, principal))["completion"])

    @described("List the messages of a stored chat completion's request", answers=schemas.LIST, query=schemas.PAGE)
    async def messages(self, request: Request) -> Response:
        """`GET /v1/chat/completions/{id}/messages`."""
        principal = await authenticated(request, self._gateway)
        record = await self._found(request, principal)
        completion_id = record["completion"]["id"]
        listed = [_message(message, f"{completion_id}-{place}") for place, message in enumerate(record["messages"])]
        return json_response(page_of(listed, page_query(request, order="asc")))

    @described("Update the metadata of a stored chat completion", takes=schemas.UPDATE, answers=schemas.COMPLETION)
    async def update(self, request: Request) -> Response:
        """`POST /v1/chat/completions/{id}`: replaces the metadata."""
        principal, body = await read_request(request, self._gateway)
        record = await self._found(request, principal)
        metadata = json_fields.string_map(body, "metadata")
        if metadata is None:
            raise InvalidRequestError("'metadata' is required and must be an object", param="metadata")
        to_store = ToStore(metadata, record["messages"])
        await put_completion(self._gateway, principal.id, record["completion"], to_store)
        return json_response({**record["completion"], "metadata": metadata})

    @described("Delete a stored chat completion", answers=schemas.DELETED)
    async def delete(self, request: Request) -> Response:
        """`DELETE /v1/chat/completions/{id}`."""
        principal = await authenticated(request, self._gateway)
        completion_id = request.path_params["id"]
        if not await self._gateway.records.delete(COMPLETION, completion_id, principal.id):
            raise _not_found(completion_id)
        return json_response({"id": completion_id, "object": "chat.completion.deleted", "deleted": True})

    async def _found(self, request: Request, principal: Principal) -> Json:
        completion_id = request.path_params["id"]
        record = await self._record(completion_id, principal)
        if record is None:
            raise _not_found(completion_id)
        return record

    async def _record(self, key: str, principal: Principal) -> Json | None:
        kept = await self._gateway.records.get(COMPLETION, key, principal.id)
        return None if kept is None else orjson.loads(kept)


def _matches(completion: Json, model: str | None, metadata: Mapping[str, str]) -> bool:
    kept = completion["metadata"]
    return model in (None, completion["model"]) and all(kept.get(name) == value for name, value in metadata.items())


def _message(message: Mapping[str, Any], message_id: str) -> Json:
    """Returns a message in the form in which OpenAI's API lists it: parts are separate from text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else None
    return {
        "refusal": None,
        **message,
        "id": message_id,
        "content": None if parts is not None else content,
        "content_parts": parts,
    }


def _not_found(completion_id: str) -> NotFoundError:
    return NotFoundError(
        f"the chat completion '{completion_id[:100]}' was not found", code="completion_not_found", param="id"
    )
