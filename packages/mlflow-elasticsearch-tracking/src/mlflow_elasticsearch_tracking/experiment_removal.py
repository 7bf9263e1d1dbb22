"""Deleting an experiment for good, with all that belongs to it: for `mlflow gc`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from mlflow.entities import LifecycleStage

from mlflow_elasticsearch_tracking.base import StoreBase
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS
from mlflow_elasticsearch_tracking.indices_genai import LABEL_SCHEMAS, REVIEW_ITEMS, REVIEW_QUEUES, SCORERS
from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.names import release
from mlflow_plugkit_elasticsearch.queries import term

#: What belongs to one experiment and to nothing else, with a unique field.
_OWNED = ((SCORERS, "scorer_id"), (LABEL_SCHEMAS, "schema_id"), (REVIEW_QUEUES, "queue_id"))
#: The namespace of experiments' names (`names.claim`).
KIND = "experiment"


class ExperimentRemoval(StoreBase):
    """Delete experiments for good."""

    if TYPE_CHECKING:  # Experiments, Runs, LoggedModels, Inputs and Traces have them

        def _in_stage(self, experiment_id: str, stage: str) -> Source: ...

        def _run_ids_of(self, experiment_id: str) -> Iterable[str]: ...

        def _hard_delete_run(self, run_id: str) -> None: ...

        def _hard_delete_models_of(self, experiment_id: str) -> None: ...

        def _hard_delete_datasets_of(self, experiment_id: str) -> None: ...

        def _delete_traces(self, experiment_id: str) -> int: ...

    def _hard_delete_experiment(self, experiment_id: str) -> None:
        """Delete a deleted experiment for good, and free its name.

        Its runs, logged models, traces, datasets, scorers, label schemas and review queues go with it, as MLflow's
        SQL store has it, and go first: after a crash a repetition ends it.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, also for an active one.
        """
        source = self._in_stage(experiment_id, LifecycleStage.DELETED)
        own_id = source["experiment_id"]
        for run_id in self._run_ids_of(own_id):
            self._hard_delete_run(run_id)
        self._hard_delete_models_of(own_id)
        self._hard_delete_datasets_of(own_id)
        self.docs.refresh(TRACES, always=True)
        self._delete_traces(own_id)
        self.docs.refresh(REVIEW_QUEUES, always=True)
        self.docs.refresh(REVIEW_ITEMS, always=True)
        queues = self.docs.scan(REVIEW_QUEUES, term("experiment_id", own_id), "queue_id", source=False)
        for queue_id in [hit.id for hit in queues]:
            self.docs.delete_where(REVIEW_ITEMS, term("queue_id", queue_id), "item_id")
        for index, unique in _OWNED:
            self.docs.refresh(index, always=True)
            self.docs.delete_where(index, term("experiment_id", own_id), unique)
        self.docs.delete(EXPERIMENTS, own_id)
        release(self.docs, KIND, source["name"], own_id)
