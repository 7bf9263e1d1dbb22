"""Stores with the bugs that real plugins have had, which the state machines must find.

Most are found by the audit at the end of a sequence. The others need certain operations first; their
machines draw only those, so that few sequences do, whatever Hypothesis draws.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path

from hypothesis.stateful import RULE_MARKER
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR

from mlflow_plugkit_testing.differential_registry import RegistryMachine
from mlflow_plugkit_testing.differential_rules import DifferentialRegistryRules, DifferentialTrackingRules
from mlflow_plugkit_testing.differential_runs import RunMachine
from mlflow_plugkit_testing.stores_lazy import LazyRegistryStore, LazyTrackingStore

sys.path.insert(0, str(Path(__file__).parent))

from sabotage import OnSqlite, rewriting, sabotaged, skipping, wrong_codes

RUNS = "test_runs_behave_as_in_mlflows_own_store"
MODELS = "test_models_and_traces_behave_as_in_mlflows_own_store"
REGISTRY = "test_the_registry_behaves_as_mlflows_own_store"


def only(machine, *operations):
    """The machine with no other random operations than these."""
    drawn = {
        name: getattr(member, RULE_MARKER) for name, member in vars(machine).items() if hasattr(member, RULE_MARKER)
    }
    others = {name: drawn[name].function for name in drawn.keys() - set(operations)}
    return type(machine.__name__, (machine,), others)


class Broken(OnSqlite, DifferentialTrackingRules):
    differential_examples = 40
    differential_steps = 15
    differential_shrink = False
    store_class = LazyTrackingStore


class TestLatestMetricByWriteOrder(Broken):
    run_machine = only(RunMachine, "log_metric")

    class store_class(LazyTrackingStore):
        def log_metric(self, run_id, metric):
            super().log_metric(run_id, metric)
            vars(self).setdefault("last", {})[run_id, metric.key] = metric.value

        def get_run(self, run_id):
            run = super().get_run(run_id)
            run.data._metrics = {k: vars(self).get("last", {}).get((run_id, k), v) for k, v in run.data.metrics.items()}
            return run

    breaks = {RUNS: "the store under test answers differently"}


class TestPageTokenSkipsARow(Broken):
    store_class = sabotaged(LazyTrackingStore, skipping)
    breaks = {
        RUNS: "the store under test answers differently",
        MODELS: "the store under test answers differently",
    }


class TestLikeForgetsTheCase(Broken):
    store_class = sabotaged(LazyTrackingStore, rewriting(of=("search_runs",), a=(" LIKE ", " ILIKE ")))
    breaks = {RUNS: "the store under test answers differently"}


class TestNanIsSortedAsZero(Broken):
    class store_class(LazyTrackingStore):
        def search_runs(
            self, experiment_ids, filter_string, run_view_type, max_results=1000, order_by=None, page_token=None
        ):
            found = super().search_runs(experiment_ids, filter_string, run_view_type, max_results, order_by, page_token)
            if order_by and order_by[0].startswith("metrics.loss") and len(found) > 1:
                sign = -1 if order_by[0].endswith("DESC") else 1
                found.sort(key=lambda r: _as_zero(r.data.metrics.get("loss")) * sign)
            return found

    breaks = {RUNS: "the store under test answers differently"}


def _as_zero(value):
    if value is None:
        return math.inf
    return 0.0 if math.isnan(value) else value


class TestWrongErrorCode(Broken):
    store_class = sabotaged(LazyTrackingStore, wrong_codes)
    breaks = {
        RUNS: "store under test:   raises INTERNAL_ERROR",
        MODELS: "store under test:   raises INTERNAL_ERROR",
    }


class TestRestoreForgetsRuns(Broken):
    run_machine = only(RunMachine, "delete_or_restore_experiment")

    class store_class(LazyTrackingStore):
        def delete_experiment(self, experiment_id):
            from mlflow.entities import ViewType

            runs = self.search_runs([experiment_id], "", ViewType.ACTIVE_ONLY)
            super().delete_experiment(experiment_id)
            for run in runs:
                self.restore_run(run.info.run_id)

    breaks = {RUNS: "the store under test answers differently"}


class TestRepeatsPoints(Broken):
    run_machine = only(RunMachine, "log_batch")

    class store_class(LazyTrackingStore):
        def log_batch(self, run_id, metrics, params, tags):
            super().log_batch(run_id, metrics, params, tags)
            if metrics:
                last = metrics[-1]
                super().log_batch(run_id, [Metric(last.key, last.value, last.timestamp + 1, last.step - 1)], [], [])

    breaks = {RUNS: "the store under test answers differently"}


class BrokenRegistry(OnSqlite, DifferentialRegistryRules):
    differential_examples = 40
    differential_steps = 15
    differential_shrink = False
    store_class = LazyRegistryStore


class TestRegistryErrorCode(BrokenRegistry):
    class store_class(LazyRegistryStore):
        def get_model_version_by_alias(self, name, alias):
            try:
                return super().get_model_version_by_alias(name, alias)
            except MlflowException as exc:
                raise MlflowException(str(exc), INTERNAL_ERROR) from exc

    breaks = {REGISTRY: "the store under test answers differently"}


class TestRegistryPages(BrokenRegistry):
    store_class = sabotaged(LazyRegistryStore, skipping)
    breaks = {REGISTRY: "the store under test answers differently"}


class TestLosesVersionTags(BrokenRegistry):
    registry_machine = only(RegistryMachine, "tag_model_version")

    class store_class(LazyRegistryStore):
        def set_model_version_tag(self, name, version, tag):
            self.get_model_version(name, version)

    breaks = {REGISTRY: "the store under test answers differently"}
