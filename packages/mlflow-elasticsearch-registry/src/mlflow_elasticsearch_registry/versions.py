"""Model versions: number, read, describe, tag and delete."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlparse

from mlflow.entities.model_registry import ModelVersion
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL, STAGE_NONE
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY
from mlflow.utils.validation import _validate_model_name, _validate_model_version_tag, _validate_tag_name

from mlflow_elasticsearch_registry.base import missing_model, named, now_ms
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS
from mlflow_elasticsearch_registry.latest import LatestVersions
from mlflow_elasticsearch_registry.records import (
    Source,
    is_prompt,
    model_document,
    model_version,
    version_document,
    version_id,
    without_tag,
)
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document
from mlflow_plugkit_elasticsearch.documents import busy, pause

_ATTEMPTS = 1_000


class ModelVersions(LatestVersions):
    """Create, read, change and delete versions."""

    def create_model_version(
        self,
        name: str,
        source: str,
        run_id: str | None = None,
        tags: Any = None,
        run_link: str | None = None,
        description: str | None = None,
        local_model_path: str | None = None,
        model_id: str | None = None,
    ) -> ModelVersion:
        """Create the next version.

        The document of a version is made only where there is none of its number, so that two processes never get
        the same one and no number is left out; a deleted version keeps its document, and so its number.
        """
        _validate_model_name(name)
        for tag in tags or []:
            _validate_model_version_tag(tag.key, tag.value)
        storage_location, run_id = self._origin(source, run_id, model_id)
        at = now_ms()
        version: Source = {
            "stage": STAGE_NONE,
            "source": source,
            "storage_location": storage_location,
            "run_id": run_id,
            "run_link": run_link,
            "description": description,
            "creation_time": at,
            "last_updated_time": at,
            "tags": {tag.key: tag.value for tag in tags or []},
        }
        model, version, needs_settling = self._append(name, version)
        if needs_settling:
            self._settle_prompts(model.id)
        return model_version(version, model.source["name"], model.source["aliases"])

    def _append(self, name: str, version: Source) -> tuple[Document, Source, bool]:
        """Write the version under the next free number, then the number into the model's document.

        Returns:
            The model, the version, and whether this one and the others disagree about being a prompt's.
        """
        # Resolved first: the lock is held over the numbering alone.
        model_id = self._model(name).id
        with self.docs.turn(REGISTERED_MODELS, model_id):
            model = self._found(
                name, lambda: missing_model(name), lambda i: named(self.docs.get(REGISTERED_MODELS, i), name)
            )
            own = is_prompt(version["tags"])
            first = {"model_id": model.id, "name": name, "is_prompt": own or model.source.get("has_prompts", False)}
            number = int(model.source["last_version"])
            for _ in range(_ATTEMPTS):
                number += 1
                made = version | first | {"version": number}
                try:
                    self.docs.create(MODEL_VERSIONS, version_id(model.id, number), version_document(made))
                    break
                except Conflict:
                    continue
            else:
                raise busy(REGISTERED_MODELS, name)
            model = self._note(model, made)
        if model.source["name"] != name:
            self._change_one(version_id(model.id, number), lambda s: s | {"name": model.source["name"]})
        return model, made, made["is_prompt"] != model.source.get("has_prompts", False)

    def _note(self, model: Document, version: Source) -> Document:
        """Write the number of a new version into the model's document."""
        number, at = version["version"], version["creation_time"]
        latest: Document | None = model
        for attempt in range(_ATTEMPTS):
            if latest is None or latest.source.get("is_deleted"):
                self.docs.delete(MODEL_VERSIONS, version_id(model.id, number))
                raise missing_model(version["name"])
            source = latest.source
            new = source | {
                "last_version": max(source["last_version"], number),
                "latest": source["latest"] | {STAGE_NONE: max(source["latest"].get(STAGE_NONE, 0), number)},
                "last_updated_time": max(source["last_updated_time"], at),
            }
            try:
                return self.docs.put(REGISTERED_MODELS, model.id, model_document(new), latest)
            except Conflict:
                pause(attempt)
                latest = self.docs.get(REGISTERED_MODELS, model.id)
        raise busy(REGISTERED_MODELS, version["name"])

    def _origin(self, source: str, run_id: str | None, model_id: str | None) -> tuple[str, str | None]:
        """Where the files of a `models:/...` source are, and the run that logged the model."""
        location = source
        if urlparse(source).scheme == "models":
            from mlflow.store.artifact.utils.models import _parse_model_uri

            parsed = _parse_model_uri(source)
            try:
                if parsed.model_id is not None:
                    logged = _logged_model(parsed.model_id)
                    location, run_id = logged.artifact_location, run_id or logged.source_run_id
                else:
                    location = self.get_model_version_download_uri(str(parsed.name), parsed.version)
            except Exception as exc:  # whatever a tracking store raises; MLflow's own store reports it in this way
                raise mlflow_error(
                    f"Unable to fetch the model from its source {source!r}: {exc}", "INTERNAL_ERROR"
                ) from exc
        if not run_id and model_id:
            run_id = _logged_model(model_id).source_run_id
        return location, run_id

    def get_model_version(self, name: str, version: Any) -> ModelVersion:
        """A version with its aliases."""
        model, found = self._version(name, version)
        return model_version(found.source, name, model.source["aliases"])

    def get_model_version_download_uri(self, name: str, version: Any) -> str:
        """Where the files of a version are."""
        source = self._version(name, version)[1].source
        return str(source["storage_location"] or source["source"])

    def update_model_version(self, name: str, version: Any, description: str | None = None) -> ModelVersion:
        """Describe a version."""
        model, found = self._change_version(
            name, version, lambda s: s | {"description": description, "last_updated_time": now_ms()}
        )
        return model_version(found.source, name, model.source["aliases"])

    def set_model_version_tag(self, name: str, version: Any, tag: Any) -> None:
        """Set a tag of a version, or overwrite it."""
        _validate_model_name(name)
        _validate_model_version_tag(tag.key, tag.value)
        model, _ = self._change_version(name, version, lambda s: s | {"tags": s["tags"] | {tag.key: tag.value}})
        if tag.key == IS_PROMPT_TAG_KEY:
            self._settle_prompts(model.id)

    def delete_model_version_tag(self, name: str, version: Any, key: str) -> None:
        """Delete a tag of a version, if it is there."""
        _validate_model_name(name)
        _validate_tag_name(key)

        model, _ = self._change_version(name, version, lambda source: without_tag(source, key))
        if key == IS_PROMPT_TAG_KEY:
            self._settle_prompts(model.id)

    def delete_model_version(self, name: str, version: Any) -> None:
        """Delete a version: its aliases go, what it led to is blanked out, its number and tags stay.

        So does MLflow's SQL store (mlflow.store.model_registry.sqlalchemy_store).
        """
        at = now_ms()
        blank = {
            "stage": STAGE_DELETED_INTERNAL,
            "last_updated_time": at,
            "description": None,
            "source": "REDACTED-SOURCE-PATH",
            "run_id": "REDACTED-RUN-ID",
            "run_link": "REDACTED-RUN-LINK",
        }
        _, found = self._change_version(name, version, lambda source: source | blank)
        number = found.source["version"]

        def change(source: Source) -> Source:
            aliases = {alias: n for alias, n in source["aliases"].items() if n != number}
            latest = self._latest_numbers(source["model_id"])
            return source | {"aliases": aliases, "latest": latest, "last_updated_time": at}

        self._change_model(name, change)

    def _await_model_version_creation(self, mv: ModelVersion, await_creation_for: int | None) -> None:
        """Wait for nothing: a version is ready as soon as it is there."""


def _logged_model(model_id: str) -> Any:
    from mlflow.tracking.client import MlflowClient

    return MlflowClient().get_logged_model(model_id)
