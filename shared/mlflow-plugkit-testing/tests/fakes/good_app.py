"""A minimal correct server app: one header on every answer, as ASGI and as WSGI."""

from __future__ import annotations

import os

HEADER = "X-Plugkit-App"


def create_app():
    from mlflow.server import app as flask_app

    if os.environ.get("_MLFLOW_SGI_NAME") != "uvicorn":
        return wsgi(flask_app)
    from mlflow.server.fastapi_app import create_fastapi_app

    return asgi(create_fastapi_app(flask_app))


def asgi(inner):
    async def app(scope, receive, send):
        async def marked(message):
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), (HEADER.lower().encode(), b"good")]
            await send(message)

        await inner(scope, receive, marked)

    return app


def wsgi(inner):
    def app(environ, start_response):
        def marked(status, headers, exc_info=None):
            return start_response(status, [*headers, (HEADER, "good")], exc_info)

        return inner(environ, marked)

    return app
