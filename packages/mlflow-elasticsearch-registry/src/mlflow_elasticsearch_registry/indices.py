"""The indices of the registry: what is searchable, and how.

Fields named in `derived` are computed from the rest of a document at each write and are not stored: `..._term` holds
a text cut to the length of a term, `tag_tokens` one `encode.token` for each tag.
"""

from __future__ import annotations

from typing import Any

from mlflow_plugkit_elasticsearch import Index
from mlflow_plugkit_elasticsearch.names import KEYS

_KEYWORD: dict[str, Any] = {"type": "keyword"}
_LONG: dict[str, Any] = {"type": "long"}
_FLAG: dict[str, Any] = {"type": "boolean"}
#: Terms to search for, without the columns that sorting and aggregating would need.
_TERMS: dict[str, Any] = {"type": "keyword", "doc_values": False}
#: Objects whose keys users choose: kept, never looked into.
_KEPT: dict[str, Any] = {"type": "object", "enabled": False}

REGISTERED_MODELS = Index(
    "registered-models",
    {
        "model_id": _KEYWORD,
        "name_term": _KEYWORD,
        "last_updated_time": _LONG,
        "is_deleted": _FLAG,
        "tag_tokens": _TERMS,
        "cut_tags": _TERMS,
        "tags": _KEPT,
        "aliases": _KEPT,
        "latest": _KEPT,
    },
    derived=("name_term", "tag_tokens", "cut_tags"),
    rebuild="mlflow_elasticsearch_registry.records:model_document",
)
MODEL_VERSIONS = Index(
    "model-versions",
    {
        "model_id": _KEYWORD,
        "version": _LONG,
        "name_term": _KEYWORD,
        "stage": _KEYWORD,
        "creation_time": _LONG,
        "last_updated_time": _LONG,
        "run_term": _TERMS,
        "source_term": _TERMS,
        "is_prompt": _FLAG,
        "tag_tokens": _TERMS,
        "cut_tags": _TERMS,
        "tags": _KEPT,
    },
    derived=("name_term", "run_term", "source_term", "tag_tokens", "cut_tags"),
    rebuild="mlflow_elasticsearch_registry.records:version_document",
)
WEBHOOKS = Index(
    "webhooks",
    {"webhook_id": _KEYWORD, "events": _KEYWORD, "creation_time": _LONG, "is_deleted": _FLAG},
)
INDICES = (REGISTERED_MODELS, MODEL_VERSIONS, WEBHOOKS, KEYS)
