"""The fake Hub's HTTP server: routing, authorization, faults to inject."""

from __future__ import annotations

import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from fake_hub import routes
from fake_hub.shards import Shards
from fake_hub.state import HubError, State

TOKEN = "hf_TestTokenOfTheFakeHub00"
XET_TOKEN = "xet-access-token-7Kd2"


@dataclass
class Answer:
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any, **headers: str) -> Answer:
        return cls(200, json.dumps(value).encode(), {"Content-Type": "application/json", **headers})


@dataclass
class Request:
    method: str
    path: str
    query: dict[str, list[str]]
    headers: Any
    body: bytes
    groups: tuple[str, ...] = ()

    def json(self) -> Any:
        return json.loads(self.body or b"{}")


@dataclass
class Refusal:
    """A fault: answer requests that match with a status instead of doing them."""

    pattern: str
    status: int
    headers: dict[str, str]
    left: int
    after: bool = False


class FakeHub:
    """A Hub on 127.0.0.1, as a context manager.

    Attributes:
        state: its repositories and buckets.
        shards: what its xet storage holds.
        before_commit: called with (repository, branch) before each commit is checked, so that a test can
            put another one in between.
        counts: requests by `METHOD operation`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = folder / "cas"
        self.storage.mkdir(parents=True, exist_ok=True)
        self.state, self.shards = State(), Shards(self.storage)
        self.before_commit: list[Callable[[Any, str], None]] = []
        self.page_size = 1000
        self.large_suffixes: tuple[str, ...] = (".bin", ".pkl", ".safetensors")
        self.counts: Counter[str] = Counter()
        self.refusals: list[Refusal] = []
        self.damaged_downloads = False
        self.undeletable: set[str] = set()
        self.created_private: dict[str, bool] = {}
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> FakeHub:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def refuse(self, pattern: str, status: int, times: int = 1, after: bool = False, **headers: str) -> Refusal:
        """Answer the next requests whose `METHOD /path` matches with a status; with `after`, having done them."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        refusal = Refusal(pattern, status, named, times, after)
        self.refusals.append(refusal)
        return refusal

    @contextmanager
    def damaged_storage(self, damage: Callable[[bytes], bytes]) -> Iterator[None]:
        """The xet storage's content, changed on disk for the length of the block (its shards stay as they are)."""
        files = {file: file.read_bytes() for file in self.shards.content_files()}
        try:
            for file, content in files.items():
                file.chmod(0o600)
                file.write_bytes(damage(content))
            yield
        finally:
            for file, content in files.items():
                file.write_bytes(content)

    def answer(self, request: Request) -> Answer:
        """Do what a request asks."""
        refusal = self._refusal(request)
        if refusal and not refusal.after:
            return Answer(refusal.status, b"{}", dict(refusal.headers))
        if request.headers.get("Authorization") != f"Bearer {TOKEN}" and not request.path.startswith("/api/agent"):
            message = "Invalid username or password."
            return Answer(401, json.dumps({"error": message}).encode(), {"X-Error-Message": message})
        try:
            answer = self._route(request)
        except HubError as error:
            headers = {"X-Error-Code": error.code} if error.code else {}
            body = json.dumps({"error": error.message}).encode()
            shown = error.message.encode("ascii", "backslashreplace").decode()
            return Answer(error.status, body, headers | {"X-Error-Message": shown})
        return Answer(refusal.status, b"{}", dict(refusal.headers)) if refusal else answer

    def _route(self, request: Request) -> Answer:
        for pattern, function in routes.ROUTES:
            found = re.fullmatch(pattern, f"{request.method} {request.path}")
            if found:
                self.counts[function.__name__] += 1
                request.groups = tuple(unquote(group or "") for group in found.groups())
                with self.state.lock:
                    result = function(self, request)
                return result if isinstance(result, Answer) else Answer.of(result)
        raise HubError(404, message=f"no route for {request.method} {request.path}")

    def _refusal(self, request: Request) -> Refusal | None:
        for refusal in self.refusals:
            if refusal.left > 0 and re.search(refusal.pattern, f"{request.method} {request.path}"):
                refusal.left -= 1
                return refusal
        return None


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: object) -> None:
        """Stay silent."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def _serve(self) -> None:
        url = urlsplit(self.path)
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length) if length else self._chunks()
        if len(body) < length:
            self.close_connection = True
            return
        answer = self.hub.answer(Request(self.command, url.path, parse_qs(url.query), self.headers, body))
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, value)
        if "Content-Length" not in answer.headers:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    def _chunks(self) -> bytes:
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return body

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve
