"""What a deployment answers: predictions, streams, explanations, the inference protocol, metrics, and refusals."""

from __future__ import annotations

import http.client
import json
import logging
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy
import pandas
import pytest
import requests
from mlflow.exceptions import MlflowException
from prometheus_client.parser import text_string_to_metric_families
from talking import KEY, ask, post, with_key

from mlflow_local_deploy.deployment import LocalDeploymentClient

Shared = tuple[LocalDeploymentClient, dict[str, Any]]


def error_of(answer: requests.Response) -> tuple[int, str]:
    body = answer.json()
    assert body["error"] == body["message"], "both protocols' clients find the reason"
    return answer.status_code, body["error_code"]


class TestPredictions:
    """Through the client and over HTTP."""

    @pytest.mark.parametrize(
        "inputs",
        [
            ask("", 2.0),
            {"dataframe_split": {"columns": ["what", "value"], "data": [["", 2.0]]}},
            {"dataframe_records": [{"what": "", "value": 2.0}]},
            {"inputs": {"what": numpy.array([""]), "value": numpy.array([2.0])}},
        ],
        ids=["frame", "split", "records", "columns"],
    )
    def test_inputs_of_each_form_are_taken(self, shared: Shared, inputs: Any) -> None:
        assert shared[0].predict("talker", inputs).get_predictions().iloc[0, 0] == 2.0

    def test_parameters_reach_the_model(self, shared: Shared) -> None:
        inputs = {"dataframe_records": [{"what": "", "value": 2.0}], "params": {"factor": 3.0}}
        assert shared[0].predict("talker", inputs).get_predictions().iloc[0, 0] == 6.0

    def test_csv_is_taken_as_by_mlflows_server(self, shared: Shared) -> None:
        answer = requests.post(
            f"{shared[1]['url']}/invocations",
            data="what,value\nx,4.5\n",
            headers=with_key(**{"Content-Type": "text/csv"}),
            timeout=30,
        )
        assert answer.json() == {"predictions": [{"value": 4.5}]} or answer.json() == {"predictions": [4.5]}

    def test_what_the_model_raises_is_told(self, shared: Shared) -> None:
        with pytest.raises(MlflowException, match="400") as raised:
            shared[0].predict("talker", ask("raise"))
        assert raised.value.error_code == "BAD_REQUEST"

    def test_inputs_that_cannot_be_sent_are_refused(self, shared: Shared) -> None:
        for inputs in (None, {"inputs": object()}):
            with pytest.raises(MlflowException) as raised:
                shared[0].predict("talker", inputs)
            assert raised.value.error_code == "INVALID_PARAMETER_VALUE"

    def test_variables_reach_the_workers_and_keys_do_not(self, shared: Shared) -> None:
        found = json.loads(shared[0].predict("talker", ask("environment")).get_predictions().iloc[0, 0])
        assert found["GREETING"] == "hello"
        assert not [name for name in found if "API_KEY" in name]
        assert KEY not in json.dumps(found)

    def test_the_mlflow_server_shows_its_own_paths(self, shared: Shared) -> None:
        url = shared[1]["url"]
        assert requests.get(f"{url}/version", headers=with_key(), timeout=30).text
        assert requests.get(f"{url}/ping", timeout=30).status_code == 200
        assert requests.get(f"{url}/health", timeout=30).status_code == 200


class TestStreamsAndExplanations:
    """What MLflow's scoring server does not offer."""

    def test_chunks_come_one_by_one(self, shared: Shared) -> None:
        assert list(shared[0].predict_stream("talker", ask("", 3.0))) == [{"number": n} for n in range(3)]

    def test_a_stream_that_breaks_says_why(self, shared: Shared) -> None:
        chunks = shared[0].predict_stream("talker", ask("raise", 5.0))
        assert [next(chunks), next(chunks)] == [{"number": 0}, {"number": 1}]
        with pytest.raises(MlflowException, match="the stream broke"):
            next(chunks)

    def test_explanations_are_the_models_own(self, shared: Shared) -> None:
        assert shared[0].explain("talker", ask("", 4.0)) == [{"value": 2.0}]

    def test_both_take_what_mlflows_server_takes_and_refuse_the_rest(self, shared: Shared) -> None:
        for path in ("/explain", "/invocations/stream"):
            assert error_of(post(shared[1]["url"] + path, ["no dictionary"]))[0] == 400
            assert error_of(requests.get(shared[1]["url"] + path, headers=with_key(), timeout=30))[0] == 400


