"""Searching traces."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class TraceSearch(StoreBase):
    """Search traces by filter and order."""
