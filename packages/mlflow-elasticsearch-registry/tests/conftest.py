"""A real Elasticsearch: the one that ELASTICSEARCH_URL names, or a node of its own; each store gets fresh indices."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from mlflow_elasticsearch_registry.indices import INDICES
from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
from mlflow_plugkit_testing.elasticsearch import shared_node


@pytest.fixture(scope="session")
def node_url() -> Iterator[str]:
    """The URL of a node, `http://host:port`."""
    with shared_node() as node:
        yield node.url


@pytest.fixture
def fresh_uri(node_url: str) -> Iterator[Callable[[], str]]:
    """Make store URIs, each with a prefix of its own; their indices are removed at the end."""
    made: list[str] = []

    def fresh() -> str:
        made.append(f"elasticsearch+http://{urlsplit(node_url).netloc}/r-{uuid.uuid4().hex[:12]}")
        return made[-1]

    yield fresh
    for uri in made:
        remove(uri)


@pytest.fixture
def uri(fresh_uri: Callable[[], str]) -> str:
    """A store URI with a prefix of its own."""
    return fresh_uri()


@pytest.fixture
def store(uri: str) -> Any:
    """An empty registry."""
    return ElasticsearchRegistryStore(uri)


def remove(uri: str) -> None:
    """Delete the indices of a store URI, and their templates."""
    docs = Documents.of(ElasticsearchSettings.from_uri(uri))
    for index in INDICES:
        alias = docs.schema.alias(index)
        docs.cluster.request("DELETE", f"/{alias}-v{index.version}", "remove a test's index", accepted=(404,))
        docs.cluster.request("DELETE", f"/_index_template/{alias}", "remove a test's template", accepted=(404,))
