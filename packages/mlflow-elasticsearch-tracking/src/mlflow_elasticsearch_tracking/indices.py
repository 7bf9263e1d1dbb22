"""The indices of the tracking store: what is searchable, and how.

Keyword arrays of `encode.token`s answer equality, prefix, LIKE and exists for any number of user-given keys; the
`flattened` fields beside them give an order by one key. Fields named in `derived` are computed from the rest of the
document at each write and are not stored.
"""

from __future__ import annotations

from typing import Any

from mlflow_plugkit_elasticsearch import Index

KEYWORD: dict[str, Any] = {"type": "keyword"}
LONG: dict[str, Any] = {"type": "long"}
#: Terms to search for, without the columns that sorting and aggregating would need.
TOKENS: dict[str, Any] = {"type": "keyword", "doc_values": False}
FLATTENED: dict[str, Any] = {"type": "flattened"}

EXPERIMENTS = Index(
    "experiments",
    {
        "experiment_id": KEYWORD,
        "number": LONG,
        "name": KEYWORD,
        "lifecycle_stage": KEYWORD,
        "creation_time": LONG,
        "last_update_time": LONG,
        "tags": FLATTENED,
        "tag_tokens": TOKENS,
    },
    derived=("tags", "tag_tokens"),
)
