"""A real Elasticsearch: the one that ELASTICSEARCH_URL names, or a node of its own; each store gets fresh indices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes, node_url, prefixes
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_registry_store

__all__ = ["node_url", "prefixes"]  # fixtures of the kit


@pytest.fixture
def new_store(prefixes: Prefixes) -> Iterator[Callable[..., Any]]:
    """Make stores: on a fresh prefix, or on the URI that is given."""
    from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

    made: list[Any] = []

    def make(uri: str | None = None) -> Any:
        uri = uri or prefixes.fresh_uri()
        made.append(ElasticsearchRegistryStore(uri))
        made[-1].uri = uri
        prefixes.opened(uri, made[-1])
        return made[-1]

    yield make
    for store in made:
        prefixes.closed(store)


@pytest.fixture
def store(new_store: Callable[..., Any]) -> Any:
    """An empty registry; its URI is `store.uri`."""
    return new_store()


@pytest.fixture
def own() -> Iterator[Any]:
    """MLflow's own registry on a fresh SQLite file, to compare with."""
    own = sqlite_registry_store()
    yield own
    dispose(own)
