"""Label schemas and review queues."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Labelling(StoreBase):
    """Label schemas and review queues."""
