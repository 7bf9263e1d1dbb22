"""Assessments of traces."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Assessments(StoreBase):
    """Create, read, change and delete assessments."""
