"""What stands before every application of a worker: API key, limits, counting, and leave-taking.

Plain ASGI, a few microseconds a request.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from mlflow_local_deploy.counting import count, exposition, route_offset
from mlflow_local_deploy.place import Place
from mlflow_local_deploy.slots import Page

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: What probes may ask without a key.
OPEN_PATHS = frozenset(("/ping", "/health", "/v2/health/live", "/v2/health/ready"))
#: The header in which this user's own processes show the deployment's token.
TOKEN_HEADER = b"x-mlflow-local-deploy-token"


class Application(Protocol):
    """What the gate stands before."""

    #: An endpoint's deployments, in the order in which they are counted; none for a model.
    targets: list[str]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None: ...


class Gate:
    """One worker's gate.

    Attributes:
        closes: answers say `Connection: close`, since the worker ends.
    """

    closes = False

    def __init__(self, app: Application, place: Place, about: dict[str, Any], page: Page) -> None:
        self._app, self._place, self._page = app, place, page
        self._counters = page.counters
        self._seconds: float = about["timeout_seconds"]
        self._bytes: int = about["max_body_bytes"]
        self._auth: dict[str, str] | None = about.get("auth")
        self._token = place.token().encode()
        name = about["name"]
        self._routes = {
            "/invocations": route_offset("invocations"),
            "/invocations/stream": route_offset("stream"),
            "/explain": route_offset("explain"),
            f"/v2/models/{name}/infer": route_offset("infer"),
        }
        self._other = route_offset("other")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = _Exchange(send, self)
        self._page.in_flight += 1
        try:
            await self._answer(scope, receive, exchange)
        finally:
            self._page.in_flight -= 1
            route = self._routes.get(scope["path"], self._other)
            count(self._counters, route, exchange.status or 500, time.perf_counter() - began)

    async def _answer(self, scope: Scope, receive: Receive, exchange: _Exchange) -> None:
        path, headers = scope["path"], dict(scope["headers"])
        if self._auth and path not in OPEN_PATHS and not self._admits(headers):
            await refuse(exchange.send, 401, "UNAUTHENTICATED", "Send the API key as 'Authorization: Bearer <key>'.")
            return
        length = headers.get(b"content-length", b"")
        if length.isdigit() and int(length) > self._bytes:
            await self._too_large(exchange)
            return
        if path == "/metrics":
            text = await asyncio.to_thread(exposition, self._place, self._app.targets)
            await respond(exchange.send, 200, text.encode(), b"text/plain; version=0.0.4; charset=utf-8")
            return
        with _Deadline(self._seconds, exchange) as deadline:
            if not length and headers.get(b"transfer-encoding"):
                body = await _read(receive, self._bytes)
                if body is None:
                    await self._too_large(exchange)
                    return
                receive = _replay(body, receive)
            await self._app(scope, receive, exchange.send)
        if deadline.passed and not exchange.status:
            await refuse(exchange.send, 504, "TEMPORARILY_UNAVAILABLE", f"No answer within {self._seconds:g} s.")

    async def _too_large(self, exchange: _Exchange) -> None:
        exchange.closes = True  # the rest of the body is not read
        text = f"The body is larger than {self._bytes} bytes, the deployment's max_body_bytes."
        await refuse(exchange.send, 413, "INVALID_PARAMETER_VALUE", text)

    def _admits(self, headers: dict[bytes, bytes]) -> bool:
        token = headers.get(TOKEN_HEADER)
        if token is not None and hmac.compare_digest(token, self._token):
            return True
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() != b"bearer":
            key = headers.get(b"x-api-key", b"")
        assert self._auth
        return hmac.compare_digest(digest(key.strip(), self._auth["salt"]), self._auth["digest"])


def digest(key: bytes, salt: str) -> str:
    """How an API key is kept: it cannot be had back from it. Keys are long and random, so one round is enough."""
    return hashlib.sha256(salt.encode() + key).hexdigest()


class _Exchange:
    """One answer on its way: notes its status, and says that the connection ends where it does."""

    __slots__ = ("_gate", "_send", "closes", "status")

    def __init__(self, send: Send, gate: Gate) -> None:
        self._send, self._gate, self.status, self.closes = send, gate, 0, False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self._gate.closes or self.closes:
                message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
        await self._send(message)


class _Deadline:
    """Cancels the block when its time is over and nothing was answered yet: an answer that has begun may go on."""

    def __init__(self, seconds: float, exchange: _Exchange) -> None:
        self._seconds, self._exchange, self.passed = seconds, exchange, False

    def __enter__(self) -> _Deadline:
        task = asyncio.current_task()
        assert task
        self._task = task
        self._timer = asyncio.get_running_loop().call_later(self._seconds, self._expire)
        return self

    def _expire(self) -> None:
        if not self._exchange.status:
            self.passed = True
            self._task.cancel()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        self._timer.cancel()
        if not self.passed:
            return False
        if hasattr(self._task, "uncancel"):  # Python 3.11 and later
            self._task.uncancel()
        return kind is not None and issubclass(kind, asyncio.CancelledError)


async def _read(receive: Receive, limit: int) -> bytes | None:
    """A body of unknown length, None where it is longer than `limit`."""
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return b"".join(parts)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives a body that was read already, then what comes."""
    pending: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return pending.pop() if pending else await receive()

    return replay


async def read_body(receive: Receive) -> bytes:
    """The whole body; the gate has seen to its size."""
    return await _read(receive, 1 << 62) or b""


async def respond(send: Send, status: int, body: bytes, content_type: bytes = b"application/json") -> None:
    """Send a whole answer."""
    headers = [(b"content-type", content_type), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, status: int, code: str, text: str) -> None:
    """Send an error as MLflow's clients (`error_code`, `message`) and the inference protocol's (`error`) read it."""
    body = {"error_code": code, "message": text, "error": text}
    await respond(send, status, json.dumps(body).encode())
