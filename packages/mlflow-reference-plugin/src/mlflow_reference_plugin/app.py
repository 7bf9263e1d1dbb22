"""The server app: asks for a bearer token, marks each response and remembers what it received.

`mlflow server --app-name reference`. MLflow's default server is uvicorn, and MLflow answers part of its
API from native ASGI routes in front of Flask. So the app wraps the whole ASGI application: a Flask
`before_request` hook would not see those routes. Under gunicorn and waitress it wraps the WSGI one.
"""

from __future__ import annotations

import hmac
import json
from collections import deque
from collections.abc import Callable
from hashlib import sha256
from typing import Any

from mlflow_plugkit.compat import server_is_asgi
from mlflow_reference_plugin.settings import ClientSettings

MARK = ("x-reference-app", "1")
OPEN_PATHS = ("/health", "/version")
RECEIVED = "/reference/received"


def create_app() -> Any:
    """Make the application for the server that `mlflow server` runs."""
    from mlflow.server import app as flask_app

    gate = Gate(ClientSettings.from_env())
    if server_is_asgi():
        from mlflow.server.fastapi_app import create_fastapi_app

        return AsgiGate(create_fastapi_app(flask_app), gate)
    return WsgiGate(flask_app, gate)


class Gate:
    """Decides about a request and remembers it: the last 100, credentials as a fingerprint."""

    def __init__(self, settings: ClientSettings) -> None:
        self._token = settings.token.get_secret_value() if settings.token else None
        self._received: deque[dict[str, Any]] = deque(maxlen=100)

    def answer(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, bytes] | None:
        """Status and JSON body if the gate itself answers, or None if MLflow shall."""
        given = headers.get("authorization", "")
        self._received.append({"method": method, "path": path, "headers": _presentable(headers)})
        if self._token and path not in OPEN_PATHS and not hmac.compare_digest(given, f"Bearer {self._token}"):
            error = {"error_code": "UNAUTHENTICATED", "message": "Send the token that MLFLOW_REFERENCE_TOKEN names."}
            return 401, json.dumps(error).encode()
        if path == RECEIVED:
            return 200, json.dumps(list(self._received)).encode()
        return None


class AsgiGate:
    """The gate in front of an ASGI application; websockets and the lifespan pass through it."""

    def __init__(self, app: Any, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}

        async def send_marked(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), tuple(part.encode() for part in MARK)]
            await send(message)

        answer = self._gate.answer(scope["method"], scope["path"], headers)
        if answer is None:
            await self._app(scope, receive, send_marked)
            return
        status, body = answer
        json_headers = [(b"content-type", b"application/json")]
        await send_marked({"type": "http.response.start", "status": status, "headers": json_headers})
        await send_marked({"type": "http.response.body", "body": body})


class WsgiGate:
    """The gate in front of a WSGI application."""

    def __init__(self, app: Any, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        names = [name for name in environ if name.startswith("HTTP_")]
        headers = {name[5:].replace("_", "-").lower(): environ[name] for name in names}

        def start_marked(status: str, response_headers: list[tuple[str, str]], *rest: Any) -> Any:
            return start_response(status, [*response_headers, MARK], *rest)

        answer = self._gate.answer(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), headers)
        if answer is None:
            return self._app(environ, start_marked)
        status, body = answer
        start_marked(f"{status} {'OK' if status == 200 else 'Unauthorized'}", [("Content-Type", "application/json")])
        return [body]


def _presentable(headers: dict[str, str]) -> dict[str, str]:
    hidden = {"authorization", "cookie", "proxy-authorization"}
    return {n: f"sha256:{sha256(v.encode()).hexdigest()[:12]}" if n in hidden else v for n, v in headers.items()}
