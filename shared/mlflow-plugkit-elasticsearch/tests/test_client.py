"""The choke point: what is repeated, what is not, and how each failure is named."""

from __future__ import annotations

import multiprocessing
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from mlflow.exceptions import MlflowException
from things import THINGS

from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
from mlflow_plugkit_elasticsearch.client import Cluster, dumps
from mlflow_plugkit_testing.faults import Fault, FaultProxy

pytestmark = pytest.mark.once

Proxied = tuple[FaultProxy, Callable[..., Documents]]


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", times=2),
        Fault("status", status=429, times=2),
        Fault("status", status=502),
        Fault("status", status=503, retry_after=1),
        Fault("status", status=504),
        Fault("lost-answer", times=2),
        Fault("cut-response", least_body=1),
        Fault("delay", seconds=2.0),
    ],
    ids=str,
)
def test_a_fault_that_passes_is_not_noticed(proxied: Proxied, fault: Fault) -> None:
    """Each write is there once afterwards, and reads answer."""
    proxy, make = proxied
    docs = make(timeout=1.0)
    docs.create(THINGS, "before", {"number": 0})
    with proxy.inject(fault) as injected:
        made = docs.create(THINGS, "x", {"number": 1})
    assert injected.hits
    with proxy.inject(fault) as injected:
        docs.put(THINGS, "x", {"number": 2}, made)
    assert injected.hits
    with proxy.inject(fault) as injected:
        found = docs.get(THINGS, "x")
    assert injected.hits
    assert found is not None
    assert found.source["number"] == 2
    with proxy.inject(fault) as injected:
        assert docs.delete(THINGS, "x")
    assert injected.hits
    assert docs.count(THINGS, {"match_all": {}}) == 1


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault("drop", times=None), "TEMPORARILY_UNAVAILABLE"),
        (Fault("status", status=429, times=None), "RESOURCE_EXHAUSTED"),
        (Fault("status", status=503, times=None), "TEMPORARILY_UNAVAILABLE"),
        (Fault("delay", seconds=3.0, times=None), "TEMPORARILY_UNAVAILABLE"),
        (Fault("status", status=500), "INTERNAL_ERROR"),
        (Fault("status", status=401), "UNAUTHENTICATED"),
        (Fault("status", status=403), "PERMISSION_DENIED"),
        (Fault("status", status=413), "INVALID_PARAMETER_VALUE"),
    ],
    ids=lambda value: str(value),
)
def test_a_fault_that_stays_has_a_name(proxied: Proxied, fault: Fault, code: str) -> None:
    """An error of MLflow's vocabulary with a hint; what repetition cannot help is not repeated."""
    proxy, make = proxied
    docs = make(timeout=1.0, retry_for=1.5)
    with proxy.inject(fault) as injected, pytest.raises(MlflowException) as error:
        docs.get(THINGS, "x")
    assert error.value.error_code == code, error.value
    assert "Elasticsearch: could not read from things" in str(error.value)
    assert injected.hits == 1 if fault.times == 1 else injected.hits > 1


def test_a_node_that_is_not_there_is_named_with_a_hint() -> None:
    """The message says what to check."""
    docs = Documents(
        ElasticsearchSettings.from_uri("elasticsearch://127.0.0.1:1/p", {"MLFLOW_ELASTICSEARCH_RETRY_FOR": "0"})
    )
    with pytest.raises(MlflowException, match="Check the host and port") as error:
        docs.get(THINGS, "x")
    assert error.value.error_code == "TEMPORARILY_UNAVAILABLE"


def test_one_cluster_and_few_connections_serve_a_process(proxied: Proxied, uri: str) -> None:
    """Equal settings share their documents; threads share connections, which stay open."""
    settings = ElasticsearchSettings.from_uri(uri)
    assert Documents.of(settings) is Documents.of(ElasticsearchSettings.from_uri(uri))
    assert Cluster.of(settings) is Cluster.of(ElasticsearchSettings.from_uri(uri))
    proxy, make = proxied
    docs = make(connections=4)
    docs.create(THINGS, "x", {"number": 1})
    accepted: set[int] = set()
    track = proxy._track
    proxy._track = lambda connection: (accepted.add(id(connection)), track(connection))[1]  # type: ignore[func-returns-value]
    with ThreadPoolExecutor(4) as pool:
        assert len([f for f in pool.map(lambda _: docs.get(THINGS, "x"), range(200)) if f]) == 200
    assert len(accepted) <= 8  # two ends of four connections


