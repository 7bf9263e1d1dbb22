"""A real Elasticsearch: the one that ELASTICSEARCH_URL names, or a node of its own; each store gets fresh indices."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # modules of the tests' own, such as twins

from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes, node_url, prefixes
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store

__all__ = ["node_url", "prefixes"]  # fixtures of the kit


@pytest.fixture
def new_store(prefixes: Prefixes, tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Make stores: on a fresh prefix, or on the URI that is given."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

    made: list[Any] = []

    def make(uri: str | None = None) -> Any:
        uri = uri or prefixes.fresh_uri()
        made.append(ElasticsearchTrackingStore(uri, (tmp_path / "artifacts").as_uri()))
        made[-1].uri = uri
        prefixes.opened(uri, made[-1])
        return made[-1]

    yield make
    for store in made:
        prefixes.closed(store)


@pytest.fixture
def store(new_store: Callable[..., Any]) -> Any:
    """An empty store; its URI is `store.uri`."""
    return new_store()


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Any]:
    """MLflow's own store on a fresh SQLite file, to compare with."""
    own = sqlite_tracking_store(tmp_path / "own")
    yield own
    dispose(own)


@pytest.fixture
def experiment(store: Any) -> str:
    """The id of a new experiment."""
    return str(store.create_experiment("plugkit"))
