"""Every acknowledged write is there afterwards, once: whatever happens to the node or on the way to it."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow.entities import Metric, Param
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
from mlflow_plugkit_testing.elasticsearch import elasticsearch_node
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.faults import Fault, FaultProxy

pytestmark = pytest.mark.once

WRITERS = 8
#: The only ways in which a call may fail while the cluster cannot be reached.
NAMED = {"TEMPORARILY_UNAVAILABLE", "RESOURCE_EXHAUSTED", "RESOURCE_CONFLICT"}


@dataclass
class Log:
    """What the writers were told."""

    acknowledged: dict[str, list[int]] = field(default_factory=dict)
    params: dict[str, list[str]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def write(self, store: Any, run_id: str, until: Callable[[], bool]) -> None:
        """Log points and params to a run until told to stop, each step once, whether it is acknowledged or not."""
        steps, params = self.acknowledged.setdefault(run_id, []), self.params.setdefault(run_id, [])
        step = 0
        while not until():
            try:
                if step % 5:
                    store.log_metric(run_id, Metric("loss", float(step), 1, step))
                    steps.append(step)
                else:
                    store.log_batch(run_id, [Metric("loss", float(step), 1, step)], [Param(f"p{step}", "v")], [])
                    steps.append(step)
                    params.append(f"p{step}")
            except MlflowException as exc:
                self.errors.append(exc.error_code)
            step += 1

    def check(self, store: Any) -> None:
        """Everything that was acknowledged is there, and nothing twice."""
        assert set(self.errors) <= NAMED, Counter(self.errors)
        for run_id, steps in self.acknowledged.items():
            history = [point.step for point in store.get_metric_history(run_id, "loss")]
            assert not set(steps) - set(history), "an acknowledged point is gone"
            assert len(history) == len(set(history)), "a point is there twice"
            run = store.get_run(run_id)
            assert not set(self.params[run_id]) - set(run.data.params), "an acknowledged param is gone"
            if history:
                assert run.data.metrics["loss"] == max(history), "the latest value is not the last one"


def writers(stores: list[Any], run_ids: list[str], log: Log, until: Callable[[], bool]) -> ThreadPoolExecutor:
    pool = ThreadPoolExecutor(WRITERS)
    for number in range(WRITERS):
        pool.submit(log.write, stores[number % len(stores)], run_ids[number], until)
    return pool


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ELASTICSEARCH_RETRY_FOR", "60")
    monkeypatch.setenv("MLFLOW_ELASTICSEARCH_TIMEOUT", "10")


@pytest.mark.usefixtures("patient")
def test_a_node_that_is_killed_and_started_again_has_lost_nothing() -> None:
    """SIGKILL under eight writers: they wait for the node, and none of them sees an error."""
    with elasticsearch_node(quick=True) as node:
        uri = f"elasticsearch://{urlsplit(node.url).netloc}/killed"
        store = ElasticsearchTrackingStore(uri)
        experiment = store.create_experiment("killed")
        runs = [store.create_run(experiment, "ada", 1, [], f"r{n}").info.run_id for n in range(WRITERS)]
        log, stop = Log(), threading.Event()
        pool = writers([store], runs, log, stop.is_set)
        try:
            wait_until(lambda: sum(map(len, log.acknowledged.values())) > 200)
            node.kill()
            node.start()
            before = sum(map(len, log.acknowledged.values()))
            wait_until(lambda: sum(map(len, log.acknowledged.values())) > before + 100)
        finally:
            stop.set()
            pool.shutdown()
        assert log.errors == []
        log.check(store)
        found = store.search_runs([experiment], "metrics.loss > 0", 1, 100)
        assert {run.info.run_id for run in found} == set(runs)


@pytest.fixture
def proxied(prefixes: Prefixes, node_url: str, patient: None) -> Iterator[tuple[FaultProxy, Any]]:
    """A store whose every request passes through a proxy."""
    address = urlsplit(node_url)
    with FaultProxy(str(address.hostname), int(address.port or 9200)) as proxy:
        prefix = prefixes.fresh_uri().rpartition("/")[2]
        yield proxy, ElasticsearchTrackingStore(f"elasticsearch://{proxy.address}/{prefix}")


@pytest.mark.parametrize(
    "fault",
    [
        Fault("drop", times=40),
        Fault("lost-answer", times=40),
        Fault("cut-request", times=40, least_body=64),
        Fault("cut-response", times=40, least_body=64),
        Fault("status", status=429, times=50),
        Fault("status", status=503, times=30, retry_after=1),
        Fault("delay", seconds=0.3, times=40),
    ],
    ids=str,
)
def test_a_network_that_fails_loses_nothing(proxied: tuple[FaultProxy, Any], fault: Fault) -> None:
    """Eight writers, half of them on one run, while requests fail one after the other."""
    proxy, store = proxied
    experiment = store.create_experiment("broken")
    runs = [store.create_run(experiment, "ada", 1, [], f"r{n}").info.run_id for n in range(WRITERS)]
    log, stop = Log(), threading.Event()
    pool = writers([store], runs, log, stop.is_set)
    try:
        with proxy.inject(fault) as injected:
            wait_until(lambda: injected.hits >= (fault.times or 0))
        before = sum(map(len, log.acknowledged.values()))
        wait_until(lambda: sum(map(len, log.acknowledged.values())) > before + 40)
    finally:
        stop.set()
        pool.shutdown()
    log.check(store)


def test_an_outage_ends_in_a_named_error(node_url: str, prefixes: Prefixes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ELASTICSEARCH_RETRY_FOR", "1")
    address = urlsplit(node_url)
    with FaultProxy(str(address.hostname), int(address.port or 9200)) as proxy:
        store = ElasticsearchTrackingStore(f"elasticsearch://{proxy.address}/{prefixes.fresh_uri().rpartition('/')[2]}")
        run = store.create_run(store.create_experiment("out"), "ada", 1, [], "r").info.run_id
        for fault, code in (
            (Fault("drop", times=None), "TEMPORARILY_UNAVAILABLE"),
            (Fault("status", status=429, times=None), "RESOURCE_EXHAUSTED"),
        ):
            with proxy.inject(fault), pytest.raises(MlflowException) as caught:
                store.log_metric(run, Metric("loss", 1.0, 1, 0))
            assert caught.value.error_code == code
        store.log_metric(run, Metric("loss", 2.0, 1, 1))
        assert store.get_run(run).data.metrics == {"loss": 2.0}


BOOTSTRAP = """
import sys, time
from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
uri, begin = sys.argv[1], float(sys.argv[2])
store = ElasticsearchTrackingStore(uri)
time.sleep(max(0, begin - time.time()))
for name in ("same", "own-" + sys.argv[3]):
    try:
        store.create_experiment(name)
        print("made", name)
    except MlflowException as exc:
        print(exc.error_code, name)
