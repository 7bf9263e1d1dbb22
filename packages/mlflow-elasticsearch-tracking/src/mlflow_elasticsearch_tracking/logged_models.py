"""Logged models."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS, MODEL_METRICS
from mlflow_elasticsearch_tracking.model_documents import Source, logged_model, model_document
from mlflow_elasticsearch_tracking.model_metrics import no_model
from mlflow_elasticsearch_tracking.model_search import ModelSearch
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Document
from mlflow_plugkit_elasticsearch.queries import all_of, between, term

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, LoggedModelParameter, LoggedModelStatus, LoggedModelTag

MODELS_FOLDER, ARTIFACTS_FOLDER = "models", "artifacts"


class LoggedModels(ModelSearch):
    """Create, read, change, search and delete logged models."""

    if TYPE_CHECKING:  # Experiments has it

        def _active_experiment(self, experiment_id: str) -> Source: ...

    def create_logged_model(
        self,
        experiment_id: str,
        name: str | None = None,
        source_run_id: str | None = None,
        tags: list[LoggedModelTag] | None = None,
        params: list[LoggedModelParameter] | None = None,
        model_type: str | None = None,
    ) -> LoggedModel:
        """Make a pending logged model in an active experiment; without a name it gets one.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad name or a deleted experiment;
                `RESOURCE_DOES_NOT_EXIST` for no such experiment; `BAD_REQUEST` for a tag or param given twice.
        """
        from mlflow.entities import LoggedModelStatus
        from mlflow.utils.name_utils import _generate_random_name
        from mlflow.utils.uri import append_to_uri_path
        from mlflow.utils.validation import _validate_logged_model_name

        _validate_logged_model_name(name)
        experiment = self._active_experiment(experiment_id)
        model_id = f"m-{uuid.uuid4().hex}"
        location = append_to_uri_path(experiment["artifact_location"], MODELS_FOLDER, model_id, ARTIFACTS_FOLDER)
        now = now_ms()
        source = {
            "model_id": model_id,
            "experiment_id": experiment["experiment_id"],
            "name": name or _generate_random_name(),
            "artifact_location": location,
            "creation_timestamp_ms": now,
            "last_updated_timestamp_ms": now,
            "status": str(LoggedModelStatus.PENDING.to_int()),
            "lifecycle_stage": "active",
            "model_type": model_type,
            "source_run_id": source_run_id,
            "status_message": None,
            "t": _added({}, tags or (), "tag"),
            "p": _added({}, params or (), "param"),
        }
        self.docs.create(LOGGED_MODELS, model_id, model_document(source))
        return logged_model(source, None)

    def get_logged_model(self, model_id: str, allow_deleted: bool = False) -> LoggedModel:
        """The model with its tags, params and all its metrics.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`, also for a deleted model unless `allow_deleted`.
        """
        found = self.docs.get(LOGGED_MODELS, model_id)
        if found is None or (found.source["lifecycle_stage"] == "deleted" and not allow_deleted):
            raise no_model(model_id)
        return self._entity(found)

    def finalize_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """Set the model's status, and return the model.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        change = {"status": str(status.to_int()), "last_updated_timestamp_ms": now_ms()}
        return self._entity(self._change_model(model_id, lambda source: source | change))

    def delete_logged_model(self, model_id: str) -> None:
        """Mark the model as deleted; `mlflow gc` deletes it for good.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        change = {"lifecycle_stage": "deleted", "last_updated_timestamp_ms": now_ms()}
        self._change_model(model_id, lambda source: source | change)

    def set_logged_model_tags(self, model_id: str, tags: list[LoggedModelTag]) -> None:
        """Set tags; the last value of a key is the one that counts.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        new = {tag.key: _text("tag", tag.key, tag.value) for tag in tags}
        self._change_model(model_id, lambda source: source | {"t": source["t"] | new})

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """Delete a tag.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such model or tag.
        """

        def change(source: Source) -> Source:
            if key not in source["t"]:
                raise mlflow_error(
                    f"No tag with key {key!r} found for model with ID {model_id!r}.", "RESOURCE_DOES_NOT_EXIST"
                )
            return source | {"t": {name: value for name, value in source["t"].items() if name != key}}

        self._change_model(model_id, change)

    def log_logged_model_params(self, model_id: str, params: list[LoggedModelParameter]) -> None:
        """Add params. MLflow's client and server call it, though `AbstractStore` does not name it.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such model; `BAD_REQUEST` for a param that it has.
        """
        self._change_model(model_id, lambda source: source | {"p": _added(source["p"], params, "param")})

    def _hard_delete_logged_model(self, model_id: str) -> None:
        """Delete a model and its metrics for good: `mlflow gc`.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        if self.docs.get(LOGGED_MODELS, model_id) is None:
            raise no_model(model_id)
        self.docs.refresh(MODEL_METRICS, always=True)
        self.docs.delete_where(MODEL_METRICS, term("model_id", model_id), "block_id")
        self.docs.delete(LOGGED_MODELS, model_id)

    def _get_deleted_logged_models(self, older_than: int = 0) -> list[str]:
        """The ids of the models that were deleted at least `older_than` milliseconds ago: `mlflow gc`."""
        self.docs.refresh(LOGGED_MODELS, always=True)
        before = between("last_updated_timestamp_ms", lte=now_ms() - older_than)
        query = all_of([term("lifecycle_stage", "deleted"), before])
        return [hit.id for hit in self.docs.scan(LOGGED_MODELS, query, "model_id", source=False)]

    def _hard_delete_models_of(self, experiment_id: str) -> None:
        """Delete all models of an experiment that is deleted for good."""
        self.docs.refresh(LOGGED_MODELS, always=True)
        for hit in list(self.docs.scan(LOGGED_MODELS, term("experiment_id", experiment_id), "model_id", source=False)):
            self._hard_delete_logged_model(hit.id)

    def _change_model(self, model_id: str, change: Callable[[Source], Source]) -> Document:
        return self.docs.update(
            LOGGED_MODELS, model_id, lambda source: model_document(change(source)), lambda: no_model(model_id)
        )

    def _entity(self, document: Document) -> LoggedModel:
        return logged_model(document.source, self._metrics_of_models([document.source])[0])


def _added(before: Mapping[str, str], pairs: list[Any] | tuple[Any, ...], kind: str) -> dict[str, str]:
    """Tags or params with some more, none of which may be there."""
    after = dict(before)
    for pair in pairs:
        if pair.key in after:
            raise mlflow_error(f"The model has a {kind} {pair.key!r} already.", "BAD_REQUEST")
        after[pair.key] = _text(kind, pair.key, pair.value)
    return after


def _text(kind: str, key: str, value: Any) -> str:
    if value is None:
        raise mlflow_error(f"The {kind} {key!r} of a model has no value.", "BAD_REQUEST")
    return str(value)
