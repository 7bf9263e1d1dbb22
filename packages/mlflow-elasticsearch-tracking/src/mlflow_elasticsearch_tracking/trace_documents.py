"""Traces between MLflow's entities and documents.

The source of a trace's document: `trace_id`, `experiment_id`, `timestamp_ms`, `execution_time_ms`, `status`, `name`,
`session_id`, token counts and costs as columns; `t` tags, `m` metadata, `a` assessments, `runs` and `prompts` linked
to it; `finalized` after `start_trace`; about its spans `tree`, `kinds`, `uses`, `costs` (see span_tree). A document
without `trace_id` keeps links for a trace that is still to come.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from mlflow.entities import TraceInfo, TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.utils.validation import _validate_length_limit

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.assessment_documents import assessment_fields, assessment_of
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import bounded, document_id, field_key, token

MOST_NAME, MOST_SESSION = 4_096, 250
_INT64 = 2**63
_STATES = {state.value: state for state in TraceState}


def trace_key(trace_id: str) -> str:
    """The id of a trace's document."""
    return trace_id if 0 < len(trace_id.encode(errors="replace")) <= 400 else document_id("trace", trace_id)


def span_key(trace_id: str, span_id: str) -> str:
    """The id of a span's document."""
    return f"{trace_key(trace_id)}:{span_id}"


def is_there(source: Mapping[str, Any] | None) -> bool:
    """Whether a document is a trace, and more than links for one that is still to come."""
    return source is not None and "trace_id" in source


def trace_document(source: Source) -> Source:
    """The document: the source and what is derived from it for searches."""
    tags, metadata = without_nothing(source.get("t", {})), without_nothing(source.get("m", {}))
    kinds = source.get("kinds", ())
    document = {
        **source,
        **assessment_fields(source.get("a", ())),
        "tags": _columns(tags),
        "tag_tokens": tokens(tags),
        "metadata": _columns(metadata),
        "metadata_tokens": tokens(metadata),
        "span_kinds": [kind_token(*kind) for kind in kinds],
        "span_types": list({kind[0] for kind in kinds if kind[0]}),  # one without a type has NULL in SQL
        "span_statuses": list({kind[1] for kind in kinds}),
        "span_names": list({kind[2] for kind in kinds}),
    }
    if is_there(source):
        document["experiment"] = int(source["experiment_id"])
        document["end_time_ms"] = source["timestamp_ms"] + (source.get("execution_time_ms") or 0)
    return document


def kind_token(kind: str, status: str, name: str) -> str:
    """Type, status and name of a span as one term."""
    return f"{kind}\x00{status}\x00{name}"


def tokens(values: Mapping[str, str]) -> list[str]:
    """Terms for each key and for each key with its value."""
    return [*(bounded(k) for k in values), *(token(k, v) for k, v in values.items())]


def _columns(values: Mapping[str, str]) -> dict[str, str]:
    return {field_key(k): bounded(v) for k, v in values.items()}


def without_nothing(values: Mapping[str, Any]) -> Source:
    """The values that there are."""
    return {k: v for k, v in values.items() if v is not None}


def checked_name(name: str | None) -> str | None:
    """A trace's name, or `INVALID_PARAMETER_VALUE` where it is longer than MLflow stores."""
    return None if name is None else _validate_length_limit("Trace name", MOST_NAME, name)


def checked_session(session: Any) -> Any:
    """A session's id, or `INVALID_PARAMETER_VALUE` where it is longer than MLflow stores."""
    return None if session is None else _validate_length_limit("Session ID", MOST_SESSION, session)


def artifact_location(experiment: Mapping[str, Any], trace_id: str) -> str:
    """Where the artifacts of a trace go: below the experiment's, as MLflow's SQL store has it."""
    from mlflow.utils.uri import append_to_uri_path

    return str(append_to_uri_path(experiment["artifact_location"], "traces", trace_id, "artifacts"))


def columns_of(metadata: Mapping[str, str]) -> Source:
    """Session, token counts and costs that the metadata give, None where they give nothing usable."""
    columns: Source = {}
    if keys.SESSION in metadata:
        columns["session_id"] = checked_session(metadata[keys.SESSION])
    for key, names in keys.COLUMNS.items():
        if key in metadata:
            given = as_object(metadata[key])
            convert = token_count if key == keys.TOKEN_USAGE else finite
            columns |= {name: convert(given[name]) for name in names if name in given}
    return columns


def metadata_of(source: Mapping[str, Any]) -> dict[str, str]:
    """The metadata as MLflow shows them: the columns are JSON again."""
    metadata = dict(source.get("m", {}))
    if source.get("session_id") is not None:
        metadata[keys.SESSION] = source["session_id"]
    for key, names in keys.COLUMNS.items():
        found = {name: source[name] for name in names if source.get(name) is not None}
        if found:
            metadata[key] = json.dumps(found)
    return metadata


def plain_metadata(metadata: Mapping[str, str]) -> dict[str, str]:
    """The metadata that are no columns."""
    return {k: v for k, v in metadata.items() if k != keys.SESSION and k not in keys.COLUMNS}


def trace_info_of(source: Mapping[str, Any]) -> TraceInfo:
    """MLflow's entity."""
    tags = dict(source.get("t", {}))
    if source.get("name") is not None:
        tags[keys.TRACE_NAME] = source["name"]
    status = source["status"]
    return TraceInfo(
        trace_id=source["trace_id"],
        trace_location=TraceLocation.from_experiment_id(source["experiment_id"]),
        request_time=source["timestamp_ms"],
        execution_duration=source.get("execution_time_ms"),
        state=_STATES.get(status) or TraceState(status),
        tags=tags,
        trace_metadata=metadata_of(source),
        client_request_id=source.get("client_request_id"),
        request_preview=source.get("request_preview"),
        response_preview=source.get("response_preview"),
        assessments=[assessment_of(row, source["trace_id"]) for row in source.get("a", ())],
    )


def as_object(value: Any) -> dict[str, Any]:
    """A JSON object given as such or as text; {} for anything else."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return {}
    return value if isinstance(value, dict) else {}


def token_count(value: Any) -> int | None:
    """A whole number of 64 bits, or None."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        return None
    whole = number.is_finite() and number == number.to_integral_value() and -_INT64 <= number < _INT64
    return int(number) if whole else None


def finite(value: Any) -> float | None:
    """A finite number, or None."""
    if value is None or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def linked(existing: Iterable[str], more: Iterable[str]) -> list[str]:
    """Links in their order, each once."""
    return list(dict.fromkeys([*existing, *more]))
