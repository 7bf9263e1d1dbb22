"""Metric histories, beside MLflow's own store."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from recorded import requests_of

from mlflow_elasticsearch_tracking.history_columns import METRICS
from mlflow_elasticsearch_tracking.metric_history import sample

VALUES = [0.0, -0.0, 1.5, -2.0, 1e300, math.nan, 5e-324]
NOWHERE = "f" * 32


def new_run(store: Any, start: int = 1) -> str:
    return str(store.create_run("0", "ada", start, [], "run").info.run_id)


def shown(points: Any) -> list[tuple[Any, ...]]:
    """Points in a form that compares NaN with NaN."""
    return [(p.timestamp, p.step, "nan" if math.isnan(p.value) else p.value + 0.0) for p in points]


def random_points(seed: int, count: int) -> list[Metric]:
    chance = random.Random(seed)
    return [Metric("m", chance.choice(VALUES), chance.randrange(1, 8), chance.randrange(-3, 60)) for _ in range(count)]


@pytest.fixture
def both(store: Any, own: Any) -> Callable[[list[Metric]], list[tuple[Any, str]]]:
    """Log points to a new run of each store, in batches of many sizes.

    MLflow's own store gets each point once: before 3.15 it fails where a batch repeats a point.
    """

    def log(points: list[Metric]) -> list[tuple[Any, str]]:
        once = list({(p.timestamp, p.step, repr(p.value + 0.0)): p for p in points}.values())
        made = [(store, new_run(store), points), (own, new_run(own), once)]
        for each, run_id, logged in made:
            position, size = 0, 1
            while position < len(logged):
                each.log_batch(run_id, logged[position : position + size], [], [])
                position, size = position + size, min(1_000, size * 3)
        return [(each, run_id) for each, run_id, _ in made]

    return log


def test_histories_equal_those_of_mlflows_own_store(both: Any) -> None:
    """Order, repetitions, NaN and pages are SqlAlchemyStore's, in the document and in the history index."""
    (ours, run), (own, own_run) = both(random_points(1, 3_000))
    assert ours.docs.count(METRICS, {"match_all": {}}), "the points must have outgrown the run's document"
    assert shown(ours.get_metric_history(run, "m")) == shown(own.get_metric_history(own_run, "m"))
    for size in (97, 500):
        ours_pages, own_pages = (list(pages(each, run_id, size)) for each, run_id in ((ours, run), (own, own_run)))
        assert [shown(page) for page in ours_pages] == [shown(page) for page in own_pages]


def pages(store: Any, run_id: str, size: int) -> Any:
    token = None
    for _ in range(10_000):
        page = store.get_metric_history(run_id, "m", max_results=size, page_token=token)
        yield page
        token = page.token
        if not token:
            return


@pytest.mark.parametrize("count", [40, 1_500])
@pytest.mark.parametrize("most", [1, 2, 7, 320, 5_000])
def test_samples_equal_those_of_mlflows_own_store(both: Any, count: int, most: int) -> None:
    """A sample holds the same points as SqlAlchemyStore's, within steps and without."""
    (ours, run), (own, own_run) = both(random_points(2, count))
    if not hasattr(type(own), "_sample_metric_history_single_run"):
        pytest.skip("this MLflow's own store samples steps, not points")
    for bounds in ((None, None), (5, 40), (100, 200)):
        found = ours.get_metric_history_bulk_interval([run], "m", most, *bounds)
        assert shown(found) == shown(own.get_metric_history_bulk_interval([own_run], "m", most, *bounds))
        assert {point.run_id for point in found} <= {run}


def test_the_quick_way_to_sample_is_the_slow_one() -> None:
    """Points in the order of their steps are sampled by their places alone: the same points."""
    steps = sorted(random.Random(3).sample(range(10_000), 777))
    part = (steps, [s + 1 for s in steps], [float(s) for s in steps])
    from mlflow_elasticsearch_tracking.history_columns import Columns

    whole = Columns(*part)
    doubled = [whole, Columns(steps[:1], [steps[0] + 1], [float(steps[0])])]
    for most in (1, 2, 10, 776, 777, 5_000):
        for bounds in (None, (100, 9_000)):
            assert list(sample([whole], most, bounds)) == list(sample(doubled, most, bounds))


def test_points_at_steps_equal_those_of_mlflows_own_store(both: Any) -> None:
    """The points at some steps come in SqlAlchemyStore's order, so many and no more."""
    (ours, run), (own, own_run) = both(random_points(4, 1_500))
    for steps, most in (([3, 5, 8, 999], 1_000), ([50, 1], 5), ([], 5)):
        found = ours.get_metric_history_bulk_interval_from_steps(run, "m", steps, most)
        theirs = own.get_metric_history_bulk_interval_from_steps(own_run, "m", steps, most)
        assert len(found) == len(theirs)
        assert most == 5 or sorted(map(repr, shown(found))) == sorted(map(repr, shown(theirs)))
        assert [p.step for p in found] == [p.step for p in theirs]


