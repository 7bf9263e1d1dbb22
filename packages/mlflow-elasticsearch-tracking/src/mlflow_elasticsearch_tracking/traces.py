"""Traces: their info, tags and metadata."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Traces(StoreBase):
    """Start, read, change and delete traces."""
