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
    rebuild="mlflow_elasticsearch_tracking.experiments:experiment_document",
)

#: The order by one key needs columns alone; the tokens beside them answer the searches.
SORTED: dict[str, Any] = {"type": "flattened", "index": False}
#: Beyond Lucene's longest term a value is kept and not searchable.
NAME: dict[str, Any] = {"type": "keyword", "ignore_above": 8_191}

#: `encode.point`s: ranges over the number of one key walk a tree, not the terms of all its values.
POINTS: dict[str, Any] = {"type": "ip", "doc_values": False}

# Runs lie on the disk in the order that MLflow asks for unless told otherwise: a page reads its own runs alone.
RUNS = Index(
    "runs",
    {
        "run_id": KEYWORD,
        "experiment_id": KEYWORD,
        "experiment_number": LONG,
        "run_name": NAME,
        "status": KEYWORD,
        "user_id": NAME,
        "start_time": LONG,
        "end_time": LONG,
        "deleted_time": LONG,
        "lifecycle_stage": KEYWORD,
        "artifact_uri": NAME,
        "params": SORTED,
        "param_tokens": TOKENS,
        "tags": SORTED,
        "tag_tokens": TOKENS,
        "metrics": SORTED,
        "metric_points": POINTS,
        "nan_metrics": SORTED,
        "dataset_tokens": TOKENS,
        "model_ids": KEYWORD,
    },
    derived=(
        "experiment_number",
        "params",
        "param_tokens",
        "tags",
        "tag_tokens",
        "metrics",
        "nan_metrics",
        "metric_points",
        "dataset_tokens",
        "model_ids",
    ),
    rebuild="mlflow_elasticsearch_tracking.run_documents:run_document",
    settings={"sort.field": ["start_time", "run_id"], "sort.order": ["desc", "asc"]},
)
