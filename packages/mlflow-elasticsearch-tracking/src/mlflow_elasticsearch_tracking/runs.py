"""Runs: their attributes, params and tags."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunInfo, RunTag
from mlflow.utils import validation
from mlflow.utils.mlflow_tags import MLFLOW_LOGGED_MODELS, MLFLOW_RUN_NAME
from mlflow.utils.name_utils import _generate_random_name
from mlflow.utils.uri import append_to_uri_path

from mlflow_elasticsearch_tracking.base import StoreBase, now_ms
from mlflow_elasticsearch_tracking.history_columns import METRICS
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.log_batches import points_of, with_info, with_params, with_points, with_tags
from mlflow_elasticsearch_tracking.run_documents import (
    check_active,
    new_run_source,
    no_run,
    run_document,
    run_entity,
    run_info,
)
from mlflow_elasticsearch_tracking.run_links import model_outputs
from mlflow_elasticsearch_tracking.run_writer import Change, RunWriter
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Document, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.queries import all_of, between, term

if TYPE_CHECKING:
    from mlflow.entities import RunInputs
    from mlflow.models import Model

ARTIFACTS_FOLDER = "artifacts"
_MOVED_AT_ONCE = 500


class Runs(StoreBase):
    """Create, read, change and delete runs; log params, tags and batches."""

    if TYPE_CHECKING:  # Experiments, Inputs, LoggedModels and Assessments have them

        def _active_experiment(self, experiment_id: str) -> Source: ...

        def _run_inputs(self, sources: Sequence[Source], *, models: bool = False) -> list[RunInputs]: ...

        def _delete_assessments_of(self, run_ids: Sequence[str]) -> None: ...

        def _log_model_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None: ...

        def _forget_run_of_models(self, run_id: str) -> None: ...

    def create_run(
        self, experiment_id: str, user_id: str, start_time: int, tags: Sequence[RunTag] | None, run_name: str | None
    ) -> Run:
        """Start a run in an active experiment; without a name it gets one.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such experiment; `INVALID_PARAMETER_VALUE` for a deleted
                one, or for a name that contradicts the tag mlflow.runName; `BAD_REQUEST` for a tag that is given
                twice or an empty mlflow.runName.
        """
        experiment = self._active_experiment(experiment_id)
        texts = {tag.key: tag.value for tag in tags or ()}
        if len(texts) < len(tags or ()):
            raise mlflow_error("A new run has a tag twice. Give each tag once.", "BAD_REQUEST")
        name = _name_of(run_name, texts.get(MLFLOW_RUN_NAME))
        run_id = uuid.uuid4().hex
        place = append_to_uri_path(experiment["artifact_location"], run_id, ARTIFACTS_FOLDER)
        source = new_run_source(run_id, experiment["experiment_id"], name, user_id, start_time, place)
        source["t"] = {**texts, MLFLOW_RUN_NAME: name}
        try:
            run = run_entity(source, self._run_inputs([source])[0])
        except Exception as exc:  # MLflow's entity says what may not be None; nothing is written then
            raise mlflow_error(f"The run cannot be made: {exc}") from exc
        written = self.docs.create(RUNS, run_id, run_document(source))
        self._writer.created(written._replace(source=source))
        return run

    def get_run(self, run_id: str) -> Run:
        """The run, active or deleted, with its latest metrics, params, tags, inputs and outputs.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        from mlflow.entities import RunOutputs

        source = self._run(run_id).source
        inputs = self._run_inputs([source], models=True)[0]
        return run_entity(source, inputs, RunOutputs(model_outputs(source)))

    def update_run_info(
        self, run_id: str, run_status: int | None, end_time: int | None, run_name: str | None
    ) -> RunInfo:
        """Change status, end time and name of an active run; None leaves each as it is.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a deleted run.
        """
        changed = self._change_active(run_id, lambda source: with_info(source, run_status, end_time, run_name))
        return run_info(changed.source)

    def delete_run(self, run_id: str) -> None:
        """Mark a run as deleted; `mlflow gc` deletes it for good. The assessments that it made are gone at once.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        self._change_run(run_id, lambda source: _moved(source, LifecycleStage.DELETED))
        self._delete_assessments_of([run_id])

    def restore_run(self, run_id: str) -> None:
        """Make a run active.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        self._change_run(run_id, lambda source: _moved(source, LifecycleStage.ACTIVE))

    def log_metric(self, run_id: str, metric: Metric) -> None:
        """Log one point.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a bad metric or a deleted run.
        """
        points = points_of([metric], single=True)
        if metric.model_id is not None:  # first, so that nothing is logged where there is no such model
            self._change_active(run_id, lambda source: source)
            self._log_model_metrics(run_id, [metric])
        self._change_active(run_id, lambda source: with_points(source, points))

    def log_param(self, run_id: str, param: Param) -> None:
        """Log a param, which never changes.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a bad param, another value or a
                deleted run.
        """
        checked = validation._validate_param(param.key, param.value)
        self._change_active(run_id, lambda source: with_params(source, [checked], single=True))

    def set_tag(self, run_id: str, tag: RunTag) -> None:
        """Set a tag; the tag mlflow.runName renames the run.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a bad tag or a deleted run.
        """
        checked = validation._validate_tag(tag.key, tag.value)
        self._change_active(run_id, lambda source: with_tags(source, [checked]))

    def delete_tag(self, run_id: str, key: str) -> None:
        """Remove a tag.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such run or tag; `INVALID_PARAMETER_VALUE` for a deleted
                run.
        """

        def without(source: Source) -> Source:
            if key not in source["t"]:
                raise mlflow_error(f"No tag with name: {key} in run with id {run_id}.", "RESOURCE_DOES_NOT_EXIST")
            return {**source, "t": {name: value for name, value in source["t"].items() if name != key}}

        self._change_active(run_id, without)

    def log_batch(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Log metrics, params and tags together: a reader sees all of them or none.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for anything in the batch that is
                bad, for too much of it (1,000 metrics, 100 params, 100 tags, 1,000 in all), or for a deleted run.
        """
        validation._validate_run_id(run_id)
        points = points_of(metrics)
        _, params, tags = validation._validate_batch_log_data([], params, tags)
        validation._validate_batch_log_limits(metrics, params, tags)
        validation._validate_param_keys_unique(params)

        def logged(source: Source) -> Source:
            source = with_tags(with_params(source, params), tags)
            return with_points(source, points) if points else source

        self._change_active(run_id, logged)
        of_models = [metric for metric in metrics if metric.model_id is not None]
        if of_models:
            self._log_model_metrics(run_id, of_models)

    def record_logged_model(self, run_id: str, mlflow_model: Model) -> None:
        """Add a model to the tag that lists the models which the run has logged.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a deleted run.
            TypeError: for what is no model.
        """
        from mlflow.models import Model

        if not isinstance(mlflow_model, Model):
            raise TypeError(f"Argument 'mlflow_model' should be mlflow.models.Model, got '{type(mlflow_model)}'")
        described = mlflow_model.get_tags_dict()

        def recorded(source: Source) -> Source:
            models = [*json.loads(source["t"].get(MLFLOW_LOGGED_MODELS) or "[]"), described]
            return with_tags(source, [validation._validate_tag(MLFLOW_LOGGED_MODELS, json.dumps(models))])

        self._change_active(run_id, recorded)

    def _run(self, run_id: str) -> Document:
        """The run's document by a real-time read.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        found = self.docs.get(RUNS, run_id)
        if found is None:
            raise no_run(run_id)
        return found

    def _change_run(self, run_id: str, change: Change) -> Document:
        """Change a run in whatever stage it is; see `RunWriter.change`."""
        return self._writer.change(run_id, change)

    def _change_active(self, run_id: str, change: Callable[[Source], Source]) -> Document:
        """Change an active run; nothing is written where the change returns the source that it was given.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a deleted run.
        """

        def checked(source: Source) -> Source | None:
            check_active(source)
            after = change(source)
            return None if after is source else after

        return self._change_run(run_id, checked)

    @property
    def _writer(self) -> RunWriter:
        return RunWriter.of(self.docs)

    def _get_deleted_runs(self, older_than: int = 0) -> list[str]:
        """The ids of the runs that were deleted at least `older_than` milliseconds ago; for `mlflow gc`."""
        self.docs.refresh(RUNS, always=True)
        before = between("deleted_time", lte=now_ms() - older_than)
        query = all_of([term("lifecycle_stage", LifecycleStage.DELETED), before])
        self.docs.refresh(RUNS, always=True)
        return [hit.id for hit in self.docs.scan(RUNS, query, "run_id", source=False)]

    def _hard_delete_run(self, run_id: str) -> None:
        """Delete a run and its history for good, in bounded memory; for `mlflow gc`.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        self._run(run_id)
        self.docs.refresh(METRICS, always=True)  # another process may have copied points a moment ago
        self.docs.delete_where(METRICS, term("run_id", run_id), "id")
        self._forget_run_of_models(run_id)
        self.docs.delete(RUNS, run_id)
        self._writer.forget(run_id)

    def _run_ids_of(self, experiment_id: str) -> Iterator[str]:
        query = term("experiment_id", experiment_id)
        self.docs.refresh(RUNS, always=True)  # another process may have started one a moment ago
        return (hit.id for hit in self.docs.scan(RUNS, query, "run_id", source=False))

    def _move_runs(self, experiment_id: str, stage: str) -> None:
        """Move all runs of an experiment to a stage, some hundreds in one request."""
        waiting: list[str] = []
        for run_id in self._run_ids_of(experiment_id):
            waiting.append(run_id)
            if len(waiting) == _MOVED_AT_ONCE:
                self._move_these(waiting, stage)
                waiting = []
        self._move_these(waiting, stage)

    def _move_these(self, run_ids: Iterable[str], stage: str) -> None:
        documents = list(self.docs.get_many(RUNS, list(run_ids)).values())
        actions = [Action("index", RUNS, one.id, run_document(_moved(one.source, stage)), one) for one in documents]
        for document, outcome in zip(documents, bulk(self.docs, actions), strict=True):
            if outcome.conflict:
                self._change_run(document.id, lambda source: _moved(source, stage))
        if stage == LifecycleStage.DELETED and documents:
            self._delete_assessments_of([document.id for document in documents])


def _name_of(given: str | None, tagged: str | None) -> str:
    """The name of a new run, by argument or tag, else a random one."""
    if tagged == "":
        raise mlflow_error("The tag mlflow.runName of a new run is empty. Leave it out.", "BAD_REQUEST")
    if given and tagged and given != tagged:
        raise mlflow_error(
            "Both 'run_name' argument and 'mlflow.runName' tag are specified, but with different values "
            f"(run_name='{given}', mlflow.runName='{tagged}'). Leave one of them out."
        )
    return given or tagged or str(_generate_random_name())


def _moved(source: Source, stage: str) -> Source:
    after: dict[str, Any] = {**source, "lifecycle_stage": stage}
    after.pop("deleted_time", None)
    return after | {"deleted_time": now_ms()} if stage == LifecycleStage.DELETED else after
