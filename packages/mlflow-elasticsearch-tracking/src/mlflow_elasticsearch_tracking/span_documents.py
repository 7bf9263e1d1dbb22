"""Spans between MLflow's entities and documents, and what a batch of spans says about its trace.

A span's document: `content` is the span as JSON text, as MLflow's SQL store keeps it; beside it what is searched and
aggregated. `grams` are the trigrams of the content in folded case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.grams import grams
from mlflow_elasticsearch_tracking.span_tree import Kind
from mlflow_elasticsearch_tracking.trace_documents import as_object, checked_name, checked_session, finite
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import bounded

MOST_DIMENSION = 500


@dataclass
class Batch:
    """The spans of one trace in one call, and what they say about it.

    Attributes:
        documents: the spans' sources by span id, without the experiment.
        spans: for `span_tree.grow`.
        start_ms: the earliest start.
        end_ms: the latest end, or None where no span ended.
        status: the state of the trace by its root span, None where that is not among them.
        root: the root span as a dict, as it is stored.
        tags: tags of the trace that the spans carry.
    """

    documents: dict[str, Source] = field(default_factory=dict)
    spans: dict[str, tuple[str, str | None, Kind, Any, Any]] = field(default_factory=dict)
    start_ms: int = 2**63
    end_ms: int | None = None
    status: str | None = None
    root: dict[str, Any] | None = None
    session_id: Any = None
    user: Any = None
    tags: dict[str, str] = field(default_factory=dict)
    resource_tags: dict[str, str] | None = None

    @property
    def reports(self) -> bool:
        """Whether a span reports tokens, cost or a session."""
        return bool(self.session_id) or any(usage or cost for *_, usage, cost in self.spans.values())


def batches_of(spans: Iterable[Any]) -> dict[str, Batch]:
    """Spans by trace.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a session id that is too long.
    """
    from mlflow.tracing.otel.translation import translate_span_when_storing
    from mlflow.tracing.utils import TraceJSONEncoder

    encode = TraceJSONEncoder(ensure_ascii=False).encode
    batches: dict[str, Batch] = {}
    for span in spans:
        stored = translate_span_when_storing(span)
        batch = batches.setdefault(span.trace_id, Batch())
        _add(batch, span, stored, encode(stored))
    return batches


def _add(batch: Batch, span: Any, stored: dict[str, Any], content: str) -> None:
    attributes = stored.get("attributes") or {}
    start, end = span.start_time_ns, span.end_time_ns
    status = str(getattr(span.status.status_code, "value", span.status.status_code))
    kind = (_term(span.span_type), status, _term(span.name))
    usage, cost = as_object(attributes.get(keys.SPAN_USAGE)), as_object(attributes.get(keys.SPAN_COST))
    parent = span.parent_id
    batch.start_ms = min(batch.start_ms, start // 1_000_000)
    if end is not None:
        batch.end_ms = max(batch.end_ms or 0, end // 1_000_000)
    batch.spans[span.span_id] = (span.span_id, parent, kind, usage or None, cost or None)
    batch.documents[span.span_id] = span_document(
        {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": parent,
            "name": kind[2],
            "type": kind[0] or None,
            "status": status,
            "start_ns": start,
            "start_ms": start // 1_000_000,
            "latency_ms": None if end is None else (end - start) // 1_000_000,
            **{name: finite(cost.get(name)) for name in keys.COST_KEYS},
            "model_name": _dimension(attributes.get(keys.SPAN_MODEL)),
            "model_provider": _dimension(attributes.get(keys.SPAN_PROVIDER)),
            "content": content,
        }
    )
    _add_context(batch, span, attributes)
    if parent is None:
        batch.root = stored
        if batch.status is None:
            batch.status = "ERROR" if status == "ERROR" else "OK"
        batch.tags |= _trace_tags(attributes)


def span_document(source: Mapping[str, Any]) -> Source:
    """The document: the source and what is derived from it for searches."""
    return {k: v for k, v in source.items() if v is not None} | {"grams": grams(source["content"])}


def _add_context(batch: Batch, span: Any, attributes: Mapping[str, Any]) -> None:
    if batch.session_id is None:
        session = next((attributes[k] for k in keys.SPAN_SESSION if attributes.get(k)), None)
        batch.session_id = checked_session(_label(session)) if session else None
    if batch.user is None and attributes.get(keys.SPAN_USER):
        batch.user = _label(attributes[keys.SPAN_USER])
    if batch.resource_tags is None:
        resource = getattr(getattr(span, "_span", None), "resource", None)
        if resource is not None and resource.attributes:
            batch.resource_tags = _resource_tags(resource.attributes)


def _resource_tags(attributes: Mapping[str, Any]) -> dict[str, str]:
    """What OpenTelemetry says about the process, as tags; nothing about itself, no tags of MLflow's own."""
    tags: dict[str, str] = {}
    for key, value in attributes.items():
        if not key.startswith(("telemetry.sdk.", "mlflow.")):
            tags |= _valid_tag(key, value if isinstance(value, str) else json.dumps(value, default=str))
    return tags


def _trace_tags(attributes: Mapping[str, Any]) -> dict[str, str]:
    """Tags of the trace that the root span carries over OTLP."""
    tags: dict[str, str] = {}
    for key, value in attributes.items():
        if key.startswith(keys.SPAN_TRACE_TAG):
            tags |= _valid_tag(key[len(keys.SPAN_TRACE_TAG) :], str(_text(value)))
    if keys.TRACE_NAME in tags:
        checked_name(tags[keys.TRACE_NAME])
    return tags


def _valid_tag(key: str, value: str) -> dict[str, str]:
    """The tag, or {} where MLflow would refuse it: spans are not lost for a tag's sake."""
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_trace_tag

    try:
        return dict([_validate_trace_tag(key, value)])
    except MlflowException:
        return {}


def _text(value: Any) -> Any:
    """The text in a JSON text; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        parsed = json.loads(value)
    except ValueError:
        return value
    return parsed if isinstance(parsed, str) else value


def _label(value: Any) -> str:
    """Whatever OpenTelemetry sends for a name, as text."""
    text = _text(value)
    return text if isinstance(text, str) else str(text)


def _dimension(value: Any) -> str | None:
    text = _text(value)
    return text[:MOST_DIMENSION] if isinstance(text, str) else None


def _term(text: str | None) -> str:
    """A name as a term that can stand between NULs."""
    return bounded((text or "").replace("\x00", "�"))


def spans_of(sources: Sequence[Mapping[str, Any]]) -> list[Any]:
    """MLflow's spans, the root first, the others by their start."""
    from mlflow.entities import Span

    from mlflow_plugkit.compat import optional_attribute

    ordered = sorted(sources, key=lambda s: (s.get("parent_id") is not None, s["start_ns"]))
    lazy = optional_attribute("mlflow.entities.span", "LazySpan")
    if lazy is not None:
        return [lazy.from_stored_content(source["content"]) for source in ordered]
    from mlflow.tracing.otel.translation import translate_loaded_span

    return [Span.from_dict(translate_loaded_span(json.loads(source["content"]))) for source in ordered]
