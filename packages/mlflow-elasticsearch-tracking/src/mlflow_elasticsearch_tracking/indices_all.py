"""All indices of the tracking store, for the command `mlflow-elasticsearch`."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.history_columns import METRICS
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS, RUNS
from mlflow_elasticsearch_tracking.indices_genai import ISSUES, LABEL_SCHEMAS, REVIEW_ITEMS, REVIEW_QUEUES, SCORERS
from mlflow_elasticsearch_tracking.indices_models import (
    DATASETS,
    EVALUATION_DATASETS,
    EVALUATION_RECORDS,
    LOGGED_MODELS,
    MODEL_METRICS,
)
from mlflow_elasticsearch_tracking.indices_traces import SPANS, TRACES
from mlflow_plugkit_elasticsearch.names import KEYS

INDICES = (
    *(EXPERIMENTS, RUNS, METRICS, DATASETS, LOGGED_MODELS, MODEL_METRICS, TRACES, SPANS),
    *(EVALUATION_DATASETS, EVALUATION_RECORDS, SCORERS, ISSUES, LABEL_SCHEMAS, REVIEW_QUEUES, REVIEW_ITEMS, KEYS),
)
