"""Runs: their attributes, params and tags."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Runs(StoreBase):
    """Create, read, change and delete runs; log params, tags and batches."""
