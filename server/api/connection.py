"""One TCP connection: how long a client may take, how much it may send, and how it is refused.

uvicorn's own protocol waits for ever for the first byte, the end of the headers or the body, keeps headers of any
length, and refuses in plain text. Here every refusal is OpenAI's error object with an X-Request-Id, and comes in its
turn: never in the middle of an answer to an earlier request. Nothing that a client sent is logged or quoted.
"""

from __future__ import annotations

import asyncio
import secrets
from functools import partial
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from adapters.errors import HeadersTooLarge, MailwrightError, Overloaded, RequestError, RequestTimeout
from server.api.errors import body_of, headers_of

# From the beginning of the connection, or from a later request's first byte, to the end of its headers.
HEADER_SECONDS = 10.0
# From the end of the headers to the end of the body: 1 MiB (server/api/gate.py) at 280 kbit/s.
BODY_SECONDS = 30.0
# A client that reads nothing of its answer for so long, with full buffers, would wait in memory for ever.
READER_SECONDS = 30.0
# A refused client's input is read for so long: closed at once, the kernel might take the refusal back.
LINGER_SECONDS = 2.0
# Of request line and headers; as many bytes may follow a body's last part without a further one.
MAX_HEADER_BYTES = 2**15
MAX_HEADERS = 100
# Requests that wait behind the one that is being answered.
MAX_PIPELINED = 16
# Well above what one engine can answer, well below the file descriptors that vLLM asks for (65,535).
MAX_CONNECTIONS = 4096


class Connection(HttpToolsProtocol):
    """To be given to uvicorn as `http=Connection`. It has no websockets: such a request is an ordinary one."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.ws_protocol_class = None
        self._deadline: asyncio.TimerHandle | None = None
        self._reader_deadline: asyncio.TimerHandle | None = None
        self._in_body = False
        self._refusing = False
        self._header_bytes = 0
        self._bytes_since_body = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(transport)
        self._finish_within(HEADER_SECONDS)
        if len(self.connections) > MAX_CONNECTIONS:
            self._refuse(Overloaded("this server has too many open connections", retry_after=int(HEADER_SECONDS)))

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish_in_time()
        self._stop_looking_for_reader()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        self._read_within(READER_SECONDS)

    def resume_writing(self) -> None:
        self._stop_looking_for_reader()
        super().resume_writing()

    def data_received(self, data: bytes) -> None:
        if self._refusing:
            return
        self._unset_keepalive_if_required()
        if self._deadline is None:
            self._finish_within(HEADER_SECONDS)
        self._bytes_since_body += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # The parser takes what follows for another protocol, so that the answer is the connection's last.
            self._refusing = True
            self.cycle.keep_alive = False
        except httptools.HttpParserError as exc:
            ours = exc.__context__
            self._refuse(ours if isinstance(ours, MailwrightError) else RequestError("this is not valid HTTP/1.1"))
        else:
            if self._bytes_since_body > MAX_HEADER_BYTES:
                self._refuse(_too_large())

    # What the parser calls. What these raise is the context of the HttpParserError that data_received catches.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._header_bytes = 0
        if self._deadline is None:
            self._finish_within(HEADER_SECONDS)

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._count(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        # After the body come trailers: the application has the headers already, and nothing may be added to them.
        if not self._in_body:
            super().on_header(name, value)
            if len(self.headers) > MAX_HEADERS:
                raise HeadersTooLarge(f"the request has more than {MAX_HEADERS} headers", "send fewer")

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            raise RequestError("too many requests came before the first was answered", "wait for answers")
        if self.parser.should_upgrade() and _has_body(self.headers):
            raise RequestError("this server speaks HTTP/1.1 only", "send the request without the header Upgrade")
        super().on_headers_complete()
        self._in_body = True
        self._bytes_since_body = 0
        self._finish_within(BODY_SECONDS)

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._bytes_since_body = 0

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._in_body = False
        self._bytes_since_body = 0
        self._finish_in_time()

    def _count(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise _too_large()

    def _finish_within(self, seconds: float) -> None:
        self._finish_in_time()
        self._deadline = self.loop.call_later(seconds, self._too_late)

    def _finish_in_time(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _read_within(self, seconds: float) -> None:
        unread = self.transport.get_write_buffer_size()
        self._reader_deadline = self.loop.call_later(seconds, self._look_for_reader, unread)

    def _stop_looking_for_reader(self) -> None:
        if self._reader_deadline is not None:
            self._reader_deadline.cancel()
            self._reader_deadline = None

    def _look_for_reader(self, unread: int) -> None:
        if self.transport.get_write_buffer_size() < unread:
            self._read_within(READER_SECONDS)
        else:
            self.transport.abort()

    def _too_late(self) -> None:
        if self._in_body or self._bytes_since_body:
            what, seconds = ("body", BODY_SECONDS) if self._in_body else ("headers", HEADER_SECONDS)
            self._refuse(RequestTimeout(f"the request's {what} took longer than {seconds:g} s", "send it at once"))
        else:
            self.transport.close()

    def _refuse(self, error: MailwrightError) -> None:
        """Answer with `error` in its turn, and close; further input is thrown away."""
        self._refusing = True
        self._finish_in_time()
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            if self._in_body:  # the answer came before the end of the request
                self.transport.close()
            else:
                self._write_refusal(error)
        elif not self._in_body:  # a whole request is being answered; the error is in the next one
            cycle.keep_alive = False
        elif self.pipeline:
            self.pipeline[0] = (cycle, partial(_refusal, error))
        elif cycle.response_started:
            self.transport.abort()
        else:
            cycle.disconnected = True
            cycle.message_event.set()
            self._write_refusal(error)

    def _write_refusal(self, error: MailwrightError) -> None:
        body = body_of(error)
        lines = [name + b": " + value + b"\r\n" for name, value in [*self.server_state.default_headers, *_head(error)]]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", body]))
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self.flow.resume_reading()
            self._deadline = self.loop.call_later(LINGER_SECONDS, self.transport.abort)
        else:
            self.transport.close()


async def _refusal(error: MailwrightError, scope: Any, receive: Any, send: Any) -> None:
    """An application that answers with `error`."""
    await send({"type": "http.response.start", "status": error.status, "headers": _head(error)})
    await send({"type": "http.response.body", "body": body_of(error)})


def _head(error: MailwrightError) -> list[tuple[bytes, bytes]]:
    return [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body_of(error))),
        (b"x-request-id", secrets.token_hex(16).encode()),
        (b"connection", b"close"),
        *headers_of(error),
    ]


def _has_body(headers: list[tuple[bytes, bytes]]) -> bool:
    framing = dict(headers)
    return b"transfer-encoding" in framing or framing.get(b"content-length", b"0") != b"0"


def _too_large() -> HeadersTooLarge:
    return HeadersTooLarge(f"the request's headers are larger than {MAX_HEADER_BYTES} bytes", "send fewer or shorter")
