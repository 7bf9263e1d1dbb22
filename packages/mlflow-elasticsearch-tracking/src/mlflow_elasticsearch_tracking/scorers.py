"""Scorers and online scoring."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Scorers(StoreBase):
    """Register scorers and configure online scoring."""
