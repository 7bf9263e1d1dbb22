"""An endpoint: shares requests out among deployments by weight, and sends copies to those in its shadow.

It runs in this package's own environment. The deployments trust it by their token; the caller's key ends here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp

from mlflow_local_deploy.counting import target_offset
from mlflow_local_deploy.place import Place
from mlflow_local_deploy.serving.gate import TOKEN_HEADER, Receive, Scope, Send, read_body, refuse, respond
from mlflow_local_deploy.slots import Page

#: Headers that are about one connection (RFC 9110, 7.6.1) or about the caller and this endpoint.
OWN_HEADERS = {
    *("connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "expect", "host", "content-length"),
    *("proxy-authorization", "proxy-authenticate", "proxy-connection", "authorization", "x-api-key"),
    TOKEN_HEADER.decode(),
}
#: Copies that one worker has under way; further ones are left out, so that a slow shadow slows down nobody.
SHADOWS_AT_ONCE = 32


class Shares:
    """Turns by weight: after each hundred turns everyone had exactly its share, spread evenly."""

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._credit = dict.fromkeys(self._weights, 0.0)

    def next(self) -> str | None:
        """Whose turn it is, None where nobody has a share."""
        if not self._weights:
            return None
        for name, weight in self._weights.items():
            self._credit[name] += weight
        chosen = max(self._credit, key=lambda name: self._credit[name])
        self._credit[chosen] -= sum(self._weights.values())
        return chosen


class Target:
    """A deployment, wherever it listens at the moment."""

    def __init__(self, place: Place) -> None:
        self._place, self._seen, self._url, self._token = place, 0, "", ""

    def address(self) -> tuple[str, str] | None:
        """URL and token, None where there is no such deployment."""
        try:
            seen = os.stat(self._place.status_file).st_mtime_ns
            if seen != self._seen:
                status = self._place.status()
                self._url, self._token = status.url if status and status.port else "", self._place.token()
                self._seen = seen
        except FileNotFoundError:
            return None
        return (self._url, self._token) if self._url else None


class Router:
    """The application of an endpoint's worker."""

    def __init__(self, place: Place, about: dict[str, Any], page: Page) -> None:
        self._name, self._counters = place.name, page.counters
        self._shares = Shares(about["traffic"])
        self._shadows = {name: Shares({"copy": share, "": 100 - share}) for name, share in about["shadow"].items()}
        self.targets: list[str] = list(dict.fromkeys([*about["traffic"], *about["shadow"]]))
        root = Path(about["deployments"])
        self._targets = {name: Target(Place(root / name)) for name in self.targets}
        self._session: aiohttp.ClientSession | None = None
        self._copies: set[asyncio.Task[None]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; on uvicorn's farewell close the connections."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["path"] in ("/v2/health/live", "/version"):
            await respond(send, 200, json.dumps({"live": True, "name": self._name}).encode())
            return
        body = await read_body(receive)
        chosen = self._shares.next()
        if scope["method"] == "POST":
            self._shadow(scope, body)
        if chosen is None:
            text = f"The endpoint {self._name!r} has no traffic: give its deployments weights."
            await refuse(send, 503, "TEMPORARILY_UNAVAILABLE", text)
            return
        await self._forward(chosen, scope, body, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # Connections are used again before the workers would close them.
        connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=15)
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, auto_decompress=False)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for copy in self._copies:
            copy.cancel()
        await self._session.close()
        await send({"type": "lifespan.shutdown.complete"})

    async def _forward(self, name: str, scope: Scope, body: bytes, send: Send) -> None:
        address = self._targets[name].address()
        if address is None:
            self._count(name, "failed")
            text = f"The deployment {name!r} of the endpoint {self._name!r} does not exist."
            await refuse(send, 503, "TEMPORARILY_UNAVAILABLE", text)
            return
        begun = False
        try:
            async with self._request(name, address, scope, body) as answer:
                headers = [
                    (k.lower(), v) for k, v in answer.raw_headers if k.decode("latin-1").lower() not in OWN_HEADERS
                ]
                headers.append((b"x-mlflow-deployment", name.encode()))
                if length := answer.headers.get("Content-Length"):
                    headers.append((b"content-length", length.encode()))
                await send({"type": "http.response.start", "status": answer.status, "headers": headers})
                begun = True
                async for chunk in answer.content.iter_any():
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
            self._count(name, "sent" if answer.status < 500 else "failed")
        except aiohttp.ClientError as exc:
            self._count(name, "failed")
            if begun:
                raise  # an answer that breaks off must not look complete
            text = f"The deployment {name!r} did not answer: {type(exc).__name__}."
            await refuse(send, 502, "TEMPORARILY_UNAVAILABLE", text)

    def _request(self, name: str, address: tuple[str, str], scope: Scope, body: bytes) -> Any:
        assert self._session
        url, token = address
        path = scope["path"]
        own = f"/v2/models/{self._name}"
        if path == own or path.startswith(f"{own}/"):
            path = f"/v2/models/{name}{path[len(own) :]}"
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in scope["headers"]]
        headers = [(k, v) for k, v in headers if k.lower() not in OWN_HEADERS]
        headers.append((TOKEN_HEADER.decode(), token))
        query = scope["query_string"].decode("latin-1")
        target = f"{url}{path}" + (f"?{query}" if query else "")
        return self._session.request(scope["method"], target, data=body or None, headers=headers, allow_redirects=False)

    def _shadow(self, scope: Scope, body: bytes) -> None:
        for name, shares in self._shadows.items():
            if shares.next() != "copy":
                continue
            if len(self._copies) >= SHADOWS_AT_ONCE:
                self._count(name, "shadow_dropped")
                continue
            copy = asyncio.get_running_loop().create_task(self._copy(name, dict(scope), body))
            self._copies.add(copy)
            copy.add_done_callback(self._copies.discard)

    async def _copy(self, name: str, scope: Scope, body: bytes) -> None:
        """Send a copy; what becomes of it is counted and touches no caller."""
        address = self._targets[name].address()
        outcome = "shadow_failed"
        try:
            if address:
                async with self._request(name, address, scope, body) as answer:
                    await answer.read()
                outcome = "shadowed" if answer.status < 500 else "shadow_failed"
        except aiohttp.ClientError:
            pass
        finally:
            self._count(name, outcome)

    def _count(self, name: str, outcome: str) -> None:
        number = self.targets.index(name)
        self._counters[target_offset(number, outcome)] += 1
