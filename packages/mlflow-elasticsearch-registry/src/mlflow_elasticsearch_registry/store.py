"""The registry store: its parts put together."""

from __future__ import annotations

from typing import Any

from mlflow.store.model_registry.abstract_store import AbstractStore

from mlflow_elasticsearch_registry.models import RegisteredModels
from mlflow_elasticsearch_registry.search import Searches
from mlflow_elasticsearch_registry.stages import StagesAndAliases
from mlflow_elasticsearch_registry.versions import ModelVersions
from mlflow_elasticsearch_registry.webhooks import Webhooks
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings


class ElasticsearchRegistryStore(RegisteredModels, ModelVersions, StagesAndAliases, Searches, Webhooks, AbstractStore):
    """MLflow's model registry on Elasticsearch. Prompts are MLflow's own: models and versions with tags.

    Args:
        store_uri: `elasticsearch://host:9200/prefix`; see `ElasticsearchSettings`.
        tracking_uri: the tracking server, as MLflow hands it on.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a bad URI or setting. Nothing is connected yet.
    """

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        super().__init__(store_uri, tracking_uri)  # type: ignore[no-untyped-call] # MLflow's
        self._made_of = (store_uri, tracking_uri)
        self.settings = ElasticsearchSettings.from_uri(store_uri)
        self.docs = Documents.of(self.settings)
        self._ids: dict[str, str] = {}

    @property
    def supports_workspaces(self) -> bool:
        """Whether workspaces are kept apart: they are not."""
        return False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings.location!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as its URI: connections stay, and credentials come from the environment of whoever reads it."""
        return type(self), self._made_of
