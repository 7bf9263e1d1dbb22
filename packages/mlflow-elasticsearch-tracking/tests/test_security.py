"""The store works with the least-privilege role over TLS, can do nothing beside it, and shows no credential."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from click.testing import CliRunner
from mlflow.entities import Metric, TraceInfo, TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
from mlflow_plugkit_elasticsearch.cli import main
from mlflow_plugkit_elasticsearch.roles import role
from mlflow_plugkit_testing.elasticsearch import elasticsearch_node

pytestmark = pytest.mark.once

PREFIX = "MLFLOW_ELASTICSEARCH_"


@pytest.fixture(scope="module")
def node() -> Iterator[Any]:
    """A node with security and TLS."""
    with elasticsearch_node(quick=True, secured=True, tls=True) as node:
        yield node


@pytest.fixture
def uri(node: Any, monkeypatch: pytest.MonkeyPatch) -> str:
    """The store's URI for this test; the process trusts the node's authority."""
    monkeypatch.setenv(f"{PREFIX}CA_FILE", str(node.ca_file))
    return f"elasticsearch+https://localhost:{urlsplit(node.url).port}/least"


def use(store: Any, name: str) -> None:
    """One operation of each kind."""
    experiment = store.create_experiment(name)
    run = store.create_run(experiment, "ada", 1, [], "r")
    store.log_metric(run.info.run_id, Metric("m", 1.0, 1, 0))
    assert len(store.search_runs([experiment], "metrics.m = 1", 1, 10)) == 1
    trace = store.start_trace(TraceInfo(f"tr-{name}", TraceLocation.from_experiment_id(experiment), 1, TraceState.OK))
    assert store.search_traces([experiment])[0][0].trace_id == trace.trace_id
    store.delete_traces(experiment, trace_ids=[trace.trace_id])
    store.delete_run(run.info.run_id)
    store._hard_delete_run(run.info.run_id)


def refused(store: Any) -> str:
    with pytest.raises(MlflowException) as caught:
        store.create_experiment("x")
    return str(caught.value.error_code)


def test_the_role_that_the_command_prints_is_enough(node: Any, uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    key = node.api_key({"mlflow": role("least", manages=True)})
    monkeypatch.setenv(f"{PREFIX}API_KEY", key)
    use(ElasticsearchTrackingStore(uri), "managed")
    assert refused(ElasticsearchTrackingStore(uri.replace("/least", "/other"))) == "PERMISSION_DENIED"


def test_a_role_that_cannot_create_indices_is_enough_once_they_are_there(
    node: Any, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = uri.replace("/least", "/small")
    monkeypatch.setenv(f"{PREFIX}API_KEY", node.api_key({"mlflow": role("small", manages=False)}))
    monkeypatch.setenv(f"{PREFIX}CREATE", "false")
    assert refused(ElasticsearchTrackingStore(uri)) == "RESOURCE_DOES_NOT_EXIST"
    with monkeypatch.context() as patch:
        patch.delenv(f"{PREFIX}CREATE")
        patch.setenv(f"{PREFIX}API_KEY", node.api_key({"mlflow": role("small", manages=True)}))
        done = CliRunner().invoke(main, ["bootstrap", uri])
        assert done.exit_code == 0, done.output
    use(ElasticsearchTrackingStore(uri), "used")


def test_wrong_credentials_are_refused_and_not_shown(
    uri: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "bm90LWEta2V5OkdlaGVpbS00NzEx"
    monkeypatch.setenv(f"{PREFIX}API_KEY", secret)
    store = ElasticsearchTrackingStore(uri)
    heard = io.StringIO()
    handler = logging.StreamHandler(heard)
    logging.getLogger().addHandler(handler)
    try:
        with caplog.at_level(logging.DEBUG), pytest.raises(MlflowException) as caught:
            store.create_experiment("x")
    finally:
        logging.getLogger().removeHandler(handler)
    assert caught.value.error_code == "UNAUTHENTICATED"
    chain, error = [], caught.value
    while error is not None:
        chain.append(f"{error!r} {error}")
        error = error.__cause__ or error.__context__
    for shown in (*chain, heard.getvalue(), caplog.text, repr(store), repr(store.settings)):
        assert secret not in shown
        assert "Geheim" not in shown


def test_a_certificate_of_an_unknown_authority_is_refused(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(f"{PREFIX}CA_FILE")
    with pytest.raises(MlflowException, match="MLFLOW_ELASTICSEARCH_CA_FILE"):
        ElasticsearchTrackingStore(uri).create_experiment("x")
