"""The indices of logged models, their metrics, and datasets."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.indices import KEYWORD, LONG, NAME, POINTS, SORTED, TOKENS
from mlflow_plugkit_elasticsearch import Index

_MODEL_DERIVED = {
    "experiment_number": LONG,
    "tag_tokens": TOKENS,
    "param_tokens": TOKENS,
    "metric_points": POINTS,
    "dataset_metric_points": POINTS,
    "metric_datasets": TOKENS,
    "metric_runs": KEYWORD,
    "latest": SORTED,
    "latest_nans": SORTED,
}

# The status is MLflow's number for it, as text: MLflow's SQL stores compare it so.
LOGGED_MODELS = Index(
    "logged-models",
    {
        "model_id": KEYWORD,
        "experiment_id": KEYWORD,
        "name": NAME,
        "artifact_location": NAME,
        "creation_timestamp_ms": LONG,
        "last_updated_timestamp_ms": LONG,
        "status": KEYWORD,
        "lifecycle_stage": KEYWORD,
        "model_type": NAME,
        "source_run_id": NAME,
        "status_message": NAME,
        **_MODEL_DERIVED,
    },
    derived=tuple(_MODEL_DERIVED),
    rebuild="mlflow_elasticsearch_tracking.model_documents:model_document",
)

#: Blocks of older metrics of logged models. They are read by id; searches ask them for single values.
MODEL_METRICS = Index(
    "model-metrics",
    {"block_id": KEYWORD, "model_id": KEYWORD, "metric_points": POINTS, "dataset_metric_points": POINTS},
    derived=("metric_points", "dataset_metric_points"),
    rebuild="mlflow_elasticsearch_tracking.model_metrics:block_document",
)

#: The datasets that runs read, one document for each experiment, name and digest.
DATASETS = Index("datasets", {"key": KEYWORD, "experiment_id": KEYWORD, "created": LONG})

EVALUATION_DATASETS = Index(
    "evaluation-datasets",
    {
        "dataset_id": KEYWORD,
        "name": NAME,
        "created_time": LONG,
        "last_update_time": LONG,
        "created_by": NAME,
        "last_updated_by": NAME,
        "experiment_ids": KEYWORD,
        "tag_tokens": TOKENS,
    },
    derived=("experiment_ids", "tag_tokens"),
    rebuild="mlflow_elasticsearch_tracking.evaluation_records:dataset_document",
)

EVALUATION_RECORDS = Index(
    "evaluation-records", {"dataset_id": KEYWORD, "dataset_record_id": KEYWORD, "created_time": LONG}
)
