"""Spans and traces for the tests."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from mlflow.entities import TraceInfo, TraceLocation, TraceState

START = 1_700_000_000_000
STATUSES = {"OK": "OK", "ERROR": "ERROR", "UNSET": "UNSET"}


def new_trace_id() -> str:
    """A trace's id as MLflow makes them."""
    return f"tr-{uuid.uuid4().hex}"


def span(
    trace_id: str,
    number: int = 1,
    parent: int | None = None,
    name: str = "root",
    kind: str | None = "LLM",
    status: str = "OK",
    at_ms: int = START,
    ms: int | None = 5,
    resource: Any = None,
    raw: Mapping[str, Any] | None = None,
    **attributes: Any,
) -> Any:
    """One of MLflow's spans; a dunder in an attribute's name stands for a dot. `raw` is as OpenTelemetry sends it."""
    from mlflow.entities.span import create_mlflow_span
    from mlflow.tracing.utils import dump_span_attribute_value
    from opentelemetry.sdk.trace import ReadableSpan
    from opentelemetry.trace import SpanContext, Status, StatusCode, TraceFlags

    otel_trace_id = int(trace_id.removeprefix("tr-"), 16)
    flags = TraceFlags(1)
    given = {key.replace("__", "."): dump_span_attribute_value(value) for key, value in attributes.items()}
    context = SpanContext(otel_trace_id, number, is_remote=False, trace_flags=flags)
    made = ReadableSpan(
        name,
        context=context,
        parent=SpanContext(otel_trace_id, parent, is_remote=False, trace_flags=flags) if parent else None,
        attributes={
            "mlflow.traceRequestId": dump_span_attribute_value(trace_id),
            **({"mlflow.spanType": dump_span_attribute_value(kind)} if kind else {}),
            **given,
            **(raw or {}),
        },
        status=Status(StatusCode[status]),
        start_time=at_ms * 1_000_000,
        end_time=None if ms is None else (at_ms + ms) * 1_000_000,
        **({"resource": resource} if resource is not None else {}),
    )
    return create_mlflow_span(made, trace_id)


def usage(inputs: int, outputs: int, **more: int) -> dict[str, int]:
    """Tokens as spans report them."""
    return {"input_tokens": inputs, "output_tokens": outputs, "total_tokens": inputs + outputs, **more}


def info(
    trace_id: str,
    experiment_id: str,
    at_ms: int = START,
    ms: int | None = 100,
    state: str = "OK",
    tags: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    **more: Any,
) -> TraceInfo:
    """The info of a trace."""
    return TraceInfo(
        trace_id=trace_id,
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=at_ms,
        execution_duration=ms,
        state=TraceState(state),
        tags=tags or {},
        trace_metadata=metadata or {},
        **more,
    )


def shown(info: Any) -> dict[str, Any]:
    """A trace's info as plain data, without what names a folder or a moment of the test."""
    tags = {k: v for k, v in info.tags.items() if k != "mlflow.artifactLocation"}
    return {
        "id": info.trace_id,
        "time": (info.request_time, info.execution_duration),
        "state": info.state.value,
        "tags": tags,
        "metadata": dict(info.trace_metadata),
        "request": info.client_request_id,
        "previews": (info.request_preview, info.response_preview),
        "assessments": sorted((a.name, repr(a.value), a.valid, str(a.overrides)) for a in info.assessments),
    }