def tensor(name: str, datatype: str, data: list[Any], shape: list[int] | None = None) -> dict[str, Any]:
    return {"name": name, "shape": shape or [len(data)], "datatype": datatype, "data": data}


WHAT, VALUE = tensor("what", "BYTES", ["a", "b"]), tensor("value", "FP64", [1.5, 2.5])


class TestOpenInferenceProtocol:
    """github.com/kserve/open-inference-protocol, its REST half."""

    def test_health_and_metadata(self, shared: Shared) -> None:
        url = shared[1]["url"]
        assert requests.get(f"{url}/v2/health/live", timeout=30).status_code == 200
        assert requests.get(f"{url}/v2/health/ready", timeout=30).status_code == 200
        server = requests.get(f"{url}/v2", headers=with_key(), timeout=30).json()
        assert set(server) == {"name", "version", "extensions"}
        assert requests.get(f"{url}/v2/models/talker/ready", headers=with_key(), timeout=30).json()["ready"] is True
        model = requests.get(f"{url}/v2/models/talker/versions/1", headers=with_key(), timeout=30).json()
        assert (model["name"], model["versions"], model["platform"]) == ("talker", ["1"], "mlflow_python_function")
        assert model["inputs"] == [
            {"name": "what", "datatype": "BYTES", "shape": [-1]},
            {"name": "value", "datatype": "FP64", "shape": [-1]},
        ]

    def test_inference(self, shared: Shared) -> None:
        request = {"id": "42", "inputs": [WHAT, VALUE], "parameters": {"factor": 2.0, "unknown": "ignored"}}
        answer = post(f"{shared[1]['url']}/v2/models/talker/infer", request).json()
        assert (answer["model_name"], answer["model_version"], answer["id"]) == ("talker", "1", "42")
        assert [(o["datatype"], o["shape"], o["data"]) for o in answer["outputs"]] == [("FP64", [2], [3.0, 5.0])]

    def test_columns_may_have_two_dimensions(self, shared: Shared) -> None:
        request = {"inputs": [{**WHAT, "shape": [2, 1]}, {**VALUE, "shape": [2, 1], "data": [[1.5], [2.5]]}]}
        answer = post(f"{shared[1]['url']}/v2/models/talker/infer", request).json()
        assert answer["outputs"][0]["data"] == [1.5, 2.5]

    def test_nan_is_null_since_json_has_none(self, shared: Shared) -> None:
        request = {"inputs": [WHAT, {**VALUE, "data": [None, 1.0]}]}
        answer = post(f"{shared[1]['url']}/v2/models/talker/infer", request)
        assert json.loads(answer.text, parse_constant=pytest.fail)["outputs"][0]["data"] == [None, 1.0]

    @pytest.mark.parametrize(
        ("request_body", "word"),
        [
            ({}, "inputs"),
            ({"inputs": []}, "inputs"),
            ({"inputs": [{**VALUE, "datatype": "FP8"}]}, "FP8"),
            ({"inputs": [{**VALUE, "shape": [3]}]}, "shape"),
            ({"inputs": [{**VALUE, "shape": "2"}]}, "shape"),
            ({"inputs": [{**VALUE, "data": "AAAA"}]}, "binary"),
            ({"inputs": [WHAT, tensor("value", "FP64", [1.0])]}, "rows"),
            ({"inputs": [tensor("value", "INT8", [1000, 1])]}, "INT8"),
            ({"inputs": [VALUE]}, "what"),
            ({"inputs": [WHAT, VALUE], "outputs": [{"name": "nothing"}]}, "nothing"),
            ({"inputs": [tensor("what", "BYTES", ["raise"]), tensor("value", "FP64", [1.0])]}, "does not like"),
            ({"inputs": [WHAT, VALUE], "parameters": [1]}, "parameters"),
            ({"inputs": [WHAT, VALUE], "parameters": "x"}, "parameters"),
            ({"inputs": [WHAT, VALUE], "outputs": "x"}, "outputs"),
            ({"inputs": [WHAT, VALUE], "outputs": ["x"]}, "outputs"),
            ({"inputs": [WHAT, VALUE], "outputs": [{"name": ["a"]}]}, "outputs"),
            ({"inputs": [WHAT, {**VALUE, "datatype": ["FP64"]}]}, "FP64"),
            ({"inputs": [WHAT, {**VALUE, "datatype": {}}]}, "datatype"),
            ({"inputs": [WHAT, {**VALUE, "datatype": "INT64", "data": [5.5, 1.0]}]}, "INT64"),
            ({"inputs": [WHAT, {**VALUE, "datatype": "INT64", "data": ["5", "1"]}]}, "INT64"),
            ({"inputs": [WHAT, {**VALUE, "datatype": "UINT8", "data": [-1, 1]}]}, "UINT8"),
            ({"inputs": [WHAT, {**VALUE, "datatype": "BOOL", "data": ["false", "true"]}]}, "BOOL"),
            ({"inputs": [WHAT, {**VALUE, "data": ["1.0", "2.0"]}]}, "FP64"),
        ],
    )
    def test_malformed_requests_are_told_what_is_wrong(self, shared: Shared, request_body: Any, word: str) -> None:
        answer = post(f"{shared[1]['url']}/v2/models/talker/infer", request_body)
        assert error_of(answer)[0] == 400
        assert word in answer.json()["error"]

    @pytest.mark.parametrize("path", ["/v2/models/talker/infer", "/explain", "/invocations/stream"])
    def test_what_is_nested_too_deeply_is_refused(self, shared: Shared, path: str) -> None:
        answer = requests.post(f"{shared[1]['url']}{path}", data="[" * 5_000, headers=with_key(), timeout=30)
        assert error_of(answer)[0] == 400

    def test_other_names_paths_and_methods_are_refused(self, shared: Shared) -> None:
        url = shared[1]["url"]
        assert error_of(post(f"{url}/v2/models/other/infer", {}))[0] == 404
        assert error_of(post(f"{url}/v2/models/talker/versions/9/infer", {}))[0] == 404
        assert error_of(requests.get(f"{url}/v2/models/talker/infer", headers=with_key(), timeout=30))[0] == 405
        assert error_of(post(f"{url}/v2", {}))[0] == 405


