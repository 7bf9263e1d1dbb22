"""An index of the tests: one field of each kind that the stores use."""

from __future__ import annotations

from mlflow_plugkit_elasticsearch import Index

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
