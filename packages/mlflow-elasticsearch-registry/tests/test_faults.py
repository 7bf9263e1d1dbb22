"""Every acknowledged version is there afterwards, once: whatever happens to the node or on the way to it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow.entities.model_registry import ModelVersionTag
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
from mlflow_plugkit_testing.elasticsearch import elasticsearch_node
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.faults import Fault, FaultProxy

pytestmark = pytest.mark.once

WRITERS = 8
#: Half of the writers number the versions of one model together.
MODELS = ["shared"] * 4 + ["a", "b", "c", "d"]


class Log:
    """What the writers were told."""

    def __init__(self, store: Any) -> None:
        self._store = store
        self._stop = threading.Event()
        self.made: dict[str, list[int]] = {name: [] for name in MODELS}
        self.errors: list[str] = []

    @property
    def count(self) -> int:
        return sum(map(len, self.made.values()))

    def grow(self, by: int) -> None:
        """Wait until so many more versions were acknowledged."""
        least, deadline = self.count + by, time.monotonic() + 120
        while self.count < least:
            assert time.monotonic() < deadline, f"nothing happened for too long; errors: {self.errors}"
            time.sleep(0.02)

    @contextmanager
    def writers(self) -> Iterator[None]:
        """Eight threads that create, tag and name versions while the block runs."""
        with ThreadPoolExecutor(WRITERS) as pool:
            working = [pool.submit(self._write, name) for name in MODELS]
            try:
                yield
            finally:
                self._stop.set()
        for each in working:
            each.result()

    def _write(self, name: str) -> None:
        while not self._stop.is_set():
            try:
                version = self._store.create_model_version(name, "s3://bucket/model", None, [], None, "", None).version
                self._store.set_model_version_tag(name, version, ModelVersionTag("seen", str(version)))
                self._store.set_registered_model_alias(name, "newest", version)
                self.made[name].append(version)
            except MlflowException as exc:
                self.errors.append(exc.error_code)

    def check(self) -> None:
        """No call failed, each version is there once with its tag, and no number was left out."""
        assert self.errors == []
        for name in self.made:
            made = sorted(self.made[name])
            assert made == list(range(1, len(made) + 1))
            found = self._store.search_model_versions(f"name = '{name}'", 100_000)
            assert {version.version: version.tags for version in found} == {n: {"seen": str(n)} for n in made}
            assert len(found) == len(made)
            assert self._store.get_registered_model(name).latest_versions[0].version == made[-1]
            assert self._store.get_model_version_by_alias(name, "newest").version in made


def log_on(uri: str) -> Log:
    store = ElasticsearchRegistryStore(uri)
    for name in set(MODELS):
        store.create_registered_model(name, [], "")
    return Log(store)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ELASTICSEARCH_RETRY_FOR", "60")
    monkeypatch.setenv("MLFLOW_ELASTICSEARCH_TIMEOUT", "10")


@pytest.mark.usefixtures("patient")
def test_a_node_that_is_killed_and_started_again_has_lost_nothing() -> None:
    """SIGKILL under eight writers: they wait for the node, and none of them sees an error."""
    with elasticsearch_node(quick=True) as node:
        log = log_on(f"elasticsearch://{urlsplit(node.url).netloc}/killed")
        with log.writers():
            log.grow(40)
            node.kill()
            node.start()
            log.grow(40)
        log.check()


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", times=40),
        Fault("lost-answer", times=40),
        Fault("cut-response", times=40, least_body=64),
        Fault("status", status=429, times=50),
    ],
    ids=str,
)
def test_a_network_that_fails_loses_nothing(prefixes: Prefixes, node_url: str, fault: Fault) -> None:
    address = urlsplit(node_url)
    with FaultProxy(str(address.hostname), int(address.port or 9200)) as proxy:
        log = log_on(f"elasticsearch://{proxy.address}/{prefixes.fresh_uri().rpartition('/')[2]}")
        with log.writers():
            with proxy.inject(fault) as injected:
                while injected.hits < (fault.times or 0):
                    log.grow(1)
            log.grow(20)
        log.check()
