"""Experiments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from mlflow.entities import Experiment, ExperimentTag, LifecycleStage
from mlflow.utils import validation
from mlflow.utils.uri import append_to_uri_path, resolve_uri_if_local

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.experiment_removal import KIND as KIND
from mlflow_elasticsearch_tracking.experiment_removal import ExperimentRemoval
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS
from mlflow_elasticsearch_tracking.run_documents import text_fields
from mlflow_plugkit.compat import optional_attribute, supported_kwargs
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.names import claim, handing_over, next_number, owner_of

DEFAULT_EXPERIMENT_ID = "0"


class Experiments(ExperimentRemoval):
    """Create, read, change, search and delete experiments."""

    if TYPE_CHECKING:  # Runs has it

        def _move_runs(self, experiment_id: str, stage: str) -> None: ...

    DEFAULT_EXPERIMENT_ID = DEFAULT_EXPERIMENT_ID
    _has_default = False

    def create_experiment(
        self, name: str, artifact_location: str | None = None, tags: Sequence[ExperimentTag] | None = None
    ) -> str:
        """Make an active experiment and return its id, a number as text.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad name, location or tag; `RESOURCE_ALREADY_EXISTS`
                for a name that an active or deleted experiment has.
        """
        validation._validate_experiment_name(name)
        if artifact_location:
            artifact_location = resolve_uri_if_local(artifact_location)
            _check_location_length(artifact_location)
        for tag in tags or ():
            validation._validate_experiment_tag(tag.key, tag.value)
        if len({tag.key for tag in tags or ()}) < len(tags or ()):
            raise mlflow_error("A new experiment has a tag twice. Give each tag once.", "BAD_REQUEST")
        self._ensure_default_experiment()
        experiment_id = str(next_number(self.docs, KIND))
        self._claim(name, experiment_id)
        self._create(experiment_id, name, artifact_location, {tag.key: tag.value for tag in tags or ()})
        return experiment_id

    def get_experiment(self, experiment_id: str) -> Experiment:
        """The experiment, active or deleted; the default one for an empty id.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for an id that is no number.
        """
        return experiment_entity(self._experiment_source(experiment_id or DEFAULT_EXPERIMENT_ID))

    def get_experiment_by_name(self, experiment_name: str) -> Experiment | None:
        """The experiment of this name, active or deleted, or None."""
        if not isinstance(experiment_name, str):
            return None
        self._ensure_default_experiment()
        owner = owner_of(self.docs, KIND, experiment_name)
        found = self.docs.get(EXPERIMENTS, owner) if owner is not None else None
        if found is None or found.source["name"] != experiment_name:
            return None
        return experiment_entity(found.source)

    def rename_experiment(self, experiment_id: str, new_name: str) -> None:
        """Rename an active experiment; the old name is free again.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad name; `RESOURCE_DOES_NOT_EXIST`; `INVALID_STATE`
                for a deleted experiment; `RESOURCE_ALREADY_EXISTS` for a name that another one has.
        """
        validation._validate_experiment_name(new_name)
        before = self._experiment_source(experiment_id or DEFAULT_EXPERIMENT_ID)
        own_id = before["experiment_id"]

        def renamed(source: Source) -> Source:
            if source["lifecycle_stage"] != LifecycleStage.ACTIVE:
                raise mlflow_error("Cannot rename a non-active experiment. Restore it first.", "INVALID_STATE")
            return {**source, "name": new_name, "last_update_time": now_ms()}

        renamed(before)
        self._claim(new_name, own_id)
        with handing_over(self.docs, KIND, before["name"], new_name, own_id):
            self._change_experiment(own_id, renamed)

    def delete_experiment(self, experiment_id: str) -> None:
        """Mark an active experiment and its runs as deleted; `mlflow gc` deletes them for good.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, also for a deleted one.
        """
        self._move(experiment_id, LifecycleStage.ACTIVE, LifecycleStage.DELETED)

    def restore_experiment(self, experiment_id: str) -> None:
        """Make a deleted experiment and all its runs active.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, also for an active one.
        """
        self._move(experiment_id, LifecycleStage.DELETED, LifecycleStage.ACTIVE)

    def set_experiment_tag(self, experiment_id: str, tag: ExperimentTag) -> None:
        """Set a tag of an active experiment.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad tag or a deleted experiment;
                `RESOURCE_DOES_NOT_EXIST`.
        """
        validation._validate_experiment_tag(tag.key, tag.value)

        def tagged(source: Source) -> Source:
            _check_active(source)
            return {**source, "t": {**source["t"], tag.key: tag.value}}

        self._change_experiment(self._numeric_id(experiment_id), tagged)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """Remove a tag of an active experiment.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such experiment or tag; `INVALID_PARAMETER_VALUE` for
                a deleted experiment.
        """

        def without(source: Source) -> Source:
            _check_active(source)
            if key not in source["t"]:
                raise mlflow_error(
                    f"No tag with name: {key} in experiment with id {experiment_id}.", "RESOURCE_DOES_NOT_EXIST"
                )
            return {**source, "t": {name: value for name, value in source["t"].items() if name != key}}

        self._change_experiment(self._numeric_id(experiment_id), without)

    def _active_experiment(self, experiment_id: str) -> Source:
        """The source of an active experiment.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for a deleted one.
        """
        source = self._experiment_source(experiment_id)
        _check_active(source)
        return source

    def _experiment_source(self, experiment_id: str) -> Source:
        """The source of an experiment, active or deleted, by a real-time read.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `INVALID_PARAMETER_VALUE` for an id that is no number.
        """
        own_id = self._numeric_id(experiment_id)
        found = self.docs.get(EXPERIMENTS, own_id)
        if found is None:
            raise _no_experiment(own_id)
        return found.source

    def _in_stage(self, experiment_id: str, stage: str) -> Source:
        source = self._experiment_source(experiment_id)
        if source["lifecycle_stage"] != stage:
            raise _no_experiment(source["experiment_id"])
        return source

    def _numeric_id(self, experiment_id: str | int | None) -> str:
        self._ensure_default_experiment()
        try:
            return str(int(experiment_id))  # type: ignore[arg-type] # None is refused below
        except (ValueError, TypeError):
            raise mlflow_error(
                f"Invalid experiment ID '{experiment_id}'. Experiment ID must be a valid integer."
            ) from None

    def _change_experiment(self, experiment_id: str, change: Callable[[Source], Source | None]) -> Document:
        return self.docs.update(
            EXPERIMENTS,
            experiment_id,
            lambda source: None if (after := change(source)) is None else experiment_document(after),
            lambda: _no_experiment(experiment_id),
        )

    def _move(self, experiment_id: str, before: str, after: str) -> None:
        """From one stage to the other, runs first: after a crash in between a repetition ends it."""
        own_id = self._in_stage(experiment_id, before)["experiment_id"]
        self._move_runs(own_id, after)

        def moved(source: Source) -> Source:
            return {**source, "lifecycle_stage": after, "last_update_time": now_ms()}

        self._change_experiment(own_id, moved)

    def _ensure_default_experiment(self) -> None:
        """Make the experiment "0" where it is missing; asked once by each store."""
        if self._has_default:
            return
        if self.docs.get(EXPERIMENTS, DEFAULT_EXPERIMENT_ID) is None:
            name = Experiment.DEFAULT_EXPERIMENT_NAME
            if claim(self.docs, KIND, name, DEFAULT_EXPERIMENT_ID, lambda owner: self._has_name(owner, name)) is None:
                self._create(DEFAULT_EXPERIMENT_ID, name, None, {})
        self._has_default = True

    def _create(self, experiment_id: str, name: str, location: str | None, tags: dict[str, str]) -> None:
        now = now_ms()
        source = {
            "experiment_id": experiment_id,
            "number": int(experiment_id),
            "name": name,
            "artifact_location": location or append_to_uri_path(self.artifact_root_uri, experiment_id),
            "lifecycle_stage": LifecycleStage.ACTIVE,
            "creation_time": now,
            "last_update_time": now,
            "t": tags,
        }
        try:
            self.docs.create(EXPERIMENTS, experiment_id, experiment_document(source))
        except Conflict:
            if experiment_id != DEFAULT_EXPERIMENT_ID:  # which several processes may make at once
                raise

    def _claim(self, name: str, experiment_id: str) -> None:
        if claim(self.docs, KIND, name, experiment_id, lambda owner: self._has_name(owner, name)) is not None:
            raise mlflow_error(
                f"Experiment(name={name}) already exists, active or deleted. Choose another name.",
                "RESOURCE_ALREADY_EXISTS",
            )

    def _has_name(self, experiment_id: str, name: str) -> bool:
        found = self.docs.get(EXPERIMENTS, experiment_id)
        return found is not None and found.source["name"] == name


def experiment_document(source: Source) -> Source:
    """The source with the fields that searches need (`indices.EXPERIMENTS`)."""
    return {**source, **text_fields("tag", source["t"])}


def experiment_entity(source: Source) -> Experiment:
    """The `Experiment`."""
    tags = [ExperimentTag(key, value) for key, value in source["t"].items()]
    return Experiment(
        experiment_id=source["experiment_id"],
        name=source["name"],
        artifact_location=source["artifact_location"],
        lifecycle_stage=source["lifecycle_stage"],
        tags=tags,
        creation_time=source["creation_time"],
        last_update_time=source["last_update_time"],
        **_workspace(),
    )


@lru_cache(maxsize=1)
def _workspace() -> dict[str, Any]:
    """Where this MLflow has workspaces, all that this store keeps is in the default one."""
    name = optional_attribute("mlflow.utils.workspace_utils", "DEFAULT_WORKSPACE_NAME")
    return supported_kwargs(Experiment, {"workspace": name}) if name else {}


def _check_active(source: Source) -> None:
    stage = source["lifecycle_stage"]
    if stage != LifecycleStage.ACTIVE:
        raise mlflow_error(
            f"The experiment {source['experiment_id']} must be in the 'active' state. Current state is {stage}. "
            "Restore it first."
        )


def _check_location_length(location: str) -> None:
    check: Any = optional_attribute("mlflow.utils.validation", "_validate_experiment_artifact_location_length")
    if check is not None:
        check(location)


def _no_experiment(experiment_id: str) -> Exception:
    return mlflow_error(f"No Experiment with id={experiment_id} exists.", "RESOURCE_DOES_NOT_EXIST")
