"""Registered models: create, read, describe, tag, rename and delete.

Writes stand in the order in which a crash between them harms nobody: the name is claimed before the model is
written, a renamed model lists its old names until its versions have followed, and a model is marked as deleted
before its versions go. Whoever meets a model in between finishes what was begun.
"""

from __future__ import annotations

import time
import uuid
from typing import Any

from mlflow.entities.model_registry import RegisteredModel
from mlflow.exceptions import MlflowException
from mlflow.prompt.registry_utils import handle_resource_already_exist_error, has_prompt_tag
from mlflow.utils.validation import (
    _validate_model_name,
    _validate_model_renaming,
    _validate_registered_model_tag,
    _validate_tag_name,
)

from mlflow_elasticsearch_registry.base import KIND, StaleName, missing_model, now_ms
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS
from mlflow_elasticsearch_registry.latest import LatestVersions
from mlflow_elasticsearch_registry.records import Source, model_document, registered_model, without_tag
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document, names
from mlflow_plugkit_elasticsearch.names import ABANDONED_AFTER
from mlflow_plugkit_elasticsearch.queries import term


class RegisteredModels(LatestVersions):
    """Create, read, change, rename and delete registered models."""

    def create_registered_model(
        self, name: str, tags: Any = None, description: str | None = None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Create a registered model; `deployment_job_id` is Databricks' and is not kept, as in MLflow's SQL store."""
        _validate_model_name(name)
        for tag in tags or []:
            _validate_registered_model_tag(tag.key, tag.value)
        model_id = uuid.uuid4().hex
        holder = self._claim(name, model_id)
        if holder is not None:
            taken_by = self.docs.get(REGISTERED_MODELS, holder)
            handle_resource_already_exist_error(
                name, has_prompt_tag(taken_by.source["tags"] if taken_by else None), has_prompt_tag(tags)
            )
        at = now_ms()
        source: Source = {
            "model_id": model_id,
            "name": name,
            "description": description,
            "creation_time": at,
            "last_updated_time": at,
            "tags": {tag.key: tag.value for tag in tags or []},
            "aliases": {},
            "last_version": 0,
            "latest": {},
        }
        try:
            self.docs.create(REGISTERED_MODELS, model_id, model_document(source))
        except MlflowException as exc:
            # Anything else may have been carried out without an answer; such a claim counts as abandoned soon.
            if exc.error_code == "INVALID_PARAMETER_VALUE":
                names.release(self.docs, KIND, name, model_id)
            raise
        self._ids[name] = model_id
        return registered_model(source, ())

    def get_registered_model(self, name: str) -> RegisteredModel:
        """The registered model with its latest version of each stage."""
        source, latest = self._with_latest([self._mended(self._model(name)).source])[0]
        return registered_model(source, latest)

    def update_registered_model(
        self, name: str, description: str | None, deployment_job_id: str | None = None
    ) -> RegisteredModel:
        """Describe a registered model."""
        changed = self._change_model(
            name, lambda source: source | {"description": description, "last_updated_time": now_ms()}
        )
        source, latest = self._with_latest([changed.source])[0]
        return registered_model(source, latest)

    def set_registered_model_tag(self, name: str, tag: Any) -> None:
        """Set a tag, or overwrite it."""
        _validate_model_name(name)
        _validate_registered_model_tag(tag.key, tag.value)
        self._change_model(name, lambda source: source | {"tags": source["tags"] | {tag.key: tag.value}})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        """Delete a tag, if it is there."""
        _validate_model_name(name)
        _validate_tag_name(key)

        self._change_model(name, lambda source: without_tag(source, key))

    def rename_registered_model(self, name: str, new_name: str) -> RegisteredModel:
        """Rename a registered model; its versions, tags and aliases follow.

        By name, the versions follow in the same moment; searches may find some of them under the old name until
        this call returns.

        Raises:
            MlflowException: `RESOURCE_ALREADY_EXISTS` for a name that another model has.
        """
        _validate_model_renaming(new_name)
        model = self._mended(self._model(name), at_once=True)
        if self._claim(new_name, model.id) is not None:
            raise mlflow_error(f"Registered Model (name={new_name}) already exists.", "RESOURCE_ALREADY_EXISTS")
        renaming = {"from": [] if name == new_name else [name], "at": now_ms()}
        new = {"name": new_name, "last_updated_time": renaming["at"], "renaming": renaming}
        changed = self._change_model(name, lambda source: source | new)
        self._ids[new_name] = model.id
        changed = self._finish_renaming(changed)
        source, latest = self._with_latest([changed.source])[0]
        return registered_model(source, latest)

    def delete_registered_model(self, name: str) -> None:
        """Delete a registered model with all of its versions."""
        self._finish_deletion(self._change_model(name, lambda source: source | {"is_deleted": True}))

    # Finishing what was begun.

    def _claim(self, name: str, model_id: str) -> str | None:
        """Claim the name for a model; None, or the id of the model that has it."""
        for _ in range(10):
            holder = names.claim(self.docs, KIND, name, model_id, lambda other: self._lives_as(other, name))
            found = None if holder is None else self.docs.get(REGISTERED_MODELS, holder)
            if found is None or not found.source.get("is_deleted"):
                return holder
            self._finish_deletion(found)
        return holder

    def _lives_as(self, model_id: str, name: str) -> bool:
        found = self.docs.get(REGISTERED_MODELS, model_id)
        return found is not None and found.source["name"] == name

    def _mended(self, model: Document, at_once: bool = False) -> Document:
        """The model, after a renaming that its process has left (or, `at_once`, may be at) has been finished."""
        renaming = model.source.get("renaming")
        if renaming is None or (not at_once and time.time() - renaming["at"] / 1000 < ABANDONED_AFTER):
            return model
        return self._finish_renaming(model)

    def _finish_renaming(self, model: Document) -> Document:
        """Let the versions follow, give the old names back, and forget the renaming. May be repeated."""
        name, renaming = model.source["name"], model.source["renaming"]
        new = {"name": name, "named_at": renaming["at"], "last_updated_time": renaming["at"]}
        self._change_versions(
            model.id, lambda source: None if source.get("named_at", 0) >= renaming["at"] else source | new
        )
        for old in renaming["from"]:
            self._ids.pop(old, None)
            names.release(self.docs, KIND, old, model.id)

        def forget(source: Source) -> Source | None:
            if source.get("renaming") != renaming:
                return None
            return model_document({key: value for key, value in source.items() if key != "renaming"})

        try:
            return self.docs.update(REGISTERED_MODELS, model.id, forget, StaleName)
        except StaleName:
            raise missing_model(name) from None

    def _finish_deletion(self, model: Document) -> None:
        """Remove what is left of a model that is marked as deleted. May be repeated."""
        self.docs.written(MODEL_VERSIONS)
        self.docs.delete_where(MODEL_VERSIONS, term("model_id", model.id), "version")
        held = [model.source["name"], *model.source.get("renaming", {}).get("from", ())]
        for name in held:
            self._ids.pop(name, None)
            names.release(self.docs, KIND, name, model.id)
        try:
            self.docs.delete(REGISTERED_MODELS, model.id)
        except Conflict:
            return