def _in_child(docs: Documents, queue: Any) -> None:
    queue.put(docs.get(THINGS, "x") is not None)


def test_a_forked_child_makes_connections_of_its_own(docs: Documents) -> None:
    """Two processes on one socket would read each other's answers."""
    docs.create(THINGS, "x", {"number": 1})
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    children = [context.Process(target=_in_child, args=(docs, queue)) for _ in range(2)]
    for child in children:
        child.start()
    assert [queue.get(timeout=60) for _ in children] == [True, True]
    for child in children:
        child.join(60)
        assert child.exitcode == 0


@pytest.mark.parametrize("value", [{"a": "\ud800"}, {"a": 2**64}, {1: "a"}, {"a": object()}])
def test_what_json_cannot_hold_is_refused(value: Any) -> None:
    """The user's error, before anything is sent."""
    with pytest.raises(MlflowException) as error:
        dumps(value)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


class _Answering(BaseHTTPRequestHandler):
    """A server that answers every request with the class's headers and body, and remembers what it was sent."""

    product: str | None = "Elasticsearch"
    body = b'{"_id":"x","_source":{"a":1},"_seq_no":0,"_primary_term":1,"found":true}'
    seen: list[dict[str, str]]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        type(self).seen.append(dict(self.headers))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(self.body)))
        if self.product:
            self.send_header("X-Elastic-Product", self.product)
        self.end_headers()
        self.wfile.write(self.body)

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def answering() -> Iterator[Callable[..., tuple[str, Any]]]:
    """Start such a server; its address and its handler class."""
    servers: list[ThreadingHTTPServer] = []

    def start(context: ssl.SSLContext | None = None, **attributes: Any) -> tuple[str, Any]:
        handler = type("Handler", (_Answering,), {"seen": [], **attributes})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"127.0.0.1:{server.server_port}", handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def read(address: str, scheme: str = "elasticsearch", **environ: str) -> Any:
    environ = {f"MLFLOW_ELASTICSEARCH_{n.upper()}": v for n, v in ({"retry_for": "0"} | environ).items()}
    return Documents(ElasticsearchSettings.from_uri(f"{scheme}://{address}/p", environ)).get(THINGS, "x")


@pytest.mark.parametrize(
    ("environ", "header"),
    [
        ({"api_key": "a2V5"}, "ApiKey a2V5"),
        ({"bearer_token": "token-1"}, "Bearer token-1"),
        ({"username": "u", "password": "pä:ss"}, "Basic dTpww6Q6c3M="),
    ],
)
def test_credentials_are_sent(answering: Any, environ: dict[str, str], header: str) -> None:
    """Each kind as its standard has it, and nothing where none is set."""
    address, handler = answering()
    assert read(address, **environ).source == {"a": 1}
    assert read(address).source == {"a": 1}
    assert [seen.get("authorization") or seen.get("Authorization") for seen in handler.seen] == [header, None]


def test_a_server_of_another_product_is_refused(answering: Any) -> None:
    """OpenSearch is named in the message, since its users may try."""
    address, _ = answering(product=None)
    with pytest.raises(MlflowException, match="OpenSearch is not supported") as error:
        read(address)
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


def test_an_answer_that_is_no_json_has_a_name(answering: Any) -> None:
    """A proxy's page with status 200, say."""
    address, _ = answering(body=b"<html>")
    with pytest.raises(MlflowException) as error:
        read(address)
    assert error.value.error_code == "INTERNAL_ERROR"


def test_certificates_are_checked(answering: Any, tmp_path: Path) -> None:
    """By the authority's file or fingerprint; anything else is refused at once, with a hint."""
    authority, other = trustme.CA(), trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    for name, one in (("good", authority), ("bad", other)):
        one.cert_pem.write_to_path(str(tmp_path / f"{name}.pem"))
    address, _ = answering(context)
    assert read(address, "elasticsearch+https", ca_file=str(tmp_path / "good.pem")).source == {"a": 1}
    for environ in ({}, {"ca_file": str(tmp_path / "bad.pem")}, {"fingerprint": "ab" * 32}):
        with pytest.raises(MlflowException, match="MLFLOW_ELASTICSEARCH_CA_FILE") as error:
            read(address, "elasticsearch+https", retry_for="60", **environ)
        assert error.value.error_code == "INVALID_PARAMETER_VALUE"
