"""Issues found in traces."""

from __future__ import annotations

from mlflow_elasticsearch_tracking.base import StoreBase


class Issues(StoreBase):
    """Create, read, change and search issues."""
