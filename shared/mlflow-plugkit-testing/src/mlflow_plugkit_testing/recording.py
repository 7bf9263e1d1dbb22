"""A loopback HTTP server that records every request and answers what a test tells it to.

It speaks just enough of MLflow's REST API for a real `MlflowClient(server.uri).search_experiments()` or
`mlflow.utils.rest_utils.http_request`: unless told otherwise it answers 200 and a JSON object in which
every list is empty.
"""

from __future__ import annotations

import json
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

BODY_SILENCE_SECONDS = 1.0
"""A client that announced more bytes than it sends, and falls silent, gets its answer after this time."""


@dataclass(frozen=True)
class RecordedRequest:
    """One request as it arrived.

    Attributes:
        method: in upper case.
        path: with its query, not decoded.
        headers: (name, value) pairs in the order and spelling of the wire.
        body: decoded from chunks where it was sent in chunks; shorter than announced where the client stopped.
    """

    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def values(self, name: str) -> list[str]:
        """All values of a header, by its name in any case."""
        return [value for header, value in self.headers if header.lower() == name.lower()]

    def header(self, name: str) -> str | None:
        """The value of a header, several joined by a comma, or None where it is absent."""
        return ", ".join(self.values(name)) or None

    def shows(self, text: str) -> bool:
        """Whether `text` stands anywhere in the request."""
        return text in self.path or text.encode() in self.body or any(text in value for _, value in self.headers)


@dataclass(frozen=True)
class Answer:
    """What the server says to one request. The body of an empty answer is a JSON object."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None


def redirect(location: str, status: int = 307) -> Answer:
    """A redirect to `location`, by default one that keeps method and body (RFC 9110, 307)."""
    return Answer(status, {"Location": location})


class RecordingServer:
    """The server; use it as a context manager. It listens on 127.0.0.1 and answers in threads.

    Example:
        >>> with RecordingServer() as server:
        ...     server.answer(Answer(401), Answer(200))
        ...     server.uri.startswith("http://127.0.0.1:")
        True
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._requests: list[RecordedRequest] = []
        self._script: deque[Answer] = deque()
        self._default: Answer | None = None
        self._http = _Http(("127.0.0.1", 0), _Handler)
        self._http.recording = self
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join(timeout=10)
        self._http.server_close()

    @property
    def port(self) -> int:
        """The port that the system chose."""
        return int(self._http.server_address[1])

    @property
    def uri(self) -> str:
        """The tracking URI of this server."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def other_host_uri(self) -> str:
        """The same server under another host name, for redirects that leave the host."""
        return f"http://localhost:{self.port}"

    @property
    def requests(self) -> list[RecordedRequest]:
        """A snapshot of the requests so far, in the order in which they arrived."""
        with self._lock:
            return list(self._requests)

    def answer(self, *answers: Answer) -> None:
        """Queue answers; each is given once, before the usual answer comes again."""
        with self._lock:
            self._script.extend(answers)

    def always(self, answer: Answer | None) -> None:
        """Give this answer to all requests that no queued answer is left for; None brings back the usual one."""
        with self._lock:
            self._default = answer

    def clear(self) -> None:
        """Forget requests and queued answers."""
        with self._lock:
            self._requests.clear()
            self._script.clear()

    def _take(self, request: RecordedRequest) -> Answer:
        with self._lock:
            self._requests.append(request)
            if self._script:
                return self._script.popleft()
            return self._default or Answer(200, body=_usual_body(request))


def _usual_body(request: RecordedRequest) -> bytes:
    answer: dict[str, Any] = {}
    if request.path.partition("?")[0].endswith("/experiments/create"):
        answer["experiment_id"] = "1"
    return json.dumps(answer).encode()


class _Http(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    recording: RecordingServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a client that went away: a provider that raises leaves its connection behind.

        Printing a traceback from this thread while pytest formats one can end in "SystemError: AST constructor
        recursion depth mismatch" on Python 3.11, whose traceback module parses source lines.
        """
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 30
    server: _Http

    def _handle(self) -> None:
        request = RecordedRequest(self.command, self.path, tuple(self.headers.items()), self._read_body())
        answer = self.server.recording._take(request)
        body = answer.body if answer.body is not None else b"{}"
        self.send_response(answer.status)
        for name, value in {"Content-Type": "application/json", **answer.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do_HEAD = _handle  # noqa: N815 # the names that http.server calls

    def _read_body(self) -> bytes:
        body = b""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            missing = int(self.headers.get("Content-Length") or 0)
            self.connection.settimeout(BODY_SILENCE_SECONDS)
            try:
                while missing and (part := self.rfile.read1(missing)):
                    body, missing = body + part, missing - len(part)
            except TimeoutError:
                self.close_connection = True
            self.connection.settimeout(self.timeout)
            return body
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body

    def log_message(self, *_: object) -> None:
        """Print nothing: tests look at what a plugin prints."""
