"""A model behind MLflow's own scoring server, and beside it what that lacks: streams, explanations, protocol v2."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
import json
import os
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server

from mlflow_local_deploy.serving.gate import Receive, Scope, Send, read_body, refuse, respond
from mlflow_local_deploy.serving.openinference import InferenceError, OpenInference

_END = object()


class ModelApp:
    """The application of a deployment's worker."""

    targets: list[str] = []

    def __init__(self, about: dict[str, Any]) -> None:
        """Load the model.

        Raises:
            Exception: whatever the model's loading raises.
        """
        # MLflow's own limit cancels what it has begun, also a stream; the gate's does not, and comes first.
        os.environ["MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT"] = str(int(about["timeout_seconds"]) + 5)
        os.environ.update({scoring_server.SERVING_MODEL_CONFIG: about["model_config"]} if about["model_config"] else {})
        self._model = scoring_server.load_model_with_mlflow_config(about["model_path"])
        self._scoring = _scoring_app(self._model)
        self._inference = OpenInference(about, self._model)
        self._routes: dict[str, Callable[[Scope, Receive, Send], Any]] = {
            "/invocations/stream": self._stream,
            "/explain": self._explain,
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        path = scope.get("path", "")
        handler = self._routes.get(path) or (self._infer if path == "/v2" or path.startswith("/v2/") else self._scoring)
        try:
            await handler(scope, receive, send)
        except MlflowException as exc:
            await refuse(send, exc.get_http_status_code(), exc.error_code, exc.message)
        except ModelError as exc:
            await refuse(send, 400, "BAD_REQUEST", str(exc))

    async def _infer(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            found = self._inference.find(scope["method"], scope["path"])
            if isinstance(found, dict):
                answer = json.dumps(found)
            else:
                answer = await asyncio.to_thread(found, await read_body(receive))
        except InferenceError as exc:
            await refuse(send, exc.status, exc.code, str(exc))
            return
        await respond(send, 200, answer.encode())

    async def _stream(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with server-sent events, one for each chunk of the model's `predict_stream`."""
        if not self._flavor.get("streamable"):
            await refuse(send, 501, "NOT_IMPLEMENTED", "The model has no predict_stream.")
            return
        data, params = await self._parsed(scope, receive)
        chunks = _Chunks(self._model.predict_stream(data, params))
        chunk = await chunks.next()  # an error before the first chunk is an ordinary answer
        headers = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send_events(chunk, chunks, send)

    async def _send_events(self, chunk: Any, chunks: _Chunks, send: Send) -> None:
        try:
            while chunk is not _END:
                await send(_event(_jsonable(chunk)))
                chunk = await chunks.next()
        except MlflowException as exc:  # the status is sent already: the client hears it in the stream
            await send(_event(json.dumps({"error_code": exc.error_code, "message": exc.message})))
        except ModelError as exc:
            await send(_event(json.dumps({"error_code": "BAD_REQUEST", "message": str(exc)})))
        await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

    async def _explain(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer with what the model's own `explain(model_input)` or `explain(context, model_input)` gives."""
        explain = self._explainer()
        if explain is None:
            text = "The model has no explain: give its PythonModel a method explain(context, model_input)."
            await refuse(send, 501, "NOT_IMPLEMENTED", text)
            return
        data, _ = await self._parsed(scope, receive)
        answer = await asyncio.to_thread(lambda: _jsonable(_by_model(explain, data)))
        await respond(send, 200, f'{{"explanations": {answer}}}'.encode())

    def _explainer(self) -> Callable[[Any], Any] | None:
        implementation = self._model._model_impl
        python_model = getattr(implementation, "python_model", None)
        explain: Callable[..., Any] | None = getattr(python_model, "explain", None)
        if not callable(explain):
            return None
        if "context" in inspect.signature(explain).parameters:
            return lambda data: explain(implementation.context, data)
        return explain

    async def _parsed(self, scope: Scope, receive: Receive) -> tuple[Any, Any]:
        if scope["method"] != "POST":
            raise MlflowException.invalid_parameter_value("Send the input with POST.")
        body = await read_body(receive)
        metadata = self._model.metadata
        try:
            parsed = await asyncio.to_thread(
                scoring_server._parse_json_data, body.decode("utf-8", "replace"), metadata, metadata.get_input_schema()
            )
        except RecursionError:
            raise MlflowException.invalid_parameter_value("The body is nested too deeply.") from None
        return parsed.data, parsed.params

    @property
    def _flavor(self) -> dict[str, Any]:
        flavor: dict[str, Any] = self._model.metadata.flavors["python_function"]
        return flavor


class ModelError(Exception):
    """What the model's own code raised: about its input, as far as anybody can tell."""


def _by_model(function: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except MlflowException:
        raise
    except Exception as exc:
        raise ModelError(f"The model raised {type(exc).__name__}: {exc}") from exc


class _Chunks:
    """An iterator whose steps run in threads, one by one and in one context, which MLflow resets at its end."""

    def __init__(self, chunks: Iterator[Any]) -> None:
        self._chunks, self._context = chunks, contextvars.copy_context()

    async def next(self) -> Any:
        """The next chunk, or _END."""
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, self._context.run, _by_model, next, self._chunks, _END)


def _scoring_app(model: Any) -> Any:
    """MLflow's application. MLflow 2.22 makes its routes by a method that Starlette 1 no longer has."""
    from fastapi import FastAPI

    if not hasattr(FastAPI, "route"):

        def route(app: Any, path: str, methods: list[str] | None = None) -> Callable[[Any], Any]:
            def add(function: Any) -> Any:
                app.add_route(path, function, methods=methods)
                return function

            return add

        FastAPI.route = route  # type: ignore[attr-defined] # gone from Starlette 1
    return scoring_server.init(model)


def _jsonable(value: Any) -> str:
    """JSON as MLflow's scoring server writes predictions."""
    out = StringIO()
    scoring_server.unwrapped_predictions_to_json(value, out)
    return out.getvalue()


def _event(text: str) -> dict[str, Any]:
    return {"type": "http.response.body", "body": f"data: {text}\n\n".encode(), "more_body": True}
