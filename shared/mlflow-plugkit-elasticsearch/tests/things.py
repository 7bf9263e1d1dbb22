"""An index of the tests: one field of each kind that the stores use."""

from __future__ import annotations

from typing import Any

from mlflow_plugkit_elasticsearch import Index
from mlflow_plugkit_elasticsearch.encode import token

THINGS = Index(
    "things",
    {
        "number": {"type": "long"},
        "name": {"type": "keyword"},
        "tokens": {"type": "keyword", "doc_values": False},
        "sorted": {"type": "flattened"},
        "kept": {"type": "object", "enabled": False},
    },
    derived=("tokens", "sorted"),
)


def with_tokens(source: dict[str, Any]) -> dict[str, Any]:
    """A document whose number has become a text, with the field that is derived from its name."""
    return source | {"number": str(source["number"]), "tokens": [token("name", source["name"])]}