class TestTheGate:
    """API key and limits."""

    @pytest.mark.parametrize(
        "headers",
        [
            {},
            {"Authorization": "Bearer wrong"},
            {"Authorization": f"Basic {KEY}"},
            {"Authorization": "Bearer "},
            {"Authorization": "Bearer \xff"},
            {"X-API-Key": KEY[:-1]},
            {"X-MLflow-Local-Deploy-Token": "wrong"},
        ],
    )
    @pytest.mark.parametrize("path", ["/invocations", "/metrics", "/v2/models/talker", "/explain", "/nothing"])
    def test_without_the_key_nothing_is_answered(self, shared: Shared, headers: dict[str, str], path: str) -> None:
        encoded = {name: value.encode("latin-1") for name, value in headers.items()}
        assert error_of(requests.get(shared[1]["url"] + path, headers=encoded, timeout=30)) == (401, "UNAUTHENTICATED")

    def test_the_key_is_taken_from_either_header(self, shared: Shared) -> None:
        for headers in ({"Authorization": f"bearer {KEY}"}, {"X-API-Key": KEY}):
            assert requests.get(f"{shared[1]['url']}/v2", headers=headers, timeout=30).status_code == 200

    def test_a_body_that_is_too_large_is_refused_also_without_its_length(self, shared: Shared) -> None:
        large = json.dumps({"inputs": "x" * 30_000}).encode()
        url = f"{shared[1]['url']}/invocations"
        told = requests.post(url, data=large, headers=with_key(), timeout=30)
        in_chunks = requests.post(url, data=iter([large[:100], large[100:]]), headers=with_key(), timeout=30)
        assert error_of(told) == error_of(in_chunks) == (413, "INVALID_PARAMETER_VALUE")

    def test_a_body_in_chunks_is_taken(self, shared: Shared) -> None:
        body = json.dumps({"dataframe_records": [{"what": "", "value": 7.0}]}).encode()
        answer = requests.post(
            f"{shared[1]['url']}/invocations", data=iter([body[:9], body[9:]]), headers=with_key(), timeout=30
        )
        assert "7.0" in answer.text

    def test_a_request_that_takes_too_long_is_answered_in_time(self, shared: Shared) -> None:
        began = time.monotonic()
        answer = post(f"{shared[1]['url']}/invocations", {"dataframe_records": [{"what": "sleep", "value": 6.0}]})
        assert error_of(answer) == (504, "TEMPORARILY_UNAVAILABLE")
        assert time.monotonic() - began < 5.5

    def test_a_body_that_does_not_come_is_not_waited_for(self, shared: Shared) -> None:
        parts = urlsplit(shared[1]["url"])
        connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=30)
        connection.putrequest("POST", "/invocations")
        for name, value in with_key(**{"Content-Length": "100"}).items():
            connection.putheader(name, value)
        connection.endheaders(b"{")
        assert connection.getresponse().status == 504
        connection.close()


