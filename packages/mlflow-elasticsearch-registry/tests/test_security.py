"""The registry works over TLS with the least-privilege roles, and with one of them may touch nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner

from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
from mlflow_plugkit_elasticsearch.cli import main
from mlflow_plugkit_elasticsearch.roles import role
from mlflow_plugkit_testing.elasticsearch import elasticsearch_node
from mlflow_plugkit_testing.stores import refused

pytestmark = pytest.mark.once

PREFIX = "MLFLOW_ELASTICSEARCH_"


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    """A node with security and TLS."""
    with elasticsearch_node(quick=True, secured=True, tls=True) as node:
        yield node


@pytest.fixture
def location(node: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The node's location without a prefix; the process trusts the node's authority."""
    monkeypatch.setenv(f"{PREFIX}CA_FILE", str(node.ca_file))
    return f"elasticsearch+https://localhost:{urlsplit(node.url).port}"


def use(store: Any) -> None:
    """One operation of each kind."""
    store.create_registered_model("model", [], "")
    for number in (1, 2):
        version = store.create_model_version("model", "s3://bucket/model", "0" * 32, [], None, "", None)
        assert version.version == number
    store.set_registered_model_alias("model", "champion", 1)
    store.transition_model_version_stage("model", 1, "Staging", False)
    store.rename_registered_model("model", "renamed")
    assert store.get_model_version_by_alias("renamed", "champion").version == 1
    assert len(store.search_model_versions("name = 'renamed'", 10)) == 2
    store.delete_model_version("renamed", 2)
    store.delete_registered_model("renamed")
    assert not store.search_registered_models(None, 10)


def test_the_role_that_the_command_prints_is_enough(node: Any, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"{PREFIX}API_KEY", node.api_key({"mlflow": role("least", manages=True)}))
    use(ElasticsearchRegistryStore(f"{location}/least"))
    with refused("PERMISSION_DENIED", "a prefix that the role does not name"):
        ElasticsearchRegistryStore(f"{location}/other").create_registered_model("model", [], "")


def test_a_role_that_cannot_create_indices_is_enough_once_they_are_there(
    node: Any, location: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"{PREFIX}API_KEY", node.api_key({"mlflow": role("small", manages=True)}))
    done = CliRunner().invoke(main, ["bootstrap", f"{location}/small"])
    assert done.exit_code == 0, done.output
    monkeypatch.setenv(f"{PREFIX}API_KEY", node.api_key({"mlflow": role("small", manages=False)}))
    monkeypatch.setenv(f"{PREFIX}CREATE", "false")
    use(ElasticsearchRegistryStore(f"{location}/small"))