run = store.create_run("0", "ada", 1, [], "r")
store.log_metric(run.info.run_id, Metric("m", 1.0, 1, 0))
"""


def test_servers_that_start_at_once_agree(prefixes: Prefixes, new_store: Callable[..., Any]) -> None:
    """Four processes create the indices, the default experiment and one name of their own at the same moment."""
    uri, begin = prefixes.fresh_uri(), time.time() + 8
    command = [sys.executable, "-W", "ignore", "-c", BOOTSTRAP, uri, str(begin)]
    started = [subprocess.Popen([*command, str(n)], stdout=subprocess.PIPE, text=True) for n in range(4)]
    said = [process.communicate(timeout=120)[0].split("\n") for process in started]
    assert [process.returncode for process in started] == [0] * 4
    lines = Counter(line for each in said for line in each if line.endswith("same"))
    assert lines == {"made same": 1, "RESOURCE_ALREADY_EXISTS same": 3}
    store = new_store(uri)
    experiments = store.search_experiments()
    assert Counter(e.name for e in experiments) == Counter(["Default", "same", *(f"own-{n}" for n in range(4))])
    assert len({e.experiment_id for e in experiments}) == 6
    assert len(store.search_runs(["0"], "metrics.m = 1", 1, 10)) == 4


def wait_until(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened for too long"
        time.sleep(0.02)
