"""The indices of scorers, issues, label schemas and review queues: a document per thing, read and changed by its id."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.indices import KEYWORD, LONG, NAME
from mlflow_plugkit_elasticsearch import Index

#: One document per scorer of an experiment, with all its versions and its online configuration.
SCORERS = Index(
    "scorers",
    {
        "scorer_id": KEYWORD,
        "experiment_id": KEYWORD,
        "number": LONG,
        "name": NAME,
        "online": {"properties": {"sample_rate": {"type": "double"}}},
    },
)
ISSUES = Index(
    "issues",
    {
        "issue_id": KEYWORD,
        "experiment_id": KEYWORD,
        "status": KEYWORD,
        "source_run_id": KEYWORD,
        "rank": LONG,
        "created_timestamp": LONG,
    },
)
LABEL_SCHEMAS = Index(
    "label-schemas",
    {"schema_id": KEYWORD, "experiment_id": KEYWORD, "is_default": {"type": "boolean"}, "created": LONG},
)
REVIEW_QUEUES = Index(
    "review-queues", {"queue_id": KEYWORD, "experiment_id": KEYWORD, "users": KEYWORD, "creation_time_ms": LONG}
)
#: One document per item and queue: an item may wait in several queues, with a status in each.
REVIEW_ITEMS = Index(
    "review-items",
    {"queue_id": KEYWORD, "item_id": NAME, "item_type": KEYWORD, "status": KEYWORD, "creation_time_ms": LONG},
)
