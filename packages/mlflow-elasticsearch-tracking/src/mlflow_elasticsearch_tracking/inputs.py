"""Inputs and outputs of runs: datasets and models."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Inputs(StoreBase):
    """Log inputs and outputs of runs; search datasets."""
