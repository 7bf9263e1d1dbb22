"""Drives a server app through the ASGI scopes that are not HTTP, in a process of its own.

`python -m mlflow_plugkit_testing.app_scopes <app name>` prints what happened, as JSON: scope to
"ok" or to what went wrong.
"""

from __future__ import annotations

import asyncio
import json
import sys
import types
from importlib.metadata import entry_points
from typing import Any

TIMEOUT = 30
_WEBSOCKET = {
    "type": "websocket",
    "asgi": {"version": "3.0", "spec_version": "2.3"},
    "http_version": "1.1",
    "scheme": "ws",
    "path": "/no/such/socket",
    "raw_path": b"/no/such/socket",
    "query_string": b"",
    "root_path": "",
    "headers": [(b"host", b"127.0.0.1"), (b"upgrade", b"websocket")],
    "client": ("127.0.0.1", 1),
    "server": ("127.0.0.1", 5000),
    "subprotocols": [],
    "state": {},
}


def load(name: str) -> Any:
    """The app that `mlflow server --app-name <name>` would run: a plain function is a factory."""
    (point,) = entry_points(group="mlflow.app", name=name)
    found = point.load()
    return found() if isinstance(found, types.FunctionType) else found


async def drive(app: Any, scope: dict[str, Any], messages: list[dict[str, Any]], wanted: tuple[str, ...]) -> str:
    """Run one scope; "ok" if the app ends it without an exception and has sent one of the wanted messages."""
    sent: list[str] = []
    pending = list(messages)

    async def receive() -> dict[str, Any]:
        if pending:
            return pending.pop(0)
        await asyncio.sleep(TIMEOUT)
        return {}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message["type"])

    try:
        await asyncio.wait_for(app(scope, receive, send), TIMEOUT)
    except Exception as exc:  # noqa: BLE001 # reported to the rule
        return f"{type(exc).__name__}: {exc}"[:300]
    return "ok" if any(kind in wanted for kind in sent) else f"answered with {sent or 'nothing'}"


async def run(name: str) -> dict[str, str]:
    """Drive the app's lifespan and a WebSocket handshake that no route knows."""
    app = load(name)
    lifespan = {"type": "lifespan", "asgi": {"version": "3.0", "spec_version": "2.0"}, "state": {}}
    return {
        "lifespan": await drive(
            app,
            lifespan,
            [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}],
            ("lifespan.startup.complete",),
        ),
        "websocket": await drive(
            app,
            _WEBSOCKET,
            [{"type": "websocket.connect"}, {"type": "websocket.disconnect", "code": 1001}],
            ("websocket.close", "websocket.accept", "websocket.http.response.start"),
        ),
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(asyncio.run(run(sys.argv[1]))))
