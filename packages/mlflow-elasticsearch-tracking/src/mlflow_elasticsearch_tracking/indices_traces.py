"""The indices of traces: one document per trace, one per span.

A trace's document holds all that `search_traces` filters and orders by, what its spans are called included, so that
one search answers. The texts of spans are searched by their trigrams, in the spans' own documents.
"""

from __future__ import annotations

from typing import Any

from mlflow_elasticsearch_tracking.indices import KEYWORD, LONG, NAME, SORTED, TOKENS
from mlflow_plugkit_elasticsearch import Index

DOUBLE: dict[str, Any] = {"type": "double"}
#: A set of trigrams: which documents hold them is all that is kept.
GRAMS: dict[str, Any] = {"type": "text", "analyzer": "whitespace", "index_options": "docs", "norms": False}

_TRACE_DERIVED: dict[str, Any] = {
    "experiment": LONG,
    "end_time_ms": LONG,
    "tags": SORTED,
    "tag_tokens": TOKENS,
    "metadata": SORTED,
    "metadata_tokens": TOKENS,
    "span_kinds": TOKENS,
    "span_types": TOKENS,
    "span_statuses": TOKENS,
    "span_names": TOKENS,
    "assessment_tokens": TOKENS,
    "assessment_numbers": TOKENS,
    "session_tokens": TOKENS,
    "session_numbers": TOKENS,
    "issues": TOKENS,
}
TRACES = Index(
    "traces",
    {
        "trace_id": KEYWORD,
        "experiment_id": KEYWORD,
        "timestamp_ms": LONG,
        "execution_time_ms": LONG,
        "status": KEYWORD,
        "client_request_id": NAME,
        "name": NAME,
        "session_id": NAME,
        "input_tokens": LONG,
        "output_tokens": LONG,
        "total_tokens": LONG,
        "cache_read_input_tokens": LONG,
        "cache_creation_input_tokens": LONG,
        "cache_creation_input_tokens_above_1hr": LONG,
        "input_cost": DOUBLE,
        "output_cost": DOUBLE,
        "total_cost": DOUBLE,
        "runs": TOKENS,
        "prompts": TOKENS,
        "span_ms": LONG,
        **_TRACE_DERIVED,
    },
    derived=tuple(_TRACE_DERIVED),
    rebuild="mlflow_elasticsearch_tracking.trace_documents:trace_document",
)

SPANS = Index(
    "spans",
    {
        "trace_id": KEYWORD,
        "span_id": KEYWORD,
        "experiment_id": KEYWORD,
        "name": NAME,
        "type": NAME,
        "status": KEYWORD,
        "start_ms": LONG,
        "latency_ms": LONG,
        "input_cost": DOUBLE,
        "output_cost": DOUBLE,
        "total_cost": DOUBLE,
        "model_name": NAME,
        "model_provider": NAME,
        "grams": GRAMS,
    },
    derived=("grams",),
    rebuild="mlflow_elasticsearch_tracking.span_documents:span_document",
)
