"""Logged models."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class LoggedModels(StoreBase):
    """Create, read, change, search and delete logged models."""
