"""Writes to runs: one request each, by many threads and processes, through lost races, lost answers and crashes."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.exceptions import MlflowException
from recorded import around_requests, requests_of

from mlflow_elasticsearch_tracking.history_columns import METRICS, Tail, chunks_of
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.log_batches import with_points
from mlflow_elasticsearch_tracking.run_writer import RunWriter
from mlflow_plugkit_elasticsearch import Action, Documents, bulk


@pytest.fixture
def run_id(store: Any) -> str:
    """The id of a new run."""
    return str(store.create_run("0", "ada", 1, [], "run").info.run_id)


@pytest.fixture
def stranger(new_store: Callable[..., Any], store: Any) -> Any:
    """A store on the same prefix that knows nothing of what the first one wrote: another process."""
    other = new_store(store.uri)
    other.docs = Documents(store.settings)
    return other


def batch(number: int, size: int = 500, keys: int = 5) -> list[Metric]:
    """Points that no other batch has."""
    first = number * size // keys
    return [Metric(f"k{n % keys}", float(number), first + n // keys, first + n // keys) for n in range(size)]


def steps(store: Any, run_id: str, key: str) -> list[int]:
    return [point.step for point in store.get_metric_history(run_id, key)]


def test_a_log_call_on_a_run_that_this_process_wrote_last_is_one_request(store: Any, run_id: str) -> None:
    """Nothing is read before the write, whether it logs a point, a param, a tag, or a thousand points."""
    calls: list[Callable[[], object]] = [
        lambda: store.log_metric(run_id, Metric("m", 1.0, 1, 1)),
        lambda: store.log_param(run_id, Param("p", "1")),
        lambda: store.set_tag(run_id, RunTag("t", "1")),
        lambda: store.log_batch(run_id, batch(0), [Param("q", "1")], [RunTag("u", "1")]),
        lambda: store.log_batch(run_id, batch(1, 900), [], []),
        lambda: store.log_batch(run_id, batch(2, 900), [], []),
    ]
    store.log_batch(run_id, batch(9, 900), [], [])
    store.log_batch(run_id, batch(8, 900), [], [])
    for call in calls:
        with requests_of(store) as seen:
            call()
        assert len(seen) == 1, seen
        assert not seen[0].startswith("GET"), seen


def test_two_processes_that_write_one_run_lose_nothing(store: Any, stranger: Any, run_id: str) -> None:
    """What was remembered is out of date: the write is refused, the run read, and the change made on what it is now."""
    for number in range(12):
        (store, stranger)[number % 2].log_batch(run_id, batch(number), [Param(f"p{number}", "1")], [])
    run = store.get_run(run_id)
    assert len(run.data.params) == 12
    assert run.data.metrics == {f"k{n}": 11.0 for n in range(5)}
    for reader in (store, stranger):
        assert steps(reader, run_id, "k3") == list(range(1_200))


def test_processes_that_write_one_run_at_once_lose_nothing(store: Any, run_id: str) -> None:
    """Six writers that know nothing of each other meet on one run: each is refused again and again, and all end."""
    writers = [RunWriter(Documents(store.settings)) for _ in range(6)]

    def work(number: int) -> None:
        for step in range(100 * number, 100 * number + 12):
            points = batch_of_points(float(number), step)
            writers[number].change(run_id, lambda source: with_points(source, points))  # noqa: B023

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert steps(store, run_id, "m") == [100 * number + step for number in range(6) for step in range(12)]
    assert store.get_run(run_id).data.metrics == {"m": 5.0}


def batch_of_points(value: float, step: int) -> list[tuple[str, int, int, float]]:
    return [("m", step, step, value)]


def test_what_another_process_changed_is_not_refused_for_what_it_was(store: Any, stranger: Any, run_id: str) -> None:
    """An error is raised on the run's present state only, not on the one that this process remembers."""
    stranger.set_tag(run_id, RunTag("t", "1"))
    store.delete_tag(run_id, "t")
    store.delete_run(run_id)
    stranger.restore_run(run_id)
    store.log_metric(run_id, Metric("m", 1.0, 1, 1))
    stranger.log_param(run_id, Param("p", "theirs"))
    with pytest.raises(MlflowException, match="theirs"):
        store.log_param(run_id, Param("p", "ours"))
    stranger.delete_run(run_id)
    with pytest.raises(MlflowException, match="deleted"):
        store.log_metric(run_id, Metric("m", 2.0, 2, 2))
    assert store.get_run(run_id).data.metrics == {"m": 1.0}


