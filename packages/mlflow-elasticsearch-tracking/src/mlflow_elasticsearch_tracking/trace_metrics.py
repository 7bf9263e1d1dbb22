"""Figures over traces."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class TraceMetrics(StoreBase):
    """Aggregated metrics of traces, sessions and correlations."""
