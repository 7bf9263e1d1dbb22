"""Spans of traces."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Spans(StoreBase):
    """Log and read spans."""
