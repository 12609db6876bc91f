"""A proxy on loopback that refuses the first requests, as a busy server does, and passes on whatever comes after them.

It knows POST only, and passes an answer on as a whole, so that it is nothing for streams.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import httpx

REFUSALS = {503: "overloaded", 429: "rate_limit_exceeded"}


@contextmanager
def refusing_first(server: str) -> Iterator[tuple[str, list[int]]]:
    """The proxy's URL before `server`, and the status of each answer so far."""
    statuses: list[int] = []
    refusals = iter(REFUSALS.items())

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            refusal = next(refusals, None)
            if refusal:
                status, code = refusal
                error = {"message": "too busy", "type": "server_error", "param": None, "code": code}
                self.answer(status, json.dumps({"error": error}).encode())
                return
            headers = {name: self.headers[name] for name in ("Authorization", "X-Api-Key") if name in self.headers}
            headers["Content-Type"] = "application/json"
            answer = httpx.post(f"{server}{self.path}", content=body, headers=headers, timeout=120)
            self.answer(answer.status_code, answer.content)

        def answer(self, status: int, body: bytes) -> None:
            statuses.append(status)
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            if status in REFUSALS:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    proxy = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=proxy.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{proxy.server_port}", statuses
    finally:
        proxy.shutdown()
        thread.join()
        proxy.server_close()
