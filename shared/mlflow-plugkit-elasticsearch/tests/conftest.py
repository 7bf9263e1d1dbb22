"""A real Elasticsearch: the one that ELASTICSEARCH_URL names, or a node of its own; each test gets fresh indices."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # modules of the tests' own, such as things

from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes, node_url, prefixes
from mlflow_plugkit_testing.faults import FaultProxy

__all__ = ["node_url", "prefixes"]  # fixtures of the kit


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the caller's reaches a test."""
    for name in [n for n in os.environ if n.startswith("MLFLOW_ELASTICSEARCH_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def uri(prefixes: Prefixes) -> str:
    """A URI with a prefix under which there is nothing."""
    return prefixes.fresh_uri()


@pytest.fixture
def docs(uri: str) -> Documents:
    """Documents of a fresh prefix."""
    return Documents.of(ElasticsearchSettings.from_uri(uri))


@pytest.fixture
def proxied(uri: str) -> Iterator[tuple[FaultProxy, Callable[..., Documents]]]:
    """A proxy before the node, and what makes documents of the prefix behind it, with settings as given."""
    address = urlsplit(uri)
    with FaultProxy(address.hostname or "", address.port or 9200) as proxy:

        def make(**changes: Any) -> Documents:
            settings = ElasticsearchSettings.from_uri(f"elasticsearch://{proxy.address}{address.path}")
            return Documents(dataclasses.replace(settings, **changes))

        yield proxy, make
