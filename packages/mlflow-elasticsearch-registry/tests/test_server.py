"""MLflow's server with its registry in Elasticsearch: clients, workers, webhooks, faults and what the log holds."""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
from mlflow_plugkit_elasticsearch import Documents
from mlflow_plugkit_testing.faults import Fault, FaultProxy
from mlflow_plugkit_testing.server import MlflowServer, fresh_database, plugin_env
from mlflow_plugkit_testing.stores import together

PASSWORD, WEBHOOK_SECRET = "Geheim-4711-pw", "Geheim-4711-hook"
KEY = base64.urlsafe_b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="module")
def server(prefixes: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """A server of two workers whose tracking store is SQLite."""
    folder = tmp_path_factory.mktemp("server")
    environ = plugin_env(
        env={
            "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY": KEY,
            "MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true",
            "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http,https",
            "MLFLOW_WEBHOOK_CACHE_TTL": "1",
            "MLFLOW_ELASTICSEARCH_USERNAME": "user",
            "MLFLOW_ELASTICSEARCH_PASSWORD": PASSWORD,
            "MLFLOW_LOGGING_LEVEL": "DEBUG",
        }
    )
    options = ["--backend-store-uri", fresh_database(folder), "--registry-store-uri", prefixes.fresh_uri()]
    with MlflowServer([*options, "--workers", "2"], env=environ, folder=folder) as server:
        yield server


@pytest.fixture
def client(server: MlflowServer) -> MlflowClient:
    """A client of that server, which has this package no more than any other."""
    return MlflowClient(server.url, server.url)


def test_clients_use_the_registry_through_the_server(client: MlflowClient) -> None:
    """Models, versions, aliases, stages and searches, whichever worker answers."""
    client.create_registered_model("served", tags={"k": "ü"})
    for number in range(6):
        client.create_model_version("served", f"s3://b/{number}")
    client.set_registered_model_alias("served", "best", "3")
    assert client.get_model_version_by_alias("served", "best").source == "s3://b/2"
    client.rename_registered_model("served", "renamed")
    for _ in range(4):
        assert client.get_registered_model("renamed").aliases == {"best": "3"}
        assert client.get_model_version("renamed", "6").name == "renamed"
    names: list[str] = []
    token = None
    for _ in range(10):
        page = client.search_model_versions("name = 'renamed'", 2, ["version_number ASC"], token)
        names += [v.version for v in page]
        token = page.token
        if not token:
            break
    assert names == ["1", "2", "3", "4", "5", "6"]
    client.delete_registered_model("renamed")
    with pytest.raises(MlflowException) as error:
        client.get_registered_model("renamed")
    assert error.value.error_code == "RESOURCE_DOES_NOT_EXIST"


def test_workers_number_versions_together(client: MlflowClient) -> None:
    """Eight clients at once: 1 to 40, each once."""
    client.create_registered_model("many")
    made = together(8, lambda _: [int(client.create_model_version("many", "s3://b/m").version) for _ in range(5)])
    assert sorted(number for some in made for number in some) == list(range(1, 41))  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("registered-models/get?name=absent", None, 404),
        ("registered-models/search?max_results=0", None, 400),
        ("registered-models/search?filter=colour%3D%27red%27", None, 400),
        ("model-versions/search?page_token=nonsense", None, 400),
        ("registered-models/create", {"name": ""}, 400),
        ("webhooks", None, 200),
    ],
)
def test_every_answer_is_json(server: MlflowServer, path: str, body: Any, status: int) -> None:
    """The UI cannot read MLflow's HTML page for errors without a code."""
    url = f"{server.url}/api/2.0/mlflow/{path}"
    answer = requests.post(url, json=body, timeout=30) if body else requests.get(url, timeout=30)
    assert answer.status_code == status, answer.text
    assert isinstance(answer.json(), dict)


def test_the_server_delivers_webhooks(server: MlflowServer, client: MlflowClient) -> None:
    """Created over its API with a secret, which no answer shows; the delivery is signed."""
    queue: Queue[Any] = Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            queue.put((dict(self.headers), self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    receiver = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=receiver.serve_forever)
    thread.start()
    try:
        created = requests.post(
            f"{server.url}/api/2.0/mlflow/webhooks",
            json={
                "name": "hook",
                "url": f"http://127.0.0.1:{receiver.server_port}/x",
                "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
                "secret": WEBHOOK_SECRET,
            },
            timeout=30,
        )
        assert created.status_code == 200, created.text
        assert WEBHOOK_SECRET not in created.text
        headers, body = _announced(client, queue)
    finally:
        receiver.shutdown()
        thread.join()
        receiver.server_close()
    assert json.loads(body)["data"]["name"].startswith("announced")
    assert headers["X-MLflow-Signature"].startswith("v1,")


def _announced(client: MlflowClient, queue: Queue[Any]) -> Any:
    """What is delivered for one of several models: for a second, a worker may remember that there was no webhook."""
    for number in range(20):
        client.create_registered_model(f"announced{number}")
        with suppress(Empty):
            return queue.get(timeout=2)
    raise AssertionError("no webhook was delivered")


def test_the_servers_log_holds_no_secret(server: MlflowServer, client: MlflowClient) -> None:
    """At DEBUG, after writes, refused requests and a listing."""
    with pytest.raises(MlflowException):
        client.get_registered_model("absent")
    log = server.raw_log()
    assert log
    sent = base64.b64encode(f"user:{PASSWORD}".encode()).decode()
    for secret in (PASSWORD, WEBHOOK_SECRET, KEY, sent):
        assert secret not in log


@pytest.mark.parametrize("kind", ["drop", "lost-answer", "status"])
def test_versions_are_made_once_through_a_bad_network(store: Any, kind: Any) -> None:
    """Connections that break before or after the work: no number is missing, and none is there twice."""
    address = urlsplit(store.uri)
    with FaultProxy(str(address.hostname), int(address.port or 0)) as proxy:
        settings = store.settings.from_uri(f"elasticsearch://{proxy.address}{address.path}")
        bad = ElasticsearchRegistryStore(store.uri)
        bad.docs = Documents(dataclasses.replace(settings, timeout=5.0))
        bad.create_registered_model("m")
        stop = threading.Event()

        def break_it() -> None:
            while not stop.is_set():
                with proxy.inject(Fault(kind)):
                    stop.wait(0.3)

        breaking = threading.Thread(target=break_it)
        breaking.start()
        try:
            made = together(4, lambda n: [_version(bad, f"s3://b/{n}/{i}") for i in range(5)])
        finally:
            stop.set()
            breaking.join()
        found = bad.search_model_versions("name = 'm'", 100)
    numbers = sorted(number for some in made for number in some)  # type: ignore[union-attr]
    assert numbers == list(range(1, 21))
    assert sorted(v.version for v in found) == numbers
    assert len({v.source for v in found}) == 20
    assert store.get_latest_versions("m")[0].version == 20


def _version(store: Any, source: str) -> int:
    made = store.create_model_version("m", source)
    store.set_registered_model_alias("m", f"a{made.version}", made.version)
    return int(made.version)


def test_a_store_does_nothing_when_it_is_made(tmp_path: Path) -> None:
    """A server with an unreachable registry starts; its first use of the registry has a named error."""
    store = ElasticsearchRegistryStore("elasticsearch://127.0.0.1:1/x")
    assert repr(store) == "ElasticsearchRegistryStore('elasticsearch://127.0.0.1:1/x')"
    assert store.supports_workspaces is False
