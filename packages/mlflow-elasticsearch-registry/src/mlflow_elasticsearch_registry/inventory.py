"""What the method ledger needs to know of this store (see `mlflow_plugkit_elasticsearch.ledger`)."""

from __future__ import annotations

from mlflow.store.model_registry.abstract_store import AbstractStore

from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

STORE, BASE = ElasticsearchRegistryStore, AbstractStore
INHERITED: dict[str, str] = {}
HIDDEN = ()
