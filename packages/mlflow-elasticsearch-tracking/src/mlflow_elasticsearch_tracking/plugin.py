"""What the entry points name. MLflow imports this module at `import mlflow`: the standard library only."""

from __future__ import annotations

from typing import Any


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """Make the tracking store (group `mlflow.tracking_store`)."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

    return ElasticsearchTrackingStore(store_uri, artifact_uri)


def scorer_store(tracking_uri: str) -> Any:
    """Make the scorer store (group `mlflow.scorer_store`): MLflow's own, which keeps scorers in the tracking store."""
    from mlflow.genai.scorers.registry import MlflowTrackingStore

    return MlflowTrackingStore(tracking_uri)
