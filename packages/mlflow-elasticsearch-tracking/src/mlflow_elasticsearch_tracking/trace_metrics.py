"""Figures over traces."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.trace_base import TraceBase


class TraceMetrics(TraceBase):
    """Aggregated metrics of traces, sessions and correlations."""
