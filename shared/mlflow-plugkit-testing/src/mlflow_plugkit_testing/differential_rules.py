"""The rules that run the state machines against a tracking store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.differential import Pair, compare
from mlflow_plugkit_testing.differential_runs import RunMachine
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, new_run


class DifferentialTrackingRules(TrackingStoreSuite):
    """Side by side with MLflow's own store, every answer is the same.

    A slow store lowers the two numbers; `mlflow_plugkit_testing.differential` names the environment
    variables that raise them for a long search.
    """

    differential_examples = 15
    differential_steps = 20
    differential_shrink = True

    def new_pair(self, folder: Path, fresh_uri: Callable[[], str]) -> Pair:
        """MLflow's own store on a fresh SQLite file, and the store under test on a fresh URI."""
        own = sqlite_tracking_store(folder)
        tested = self.make_store(fresh_uri(), (folder / "tested").as_uri())

        def close() -> None:
            dispose(own)
            self.close_store(tested)

        return Pair(own, tested, close)

    def test_runs_behave_as_in_mlflows_own_store(self, store_uri_factory: Callable[[], str], tmp_path: Path) -> None:
        """Random operations on experiments and runs have the answers, orders, pages and errors of SqlAlchemyStore."""
        ordered = _orders_histories(tmp_path)

        def new_pair() -> Pair:
            pair = self.new_pair(tmp_path, store_uri_factory)
            pair.ordered_histories = ordered
            return pair

        compare(RunMachine, new_pair, self.differential_examples, self.differential_steps, self.differential_shrink)


def _orders_histories(folder: Path) -> bool:
    """Whether MLflow's own store orders and pages metric histories (3.x)."""
    own = sqlite_tracking_store(folder)
    run_id = new_run(own, "0")
    own.log_batch(run_id, [Metric("m", 1.0, t, 0) for t in (2, 1)], [], [])
    try:
        page: Any = own.get_metric_history(run_id, "m", max_results=1)
    except MlflowException:
        return False
    finally:
        dispose(own)
    return page.token is not None
