"""Rules about metrics: the latest value, special values, histories and samples."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric

from mlflow_plugkit_testing.stores import all_pages, refused
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, mlflow_has, new_run

BAD: list[tuple[Any, Any, Any, Any]] = [
    (None, 1.0, 1, 0),
    ("", 1.0, 1, 0),
    ("k" * 251, 1.0, 1, 0),
    ("../m", 1.0, 1, 0),
    ("m", "1.0", 1, 0),
    ("m", None, 1, 0),
    ("m", 1.0, "now", 0),
    ("m", 1.0, -1, 0),
    ("m", 1.0, 1, "zero"),
]

LATEST = [
    ([(1, 5, 1.0), (2, 3, 2.0)], 1.0),
    ([(9, 1, 1.0), (1, 2, 2.0)], 2.0),
    ([(5, 1, 1.0), (4, 1, 2.0)], 1.0),
    ([(5, 1, 3.0), (5, 1, 2.0)], 3.0),
    ([(5, -2, 1.0), (5, -1, 2.0)], 2.0),
]

LARGEST = 1.7976931348623157e308


def triples(metrics: Any) -> list[tuple[int, int, float]]:
    """Timestamp, step and value of metric points."""
    return [(m.timestamp, m.step, m.value) for m in metrics]


class MetricRules(TrackingStoreSuite):
    """`log_metric`, `log_batch` of metrics, and `get_metric_history` with its siblings."""

    @pytest.mark.parametrize("how", ["one by one", "in a batch"])
    def test_the_latest_metric_has_the_highest_step_time_and_value(self, store: Any, experiment: str, how: str) -> None:
        """A run shows the point with the highest (step, timestamp, value), in whatever order they come."""
        for points, latest in LATEST:
            run_id = new_run(store, experiment)
            metrics = [Metric("m", value, timestamp, step) for timestamp, step, value in points]
            for batch in [metrics] if how == "in a batch" else [[m] for m in metrics]:
                store.log_batch(run_id, batch, [], [])
            shown = store.get_run(run_id).data.metrics["m"]
            assert shown == latest, (
                f"the latest metric of a run is the one with the highest (step, timestamp, value), here {latest}; "
                f"the run shows {shown} after the points (timestamp, step, value) {points}"
            )

    def test_nan_and_infinities_are_kept(self, store: Any, experiment: str) -> None:
        """NaN is read back as NaN; an infinity as itself or, as by MLflow's SQL store, as the largest finite number."""
        run_id = new_run(store, experiment)
        for key, value in (("nan", math.nan), ("inf", math.inf), ("ninf", -math.inf), ("tiny", 5e-324)):
            store.log_metric(run_id, Metric(key, value, 1, 0))
        read = store.get_run(run_id).data.metrics
        assert math.isnan(read["nan"]), f"a NaN metric was read back as {read['nan']}"
        assert read["inf"] >= LARGEST, f"an infinite metric was read back as {read['inf']}"
        assert read["ninf"] <= -LARGEST, f"a negative infinite metric was read back as {read['ninf']}"
        assert read["tiny"] == 5e-324, f"the smallest float was read back as {read['tiny']}"
        history = store.get_metric_history(run_id, "nan")
        assert math.isnan(history[0].value), "the history shows a NaN metric as a number"

    def test_steps_and_times_have_64_bits(self, store: Any, experiment: str) -> None:
        """Steps and timestamps are signed 64-bit integers."""
        run_id = new_run(store, experiment)
        for step in (2**63 - 1, -(2**63), 2**31):
            store.log_metric(run_id, Metric("m", 1.0, 2**53 + 1, step))
        history = store.get_metric_history(run_id, "m")
        steps = sorted(m.step for m in history)
        assert steps == [-(2**63), 2**31, 2**63 - 1], f"64-bit steps were read back as {steps}"
        assert {m.timestamp for m in history} == {2**53 + 1}, "64-bit timestamps were changed"

    def test_a_metric_history_holds_every_point_once(self, store: Any, experiment: str) -> None:
        """All points of one key of one run, each once, even if it was logged twice; an unknown key has none."""
        run_id, other = new_run(store, experiment), new_run(store, experiment)
        points = [(1, 0, 1.0), (1, 0, 2.0), (2, 0, 1.0), (2, 1, 1.0)]
        for timestamp, step, value in [*points, points[0]]:
            store.log_metric(run_id, Metric("m", value, timestamp, step))
        store.log_metric(run_id, Metric("n", 9.0, 1, 0))
        store.log_metric(other, Metric("m", 9.0, 1, 0))
        read = sorted(triples(store.get_metric_history(run_id, "m")))
        assert read == points, f"a metric history must hold every point exactly once: {read}"
        assert list(store.get_metric_history(run_id, "unknown")) == [], "the history of an unknown key must be empty"

    def test_a_metric_history_comes_in_order(self, store: Any, experiment: str, tmp_path: Path) -> None:
        """The history comes by timestamp, then step, then value."""
        _need_ordered_history(tmp_path)
        run_id = new_run(store, experiment)
        points = [(3, 1, 1.0), (1, 2, 5.0), (1, 1, 9.0), (1, 1, 2.0), (2, 0, 0.5)]
        for timestamp, step, value in points:
            store.log_metric(run_id, Metric("m", value, timestamp, step))
        read = triples(store.get_metric_history(run_id, "m"))
        assert read == sorted(points), (
            f"a metric history must be ordered by (timestamp, step, value), it came as {read}"
        )

    def test_a_metric_history_comes_in_pages(self, store: Any, experiment: str, tmp_path: Path) -> None:
        """Pages hold at most max_results points, and together every point once, in order."""
        _need_ordered_history(tmp_path)
        run_id = new_run(store, experiment)
        store.log_batch(run_id, [Metric("m", float(i), i, i) for i in range(7)], [], [])
        pages = all_pages(lambda token: store.get_metric_history(run_id, "m", max_results=3, page_token=token))
        steps = [[m.step for m in page] for page in pages]
        assert steps == [[0, 1, 2], [3, 4, 5], [6]], f"pages of a metric history must cover every point once: {steps}"

    def test_bad_metrics_are_refused(self, store: Any, experiment: str) -> None:
        """What is no metric (mlflow.utils.validation._validate_metric) raises `INVALID_PARAMETER_VALUE`."""
        run_id = new_run(store, experiment)
        for key, value, timestamp, step in BAD:
            with refused("INVALID_PARAMETER_VALUE", f"the metric {(str(key)[:9], value, timestamp, step)}"):
                store.log_metric(run_id, Metric(key, value, timestamp, step))
        assert store.get_run(run_id).data.metrics == {}, "a refused metric was kept"

    def test_histories_of_several_runs_come_together(self, store: Any, experiment: str) -> None:
        """`get_metric_history_bulk`, which MLflow's server calls without declaring it, goes by run, then time."""
        assert hasattr(store, "get_metric_history_bulk"), (
            "mlflow.server.handlers calls get_metric_history_bulk(run_ids, metric_key, max_results); without it the "
            "server reads each run's whole history"
        )
        runs = sorted(new_run(store, experiment) for _ in range(3))
        for run_id in runs:
            store.log_batch(run_id, [Metric("m", float(s), s, s) for s in (2, 1, 3)], [], [])
        found = store.get_metric_history_bulk(runs[:2], "m", 5)
        read = [(m.run_id, m.step) for m in found]
        wanted = [(runs[0], s) for s in (1, 2, 3)] + [(runs[1], s) for s in (1, 2)]
        assert read == wanted, f"get_metric_history_bulk must go by run id, then time, and stop at max_results: {read}"

    def test_a_sample_of_a_history_is_bounded_and_keeps_its_ends(self, store: Any, experiment: str) -> None:
        """`get_metric_history_bulk_interval` gives about max_results points of each run, with first and last."""
        mlflow_has("get_metric_history_bulk_interval", "get_metric_history_bulk_interval")
        runs = [new_run(store, experiment) for _ in range(2)]
        for run_id in runs:
            store.log_batch(run_id, [Metric("m", float(s), s + 1, s) for s in range(100)], [], [])
        found = store.get_metric_history_bulk_interval(runs, "m", 10, 20, 80)
        for run_id in runs:
            steps = [m.step for m in found if m.run_id == run_id]
            assert 2 <= len(steps) <= 20, f"a sample of 10 points must be bounded; {len(steps)} of run {run_id} came"
            ends = (steps[0], steps[-1], steps == sorted(steps))
            assert ends == (20, 80, True), (
                f"a sample must keep the first and the last step of 20..80, in order: {steps}"
            )

    def test_points_at_given_steps_are_found(self, store: Any, experiment: str) -> None:
        """`get_metric_history_bulk_interval_from_steps` gives the points at those steps, in order of the steps."""
        run_id = new_run(store, experiment)
        store.log_batch(run_id, [Metric("m", float(s), 1, s) for s in (5, 1, 3, 2, 4)], [], [])
        found = store.get_metric_history_bulk_interval_from_steps(run_id, "m", [4, 2, 9, 1], 2)
        read = [(m.run_id, m.step) for m in found]
        assert read == [(run_id, 1), (run_id, 2)], (
            f"points at the steps 4, 2, 1, at most two, must be those of 1 and 2: {read}"
        )


def _need_ordered_history(folder: Path) -> None:
    """Skip where MLflow's own store does not page its history (2.x): it does not promise an order either."""
    from mlflow.exceptions import MlflowException

    oracle = sqlite_tracking_store(folder)
    run_id = new_run(oracle, "0")
    oracle.log_batch(run_id, [Metric("m", 1.0, t, 0) for t in (2, 1)], [], [])
    try:
        page = oracle.get_metric_history(run_id, "m", max_results=1)
    except MlflowException:
        page = None
    dispose(oracle)
    if page is None or page.token is None:
        pytest.skip("this MLflow has no pages and no promised order of metric histories")