class TestMetrics:
    """What Prometheus reads."""

    def figures(self, about: dict[str, Any]) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = requests.get(f"{about['url']}/metrics", headers=with_key(), timeout=30).text
        families = text_string_to_metric_families(text)
        return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}

    def test_requests_are_counted_by_route_and_status(self, shared: Shared) -> None:
        client, about = shared
        before = self.figures(about)
        client.predict("talker", ask("", 1.0))
        requests.get(f"{about['url']}/v2", timeout=30)
        after = self.figures(about)
        name = "mlflow_local_deploy_requests_total"
        ok = (name, frozenset({"route": "invocations", "status": "2xx"}.items()))
        refused = (name, frozenset({"route": "other", "status": "4xx"}.items()))
        assert (after[ok] - before[ok], after[refused] - before[refused]) == (1, 1)
        seconds = ("mlflow_local_deploy_request_seconds_sum", frozenset({"route": "invocations"}.items()))
        assert 0 < after[seconds] - before[seconds] < 5
        assert after[("mlflow_local_deploy_workers", frozenset({"state": "serving"}.items()))] == 1

    def test_buckets_add_up(self, shared: Shared) -> None:
        figures = self.figures(shared[1])
        labels = frozenset({"route": "invocations"}.items())
        last = figures[("mlflow_local_deploy_request_seconds_bucket", labels | {("le", "+Inf")})]
        assert last == figures[("mlflow_local_deploy_request_seconds_count", labels)] > 0


def test_the_key_is_nowhere_but_with_its_owner(
    shared: Shared, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    client, about = shared
    caplog.set_level(logging.DEBUG)
    requests.get(f"{about['url']}/v2", headers={"Authorization": f"Bearer {KEY}"}, timeout=30)
    assert about["protected"] is True
    token = (Path(about["folder"]) / "token").read_text()
    written = [file for file in Path(about["folder"]).rglob("*") if file.is_file() and file.name != "token"]
    assert len(written) > 8
    for secret in (KEY, token):
        assert not [file for file in written if secret.encode() in file.read_bytes()]
        shown = [client.get_deployment("talker"), client.list_deployments(), client, vars(client), client.target_uri]
        assert secret not in repr(shown) + client.logs("talker") + caplog.text
    assert {oct(file.stat().st_mode & 0o077) for file in Path(about["folder"]).glob("*") if file.is_file()} == {"0o0"}
    assert Path(about["folder"]).stat().st_mode & 0o077 == 0


def test_predictions_of_the_rows_of_a_series_and_of_an_array() -> None:
    from mlflow_local_deploy.calling import payload

    assert json.loads(payload(pandas.Series([1.0], name="a"))) == {
        "dataframe_split": {"columns": ["a"], "data": [[1.0]]}
    }
    assert json.loads(payload(numpy.array([[1.0, 2.0]]))) == {"inputs": [[1.0, 2.0]]}
    assert json.loads(payload(["a", "b"])) == {"inputs": ["a", "b"]}
    assert json.loads(payload("a")) == {"inputs": "a"}
    assert "messages" in json.loads(payload({"messages": [{"role": "user", "content": "hello"}]}))
