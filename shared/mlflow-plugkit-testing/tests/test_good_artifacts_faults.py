"""A minimal correct artifact repository over HTTP keeps every rule about faults, and the proxy does what it says."""

from __future__ import annotations

import socket
import sys
import uuid
from contextlib import suppress
from pathlib import Path

import pytest
import requests

sys.path.insert(0, str(Path(__file__).parent / "fakes"))
from http_artifacts import SCHEME, HttpRepository, http_artifact_server

from mlflow_plugkit_testing.artifacts_faults import ArtifactFaultConformance
from mlflow_plugkit_testing.faults import Fault, FaultProxy

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def port():
    with http_artifact_server() as port:
        yield port


class TestRepositoryThatTriesAgain(ArtifactFaultConformance):
    large_file_size = 2 * 1024 * 1024

    @pytest.fixture
    def upstream(self, port):
        return "127.0.0.1", port

    @pytest.fixture
    def artifact_uri(self, port):
        return f"{SCHEME}http://127.0.0.1:{port}/{uuid.uuid4().hex}"

    @pytest.fixture
    def faulty_uri(self, artifact_uri, port, proxy):
        return artifact_uri.replace(f":{port}/", f":{proxy.port}/")

    def make_repository(self, uri):
        return HttpRepository(uri)


BODY = bytes(range(256)) * 64


@pytest.fixture
def proxied(port):
    """A proxy in front of a server that holds BODY at /a."""
    repository = HttpRepository(f"{SCHEME}http://127.0.0.1:{port}/")
    with FaultProxy("127.0.0.1", port) as proxy:
        repository.log_artifact_from_stream(_Bytes(), "a", "here")
        yield proxy, f"http://{proxy.address}//here/a"


class _Bytes:
    def read(self):
        return BODY


def test_without_a_fault_everything_passes(proxied):
    proxy, url = proxied
    with requests.Session() as session:
        assert [session.get(url, timeout=5).content for _ in range(3)] == [BODY] * 3
    assert proxy.requests == 3


@pytest.mark.parametrize("kind", ["drop", "cut-response", "lost-answer"])
def test_faults_that_end_the_connection(proxied, kind):
    proxy, url = proxied
    with proxy.inject(Fault(kind)) as injected:
        with pytest.raises(requests.exceptions.RequestException):
            requests.get(url, timeout=5)
        assert injected.hits == 1
        assert requests.get(url, timeout=5).content == BODY, "the fault strikes once"


def test_a_corrupted_answer_differs_in_one_byte(proxied):
    proxy, url = proxied
    with proxy.inject(Fault("corrupt-response", times=None)):
        content = requests.get(url, timeout=5).content
    assert len(content) == len(BODY)
    assert sum(a != b for a, b in zip(content, BODY, strict=True)) == 1


def test_a_corrupted_request_is_what_the_server_refuses(proxied, tmp_path):
    proxy, url = proxied
    repository = HttpRepository(SCHEME + url.removesuffix("/a"))
    repository.attempts = 1
    (tmp_path / "b").write_bytes(BODY)
    with proxy.inject(Fault("corrupt-request")) as injected, pytest.raises(Exception, match="failed: 400"):
        repository.log_artifact(str(tmp_path / "b"))
    assert injected.hits == 1


def test_a_status_names_when_to_come_back(proxied):
    proxy, url = proxied
    with proxy.inject(Fault("status", status=429, retry_after=3, methods=("GET",))):
        answer = requests.get(url, timeout=5)
    assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3")


def test_small_bodies_are_left_alone(proxied):
    proxy, url = proxied
    with proxy.inject(Fault("cut-response", least_body=len(BODY) + 1)) as injected:
        assert requests.get(url, timeout=5).content == BODY
    assert injected.hits == 0


def test_plain_tcp_is_cut_where_the_fault_says(port):
    with FaultProxy("127.0.0.1", port, protocol="tcp") as proxy:
        url = f"http://{proxy.address}//here/a"
        with proxy.inject(Fault("cut-response", least_body=1000)), pytest.raises(requests.RequestException):
            requests.get(url, timeout=5)
        assert requests.get(url, timeout=5).content == BODY


def test_leaving_the_proxy_closes_its_connections(port):
    with FaultProxy("127.0.0.1", port) as proxy:
        client = socket.create_connection(("127.0.0.1", proxy.port), timeout=5)
    with client, suppress(ConnectionResetError):
        assert client.recv(1) == b""
