"""A chat completions server with minimal overhead, so that a benchmark measures the server in front of it.

Returns `TOKENS` words, streamed or not, as fast as the socket accepts them or with a delay between words.
"""

import asyncio
import json
import sys

TOKENS = int(sys.argv[2]) if len(sys.argv) > 2 else 100
DELAY = float(sys.argv[3]) if len(sys.argv) > 3 else 0.0
WORDS = [f"word{i} " for i in range(TOKENS)]
USAGE = {"prompt_tokens": 10, "completion_tokens": TOKENS, "total_tokens": 10 + TOKENS}
HEAD = {"id": "chatcmpl-bench", "created": 1, "model": "bench"}


def chunk(delta: dict[str, str], reason: str | None = None) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    data = {**HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return b"data: " + json.dumps(data).encode() + b"\n\n"


CHUNKS = [chunk({"role": "assistant", "content": ""}), *(chunk({"content": word}) for word in WORDS), chunk({}, "stop")]
USAGE_CHUNK = {**HEAD, "object": "chat.completion.chunk", "choices": [], "usage": USAGE}
LAST = b"data: " + json.dumps(USAGE_CHUNK).encode() + b"\n\ndata: [DONE]\n\n"
MESSAGE = {"role": "assistant", "content": "".join(WORDS)}
CHOICES = [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}]
WHOLE = json.dumps({**HEAD, "object": "chat.completion", "choices": CHOICES, "usage": USAGE}).encode()
MODELS = json.dumps(
    {"object": "list", "data": [{"id": "bench", "object": "model", "created": 1, "owned_by": "b"}]}
).encode()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            length = 0
            if b"content-length:" in lower:
                length = int(lower.split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            if head.startswith(b"GET"):
                writer.write(answer(MODELS))
            elif b'"stream":true' in body.replace(b" ", b""):
                writer.write(
                    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                )
                for data in [*CHUNKS, LAST]:
                    writer.write(b"%x\r\n%s\r\n" % (len(data), data))
                    await writer.drain()
                    # Each word in its own packet, as a model produces them.
                    await asyncio.sleep(DELAY)
                writer.write(b"0\r\n\r\n")
            else:
                writer.write(answer(WHOLE))
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


async def main() -> None:
    server = await asyncio.start_server(serve, "127.0.0.1", int(sys.argv[1]), backlog=1024)
    async with server:
        await server.serve_forever()


asyncio.run(main())
