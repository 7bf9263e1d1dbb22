"""A server app that breaks every rule at once; it does not even use MLflow, so that it starts at once."""

from __future__ import annotations

import os


def answer(path, credentials):
    print("request", path, credentials, flush=True)
    if path.endswith("/health"):
        return 503, b"not OK"
    if path.endswith("large.bin"):
        return 200, b"something else"
    return 500, b"<html>Internal Server Error</html>"


def create_app():
    return asgi if os.environ.get("_MLFLOW_SGI_NAME") == "uvicorn" else wsgi


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        raise RuntimeError(f"no {scope['type']} here")
    while (await receive()).get("more_body"):
        pass
    status, body = answer(scope["path"], dict(scope["headers"]))
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": body})


def wsgi(environ, start_response):
    while environ["wsgi.input"].read(1 << 20):
        pass
    status, body = answer(environ["PATH_INFO"], [environ.get("HTTP_AUTHORIZATION"), environ.get("HTTP_COOKIE")])
    start_response(f"{status} Status", [("Content-Type", "text/plain")])
    return [body]
