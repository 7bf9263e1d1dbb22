"""Metrics: points, their history, samples of it."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Metrics(StoreBase):
    """Metric history."""
