"""A small HTTP/2 client without encryption, which can misbehave on demand."""

import json
import socket
from types import TracebackType
from typing import Any, Self

import h2.connection
import h2.events


class Http2:
    """One connection, with prior knowledge.

    Args:
        port: The port of the server on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=10)
        self._connection = h2.connection.H2Connection()
        self._connection.initiate_connection()
        self.status: dict[int, int] = {}
        self.body: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.reset_by_server: set[int] = set()
        self._flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._socket.close()

    def post(self, path: str, body: Any = None, *, end: bool = True) -> int:
        """Start a request, and return its stream id."""
        stream = self._connection.get_next_available_stream_id()
        head = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "localhost")]
        data = b"" if body is None else json.dumps(body).encode()
        self._connection.send_headers(stream, [*head, ("content-type", "application/json")])
        self.send(stream, data, end=end)
        return stream

    def send(self, stream: int, data: bytes, *, end: bool = False) -> None:
        """Send a part of a request's body."""
        self._connection.send_data(stream, data, end_stream=end)
        self._flush()

    def reset(self, stream: int) -> None:
        """Reset a request's stream."""
        self._connection.reset_stream(stream)
        self._flush()

    def read_until(self, done: Any) -> None:
        """Receive events until `done()`.

        Raises:
            TimeoutError: No data arrives before that.
            ConnectionError: The server closed the connection before that.
        """
        while not done():
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionError("the server closed the connection")
            for event in self._connection.receive_data(data):
                self._take(event)
            self._flush()

    def _take(self, event: Any) -> None:
        if isinstance(event, h2.events.ResponseReceived):
            self.status[event.stream_id] = int(dict(event.headers)[b":status"])
        elif isinstance(event, h2.events.DataReceived):
            self.body[event.stream_id] = self.body.get(event.stream_id, b"") + event.data
            self._connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            self.reset_by_server.add(event.stream_id)

    def _flush(self) -> None:
        self._socket.sendall(self._connection.data_to_send())
