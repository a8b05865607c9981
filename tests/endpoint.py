"""A real server on this machine that speaks, or misspeaks, the OpenAI protocol."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What the server says to one request."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    after_s: float = 0

    @classmethod
    def saying(cls, text: str | None) -> "Reply":
        return cls(body=json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode())


@dataclass
class Endpoint:
    url: str
    requests: list[dict[str, Any]]
    authorizations: list[str | None]


@contextmanager
def endpoint(reply: Callable[[dict[str, Any], int], Reply]) -> Iterator[Endpoint]:
    """A server whose answer to (request, how many came before) is given by a function."""
    seen = Endpoint("", [], [])
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with lock:
                before = len(seen.requests)
                seen.requests.append({"path": self.path, **request})
                seen.authorizations.append(self.headers.get("authorization"))
            answer = reply(request, before)
            time.sleep(answer.after_s)
            try:
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer.body)))
                self.end_headers()
                self.wfile.write(answer.body)
            except BrokenPipeError:
                pass  # the client did not wait

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    seen.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    try:
        yield seen
    finally:
        server.shutdown()
        server.server_close()
