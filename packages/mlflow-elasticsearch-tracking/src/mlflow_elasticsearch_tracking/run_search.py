"""Searching runs."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class RunSearch(StoreBase):
    """Search runs by filter and order."""