def test_histories_of_many_runs_take_two_requests(store: Any) -> None:
    """Whatever the number of runs: one request for what their documents hold, one search for the rest."""
    runs = [new_run(store) for _ in range(30)]
    for run_id in runs:
        store.log_batch(run_id, [Metric("m", float(n), n, n) for n in range(200)], [], [])
        store.update_run_info(run_id, 3, 1, None)
    store.get_metric_history(runs[0], "m")
    with requests_of(store) as seen:
        found = store.get_metric_history_bulk_interval(runs, "m", 10, None, None)
    assert len(found) == 300
    assert [request.partition("?")[0].rpartition("/")[2] for request in seen] == ["_mget", "_refresh", "_search"]
    with requests_of(store) as seen:
        bulk = store.get_metric_history_bulk(runs, "m", 450)
    assert [(p.run_id, p.step) for p in bulk] == [(run_id, n) for run_id in sorted(runs)[:3] for n in range(200)][:450]
    assert len(seen) <= 3


def test_a_page_reads_no_more_blocks_than_it_needs(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first page of a long history leaves its later blocks alone."""
    monkeypatch.setattr("mlflow_elasticsearch_tracking.metric_history._BLOCKS_AT_ONCE", 2)
    run_id = new_run(store)
    for first in range(0, 20_000, 1_000):
        store.log_batch(run_id, [Metric("m", 1.0, n, n) for n in range(first, first + 1_000)], [], [])
    with requests_of(store) as seen:
        page = store.get_metric_history(run_id, "m", max_results=1_500)
    assert [p.step for p in page] == list(range(1_500))
    assert len([request for request in seen if "_search" in request]) <= 3
    rest = [p.step for each in pages(store, run_id, 7_000) for p in each]
    assert rest == list(range(20_000))


def test_points_of_one_moment_are_not_sorted_again_and_again(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where all points have one timestamp, the first page needs all blocks, but looks at them a few times only."""
    from mlflow_elasticsearch_tracking import metric_history

    run_id = new_run(store)
    for first in range(0, 40_000, 1_000):
        store.log_batch(run_id, [Metric("m", 1.0, 7, n) for n in range(first, first + 1_000)], [], [])
    sorted_so_often: list[int] = []
    ordered = metric_history.ordered

    def counted(parts: Any, **kwargs: Any) -> Any:
        sorted_so_often.append(len(parts))
        return ordered(parts, **kwargs)

    monkeypatch.setattr(metric_history, "ordered", counted)
    page = store.get_metric_history(run_id, "m", max_results=10)
    assert [p.step for p in page] == list(range(10))
    assert len(sorted_so_often) < 10


def test_an_unknown_run_has_no_history(store: Any) -> None:
    """As in MLflow's own store, no error."""
    assert list(store.get_metric_history(NOWHERE, "m")) == []
    assert store.get_metric_history_bulk([NOWHERE], "m", 10) == []
    assert store.get_metric_history_bulk_interval([NOWHERE], "m", 10, 0, 5) == []
    assert store.get_max_step_for_metric(NOWHERE, "m") == 0


def test_the_highest_step_is_found(store: Any) -> None:
    """`get_max_step_for_metric` looks into the document and the index."""
    run_id = new_run(store)
    store.log_batch(run_id, [Metric("m", 1.0, 1, n) for n in range(1_000)], [], [])
    store.log_batch(run_id, [Metric("m", 1.0, 1, -n) for n in range(1_000)], [], [])
    assert store.get_max_step_for_metric(run_id, "m") == 999


@pytest.mark.parametrize("bounds", [(None, 5), (5, None)])
def test_one_bound_of_steps_is_refused(store: Any, bounds: tuple[Any, Any]) -> None:
    """Both steps or none."""
    with pytest.raises(MlflowException) as caught:
        store.get_metric_history_bulk_interval([NOWHERE], "m", 10, *bounds)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    "metric", [("m", 10**400, 1, 0), ("m", 1.0, 2**63, 0), ("m", 1.0, 1, 2**63), ("m", 1, 1, -(2**63) - 1)]
)
def test_what_needs_more_than_64_bits_is_refused(store: Any, metric: tuple[Any, ...]) -> None:
    """A value, timestamp or step beyond 64 bits is a bad metric, not an error of the server."""
    run_id = new_run(store)
    for log in (
        lambda: store.log_metric(run_id, Metric(*metric)),
        lambda: store.log_batch(run_id, [Metric(*metric)], [], []),
    ):
        with pytest.raises(MlflowException) as caught:
            log()
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    assert store.get_run(run_id).data.metrics == {}


def test_numbers_of_other_types_are_logged(store: Any) -> None:
    """Whole numbers, fractions and numpy's numbers become floats, and their steps integers."""
    from decimal import Decimal
    from fractions import Fraction

    numpy = pytest.importorskip("numpy")
    run_id = new_run(store)
    values = [3, Fraction(1, 2), Decimal("0.25"), numpy.float32(1.5), numpy.int64(7)]
    store.log_batch(run_id, [Metric("m", v, numpy.int64(n), numpy.int64(n)) for n, v in enumerate(values)], [], [])
    assert shown(store.get_metric_history(run_id, "m")) == [(n, n, float(value)) for n, value in enumerate(values)]
