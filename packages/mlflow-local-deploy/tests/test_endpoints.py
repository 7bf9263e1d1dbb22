"""One address in front of several deployments."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.exceptions import MlflowException
from prometheus_client.parser import text_string_to_metric_families
from talking import KEY, QUICK, ask, processes_of, until

from mlflow_local_deploy.deployment import LocalDeploymentClient

BODY = {"dataframe_records": [{"what": "", "value": 2.0}]}


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory, talker: str) -> Iterator[LocalDeploymentClient]:
    """The deployments a, b and c; b asks for a key."""
    root = tmp_path_factory.mktemp("three")
    client = LocalDeploymentClient(f"local:{root}")
    client.create_deployment("a", talker, config=QUICK)
    with pytest.warns(UserWarning, match="API key stands in the configuration"):
        client.create_deployment("b", talker, config={**QUICK, "api_key": KEY})
    client.create_deployment("c", talker, config=QUICK)
    yield client
    for name in "abc":
        client.delete_deployment(name)
    assert not processes_of(root)


@pytest.fixture
def endpoint(three: LocalDeploymentClient) -> Iterator[dict[str, Any]]:
    yield three.create_endpoint("e", {"traffic": "a=75,b=25", "shadow": {"c": 50}, "standby": 0})
    three.delete_endpoint("e")


def answering(about: dict[str, Any], times: int) -> Counter[str]:
    with requests.Session() as session:
        answers = [session.post(f"{about['url']}/invocations", json=BODY, timeout=30) for _ in range(times)]
    assert {answer.status_code for answer in answers} == {200}
    return Counter(answer.headers["x-mlflow-deployment"] for answer in answers)


def figure(about: dict[str, Any], target: str, outcome: str) -> float:
    text = requests.get(f"{about['url']}/metrics", timeout=30).text
    wanted = {"target": target, "outcome": outcome}
    samples = (s for family in text_string_to_metric_families(text) for s in family.samples)
    return next(s.value for s in samples if s.labels == wanted)


class TestTraffic:
    """Shares and copies."""

    def test_requests_are_shared_out_by_weight_and_copied(
        self, three: LocalDeploymentClient, endpoint: dict[str, Any]
    ) -> None:
        assert answering(endpoint, 40) == {"a": 30, "b": 10}
        until(lambda: figure(endpoint, "c", "shadowed") == 20, "the shadow did not get its copies")
        assert (figure(endpoint, "a", "sent"), figure(endpoint, "b", "sent")) == (30, 10)

    def test_the_client_predicts_streams_and_explains_through_it(
        self, three: LocalDeploymentClient, endpoint: dict[str, Any]
    ) -> None:
        assert three.predict(inputs=ask("", 3.0), endpoint="e").get_predictions().iloc[0, 0] == 3.0
        assert list(three.predict_stream(inputs=ask("", 2.0), endpoint="e")) == [{"number": 0}, {"number": 1}]
        assert three.explain(df=ask("", 2.0), endpoint="e") == [{"value": 1.0}]

    def test_the_inference_protocol_knows_it_by_its_own_name(self, endpoint: dict[str, Any]) -> None:
        for _ in range(4):
            answer = requests.get(f"{endpoint['url']}/v2/models/e", timeout=30)
            assert answer.json()["name"] == answer.headers["x-mlflow-deployment"]
        assert requests.get(f"{endpoint['url']}/v2/health/ready", timeout=30).status_code == 200

    def test_errors_of_a_deployment_pass_through(self, endpoint: dict[str, Any]) -> None:
        answer = requests.post(f"{endpoint['url']}/invocations", json={"wrong": 1}, timeout=30)
        assert answer.status_code == 400
        assert "error_code" in answer.json()

    def test_traffic_changes_and_a_deployments_update_fail_no_request(
        self, three: LocalDeploymentClient, endpoint: dict[str, Any], talker: str
    ) -> None:
        from test_survival import Load

        with Load(endpoint["url"], threads=2) as load:
            three.update_endpoint("e", {"traffic": {"b": 1}, "shadow": {}})
            three.update_deployment("b", talker)
        assert load.failures == []
        assert answering(endpoint, 5) == {"b": 5}
        assert three.get_endpoint("e")["traffic"] == {"b": 1}

    def test_an_endpoint_asks_for_its_own_key(self, three: LocalDeploymentClient, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="API key"):
            about = three.create_endpoint("guarded", {"traffic": {"b": 1}, "api_key": KEY, "standby": 0})
        try:
            url = f"{about['url']}/invocations"
            assert requests.post(url, json=BODY, timeout=30).status_code == 401
            assert requests.post(url, json=BODY, headers={"X-API-Key": KEY}, timeout=30).status_code == 200
        finally:
            three.delete_endpoint("guarded")


class TestMembers:
    """Deployments that are created in an endpoint."""

    def test_the_first_gets_all_traffic_a_later_one_what_it_is_given(
        self, client: LocalDeploymentClient, talker: str
    ) -> None:
        client.create_endpoint("e", {"standby": 0})
        url = client.get_endpoint("e")["url"]
        assert requests.post(f"{url}/invocations", json=BODY, timeout=30).status_code == 503
        client.create_deployment("first", talker, config=QUICK, endpoint="e")
        client.create_deployment("second", talker, config={**QUICK, "traffic": 300}, endpoint="e")
        assert [d["name"] for d in client.list_deployments(endpoint="e")] == ["first", "second"]
        assert client.get_deployment("first", endpoint="e")["endpoints"] == ["e"]
        assert answering(client.get_endpoint("e"), 8) == {"first": 2, "second": 6}
        client.delete_deployment("second")
        assert answering(client.get_endpoint("e"), 4) == {"first": 4}
        assert client.get_endpoint("e")["deployments"] == ["first"]
        with pytest.raises(MlflowException, match="has no deployment 'second'"):
            client.get_deployment("second", endpoint="e")
        client.create_endpoint("other", {"standby": 0})
        with pytest.raises(MlflowException, match="has no deployment 'first'"):
            client.delete_deployment("first", endpoint="other")
        client.delete_deployment("first", endpoint="e")
        assert client.list_deployments() == []

    def test_unknown_deployments_and_endpoints_are_refused(self, client: LocalDeploymentClient, talker: str) -> None:
        for call in (
            lambda: client.create_endpoint("e", {"traffic": {"nobody": 1}}),
            lambda: client.create_deployment("d", talker, endpoint="nowhere"),
            lambda: client.list_deployments(endpoint="nowhere"),
            lambda: client.update_endpoint("nowhere", {}),
            lambda: client.predict(inputs=ask(""), endpoint="nowhere"),
        ):
            with pytest.raises(MlflowException) as raised:
                call()
            assert raised.value.error_code == "RESOURCE_DOES_NOT_EXIST"
        assert client.list_endpoints() == client.list_deployments() == []


def test_shares_are_exact_and_spread_evenly() -> None:
    from mlflow_local_deploy.serving.router import Shares

    shares = Shares({"a": 90, "b": 10, "none": 0})
    turns = [shares.next() for _ in range(1000)]
    assert Counter(turns) == {"a": 900, "b": 100}
    places = [n for n, turn in enumerate(turns) if turn == "b"]
    assert {b - a for a, b in itertools.pairwise(places)} == {10}
    assert Shares({}).next() is None