def test_the_threads_of_a_process_share_writes(store: Any, run_id: str) -> None:
    """Sixteen threads log to one run: none fails, nothing is lost, and one write carries the changes of several."""
    with requests_of(store) as seen, ThreadPoolExecutor(16) as pool:

        def work(number: int) -> None:
            for step in range(10):
                store.log_metric(run_id, Metric("m", float(number), 100 * number + step, 100 * number + step))

        list(pool.map(work, range(16)))
    assert steps(store, run_id, "m") == [100 * number + step for number in range(16) for step in range(10)]
    assert store.get_run(run_id).data.metrics == {"m": 15.0}
    assert len(seen) < 160, "changes that wait must be written together"


def test_one_refused_change_takes_no_other_with_it(store: Any, run_id: str) -> None:
    """Of changes that are written together each has its own outcome."""
    started, go_on = threading.Event(), threading.Event()

    def slow(request: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        if not started.is_set():
            started.set()
            assert go_on.wait(30)
        return request(method, path, *args, **kwargs)

    store.log_param(run_id, Param("p", "1"))
    with around_requests(store, slow), ThreadPoolExecutor(8) as pool:
        first = pool.submit(store.log_metric, run_id, Metric("first", 1.0, 1, 1))
        assert started.wait(30)
        good = [pool.submit(store.log_metric, run_id, Metric(f"m{n}", 1.0, 1, 1)) for n in range(3)]
        bad = [pool.submit(store.log_param, run_id, Param("p", str(n))) for n in (2, 3)]
        go_on.set()
        outcomes = [one.exception(60) for one in (first, *good)]
        refused = [one.exception(60) for one in bad]
    assert outcomes == [None] * 4
    assert [getattr(error, "error_code", None) for error in refused] == ["INVALID_PARAMETER_VALUE"] * 2
    assert set(store.get_run(run_id).data.metrics) == {"first", "m0", "m1", "m2"}


def test_an_interrupted_thread_takes_no_other_with_it(store: Any, run_id: str) -> None:
    """The thread that writes for all is interrupted (Ctrl-C): the others make their changes themselves."""
    started, go_on = threading.Event(), threading.Event()

    def interrupted(request: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        if not started.is_set():
            started.set()
            assert go_on.wait(30)
            return request(method, path, *args, **kwargs)
        if threading.current_thread().name.endswith("_1") and not hit:
            hit.append(path)
            raise KeyboardInterrupt
        return request(method, path, *args, **kwargs)

    hit: list[str] = []
    with around_requests(store, interrupted), ThreadPoolExecutor(6, "log") as pool:
        first = pool.submit(store.log_metric, run_id, Metric("m0", 1.0, 1, 1))
        assert started.wait(30)
        rest = [pool.submit(store.log_metric, run_id, Metric(f"m{n}", 1.0, 1, 1)) for n in range(1, 6)]
        go_on.set()
        outcomes = [one.exception(60) for one in (first, *rest)]
    failed = [error for error in outcomes if error is not None]
    assert [type(error) for error in failed] == [KeyboardInterrupt] * len(hit)
    assert len(store.get_run(run_id).data.metrics) == 6 - len(failed)


def test_a_write_whose_answer_was_lost_is_not_made_twice(store: Any, run_id: str) -> None:
    """The request was carried out, its answer never came: the repetition is known for what it is."""
    from elastic_transport import ConnectionTimeout

    cluster = store.docs.cluster
    send, lost = cluster._send, Counter[str]()

    def lossy(method: str, path: str, *args: Any) -> Any:
        answer = send(method, path, *args)
        if method in ("PUT", "POST") and lost[path] == 0 and ("_doc" in path or "_bulk" in path):
            lost[path] += 1
            raise ConnectionTimeout("the answer was lost")
        return answer

    cluster._send = lossy
    try:
        for number in range(4):
            store.log_batch(run_id, batch(number, 900), [Param(f"p{number}", "1")], [])
    finally:
        del cluster._send
    assert sum(lost.values()) >= 2
    assert steps(store, run_id, "k1") == list(range(720))
    assert len(store.get_run(run_id).data.params) == 4


def test_a_crash_after_the_copy_leaves_every_point_once(store: Any, stranger: Any, run_id: str) -> None:
    """Blocks reached the history index, the document was not written: whoever comes next sees each point once."""
    store.log_batch(run_id, batch(0, 1_000), [], [])
    copies = Tail.of(store._run(run_id).source).closed().segments
    bulk(store.docs, [Action("index", METRICS, chunk["id"], chunk) for chunk in chunks_of(run_id, copies)])
    assert steps(stranger, run_id, "k2") == list(range(200))
    for number in (1, 2):
        stranger.log_batch(run_id, batch(number, 1_000), [], [])
    for reader in (store, stranger):
        assert steps(reader, run_id, "k2") == list(range(600))


def test_points_that_another_process_added_to_what_was_copied_stay(store: Any, stranger: Any, run_id: str) -> None:
    """The copy was made of an older, shorter state of a segment, and the race was lost: the longer one is kept."""
    for step in range(100):
        store.log_metric(run_id, Metric("m", 1.0, step, step))
    stranger.log_batch(run_id, [Metric("m", 1.0, step, step) for step in range(100, 130)], [], [])
    assert len(Tail.of(store._run(run_id).source).segments) == 1
    for number in range(3):
        store.log_batch(run_id, batch(number, 999), [], [])
    for reader in (store, stranger):
        assert steps(reader, run_id, "m") == list(range(130))


def test_a_refused_batch_leaves_no_point(store: Any, run_id: str) -> None:
    """With a param that is refused no metric and no tag of the batch appears, however large it is."""
    store.log_param(run_id, Param("p", "1"))
    for size in (10, 999):
        with pytest.raises(MlflowException):
            store.log_batch(run_id, batch(0, size), [Param("p", "2")], [])
    assert store.get_run(run_id).data.metrics == {}
    assert steps(store, run_id, "k0") == []
    assert store.docs.count(METRICS, {"match_all": {}}) == 0


def test_a_reader_never_sees_half_a_batch(store: Any, stranger: Any, run_id: str) -> None:
    """While batches of a hundred points of a key are logged, a reader sees whole batches only, and ever more."""
    done = threading.Event()

    def write() -> None:
        try:
            for number in range(25):
                store.log_batch(run_id, batch(number), [], [])
        finally:
            done.set()

    seen: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write)
        while not done.is_set():
            seen.append(len(stranger.get_metric_history(run_id, "k4")))
        assert writing.exception() is None
    assert all(count % 100 == 0 for count in seen), seen
    assert seen == sorted(seen), "a point that was seen stays"
    assert len(stranger.get_metric_history(run_id, "k4")) == 2_500


def test_points_that_were_copied_leave_the_document(store: Any, run_id: str) -> None:
    """The document of a run holds its last points only; those of a run that has ended, once they are copied, none."""
    for number in range(6):
        store.log_batch(run_id, batch(number, 1_000), [], [])
        assert Tail.of(store._run(run_id).source).size <= 2_000
    store.update_run_info(run_id, RunStatus.FINISHED, 2, None)
    assert Tail.of(store._run(run_id).source).size == 0
    assert steps(store, run_id, "k0") == list(range(1_200))


def test_a_run_that_was_deleted_for_good_is_gone_for_its_writer(store: Any, stranger: Any, run_id: str) -> None:
    """A process that remembers the run does not bring it back."""
    store.log_batch(run_id, batch(0, 1_000), [], [])
    store.log_batch(run_id, batch(1, 1_000), [], [])
    stranger._hard_delete_run(run_id)
    with pytest.raises(MlflowException) as caught:
        store.log_metric(run_id, Metric("m", 1.0, 1, 1))
    assert caught.value.error_code == "RESOURCE_DOES_NOT_EXIST"
    assert store.docs.get(RUNS, run_id) is None
    stranger.docs.written(METRICS)
    assert stranger.docs.count(METRICS, {"match_all": {}}) == 0


def test_what_is_remembered_is_bounded(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state of many runs is dropped again, the oldest first; their next write reads them."""
    monkeypatch.setattr("mlflow_elasticsearch_tracking.run_writer._MOST_RUNS", 3)
    runs = [store.create_run("0", "ada", n, [], f"r{n}").info.run_id for n in range(5)]
    writer = RunWriter.of(store.docs)
    assert list(writer._states) == runs[-3:]
    store.log_metric(runs[0], Metric("m", 1.0, 1, 1))
    assert list(writer._states) == [*runs[-2:], runs[0]]


def test_no_line_stays_behind(store: Any, run_id: str) -> None:
    """Nothing is kept for runs that nobody writes."""
    store.log_metric(run_id, Metric("m", 1.0, 1, 1))
    with pytest.raises(MlflowException):
        store.log_metric("f" * 32, Metric("m", 1.0, 1, 1))
    assert RunWriter.of(store.docs)._lines == {}
