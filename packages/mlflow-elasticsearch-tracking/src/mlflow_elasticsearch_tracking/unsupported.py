"""What this store answers with 501, each with its reason."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Unsupported(StoreBase):
    """Operations that answer NOT_IMPLEMENTED."""
