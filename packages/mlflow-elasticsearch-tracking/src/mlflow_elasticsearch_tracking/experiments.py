"""Experiments."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Experiments(StoreBase):
    """Create, read, change, search and delete experiments."""
