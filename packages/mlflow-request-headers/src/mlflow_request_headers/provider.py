"""The request header provider: MLflow asks it for each HTTP request."""

from __future__ import annotations

import os
import sys
import uuid
from dataclasses import dataclass

from mlflow.exceptions import MlflowException
from mlflow.tracking.request_header.abstract_request_header_provider import RequestHeaderProvider

from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.uri import redact_text
from mlflow_request_headers.config import ConfigError, Rules, file_signature, load
from mlflow_request_headers.names import LONGEST_TOTAL, value_problem
from mlflow_request_headers.refusal import refusal
from mlflow_request_headers.settings import VARIABLES, HeaderSettings
from mlflow_request_headers.target import request_target
from mlflow_request_headers.template import Signature

Variables = tuple[str, ...]
_log = get_logger(__package__ or "mlflow_request_headers")


class RefusedError(Exception):
    """This request cannot be sent; the message is what the user reads."""


@dataclass(frozen=True)
class _Loaded:
    """One reading of the configuration; `problem` where it could not be used."""

    variables: Variables
    signature: Signature | None
    rules: Rules | None
    problem: str = ""


class RequestHeaders(RequestHeaderProvider):
    """Sends the configured headers with each request of MLflow's client, and stops requests that lack a required one.

    The configuration is read when the first request asks for it, and again when the file changes. There is no
    lock: two threads may read it at once, and either result is whole; so a forked process finds nothing held.
    """

    def __init__(self) -> None:
        self._loaded: _Loaded | None = None

    def in_context(self) -> bool:
        return any(_variables())

    def request_headers(self) -> dict[str, str]:
        try:
            return self._headers()
        except RefusedError as exc:
            _log.debug("%s", exc)
            return refusal(str(exc))

    def _headers(self) -> dict[str, str]:
        rules = self._rules()
        target = request_target() if rules.asks_for_host else ""
        headers = _configured(rules, target)
        if rules.request_id and rules.request_id.lower() not in map(str.lower, headers):
            headers[rules.request_id] = str(uuid.uuid4())
        if rules.traceparent:
            headers = _trace_headers() | headers
        if sum(map(len, headers)) + sum(map(len, headers.values())) > LONGEST_TOTAL:
            raise RefusedError(
                f"Request headers: all together they have more than {LONGEST_TOTAL} characters. Shorten them."
            )
        return headers

    def _rules(self) -> Rules:
        variables = _variables()
        signature = file_signature(variables[0])
        loaded = self._loaded
        if loaded is None or loaded.variables != variables or loaded.signature != signature:
            loaded = self._loaded = _load(variables, signature, loaded)
        if loaded.rules is None:
            raise RefusedError(loaded.problem)
        return loaded.rules


def _variables() -> Variables:
    get = os.environ.get
    return tuple([get(name, "").strip() for name in VARIABLES])


def _load(variables: Variables, signature: Signature | None, before: _Loaded | None) -> _Loaded:
    try:
        return _Loaded(
            variables, signature, load(HeaderSettings.from_env(dict(zip(VARIABLES, variables, strict=True))))
        )
    except (ConfigError, MlflowException) as exc:
        text = exc.message if isinstance(exc, MlflowException) else str(exc)
        problem = redact_text(f"Request headers: {text.rstrip('.')}. No request is sent until it is mended.")
    if before and before.rules and before.variables == variables:
        # A file that is being edited must not end a training run that started with a good one.
        _log.warning("%s", problem.replace("No request is sent until it is mended", "The headers stay as they were"))
        return _Loaded(variables, signature, before.rules)
    return _Loaded(variables, signature, None, problem)


def _configured(rules: Rules, target: str) -> dict[str, str]:
    scope = rules.scope_for(target)
    headers: dict[str, str] = {}
    for key, rule in scope.headers.items():
        value = rule.template.value() if rule.template else ""
        problem = value_problem(value)
        if problem:
            raise RefusedError(f"Request headers: {rule.where}: the header {rule.name!r} is refused: {problem}.")
        if value:
            headers[rule.name] = value
        elif key in scope.required:
            why = rule.template.missing() if rule.template else "it is taken out"
            raise RefusedError(
                f"Request headers: the required header {rule.name!r} has no value ({rule.where}): {why}. "
                "Set it; without it no request is sent."
            )
    for key, (name, where) in scope.required.items():
        if key not in scope.headers:
            goal = f" for {target}" if target else ""
            raise RefusedError(
                f"Request headers: the header {name!r} is required ({where}), but nothing defines it{goal}. "
                "Add it to the headers; without it no request is sent."
            )
    return headers


def _trace_headers() -> dict[str, str]:
    """`traceparent` and `tracestate` (W3C Trace Context) of the active span; empty where OpenTelemetry has none."""
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None or not trace.get_current_span().get_span_context().is_valid:
        return {}
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return {name: value for name, value in carrier.items() if value_problem(value) is None}
