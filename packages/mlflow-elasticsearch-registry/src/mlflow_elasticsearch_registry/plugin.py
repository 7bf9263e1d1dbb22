"""What the entry points name. MLflow's command line imports this module at its start: the standard library only."""

from __future__ import annotations

from typing import Any


def model_registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """Make the model registry store (group `mlflow.model_registry_store`)."""
    from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

    return ElasticsearchRegistryStore(store_uri, tracking_uri)
