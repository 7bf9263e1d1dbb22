"""Evaluation datasets and their records."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class EvaluationDatasets(StoreBase):
    """Create, read, change, search and delete evaluation datasets."""
