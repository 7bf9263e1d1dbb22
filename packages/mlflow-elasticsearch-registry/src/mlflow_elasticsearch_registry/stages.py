"""Stages and aliases of versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.entities.model_registry import ModelVersion
from mlflow.entities.model_registry.model_version_stages import (
    ALL_STAGES,
    DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS,
    STAGE_ARCHIVED,
    get_canonical_stage,
)
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import (
    _validate_model_alias_name,
    _validate_model_alias_name_reserved,
    _validate_model_name,
)

from mlflow_elasticsearch_registry.base import missing_version, now_ms, version_number
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS
from mlflow_elasticsearch_registry.latest import LatestVersions
from mlflow_elasticsearch_registry.records import Source, is_live, model_version, version_id
from mlflow_plugkit.compat import tells_missing_models_by_alias
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.queries import none_of, term

LATEST = "latest"


class StagesAndAliases(LatestVersions):
    """Move versions between stages, and point aliases to them."""

    def transition_model_version_stage(
        self, name: str, version: Any, stage: str, archive_existing_versions: bool
    ) -> ModelVersion:
        """Move a version to a stage, and on request the others of that stage to the archive."""
        wanted = get_canonical_stage(stage)
        if archive_existing_versions and wanted not in DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS:
            raise mlflow_error(
                f"Model version transition cannot archive existing model versions because {stage!r} is not an active "
                f"stage. Valid stages are {DEFAULT_STAGES_FOR_GET_LATEST_VERSIONS}."
            )
        at = now_ms()
        moved = {"stage": wanted, "last_updated_time": at}
        model, found = self._change_version(name, version, lambda source: source | moved)
        if archive_existing_versions:
            archived = {"stage": STAGE_ARCHIVED, "last_updated_time": at}
            self._change_versions(
                model.id,
                lambda source: source | archived if source["stage"] == wanted else None,
                term("stage", wanted),
                none_of([term("version", found.source["version"])]),
            )
        model = self._change_model(
            name, lambda s: s | {"latest": self._latest_numbers(s["model_id"]), "last_updated_time": at}
        )
        return model_version(found.source, name, model.source["aliases"])

    def get_latest_versions(self, name: str, stages: Sequence[str] | None = None) -> list[ModelVersion]:
        """The latest version of each of the stages, or of all."""
        model, latest = self._with_latest([self._model(name).source])[0]
        wanted = {get_canonical_stage(stage) for stage in stages or ALL_STAGES}
        return [model_version(v, name, model["aliases"]) for v in latest if v["stage"] in wanted]

    def set_registered_model_alias(self, name: str, alias: str, version: Any) -> None:
        """Point an alias to a version, also one that points to another."""
        _validate_model_name(name)
        _validate_model_alias_name(alias)
        _validate_model_alias_name_reserved(alias)
        number = version_number(version)
        self._version(name, number)

        def change(source: Source) -> Source:
            # Asked in here, so that no alias is left behind by a deletion at the same moment: that one changes the
            # model's document after the version's.
            found = self.docs.get(MODEL_VERSIONS, version_id(source["model_id"], number))
            if found is None or not is_live(found.source):
                raise missing_version(name, number)
            return source | {"aliases": source["aliases"] | {alias: number}}

        self._change_model(name, change)

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        """Delete an alias, if it is there."""
        _validate_model_name(name)
        _validate_model_alias_name(alias)

        def change(source: Source) -> Source | None:
            if alias not in source["aliases"]:
                return None
            return source | {"aliases": {a: n for a, n in source["aliases"].items() if a != alias}}

        self._change_model(name, change)

    def get_model_version_by_alias(self, name: str, alias: str) -> ModelVersion:
        """The version that an alias points to; `latest` is the one with the highest number."""
        _validate_model_name(name)
        _validate_model_alias_name(alias)
        if alias.lower() == LATEST:
            versions = self.get_latest_versions(name)
            if not versions:
                raise mlflow_error(f"Latest version not found for model {name}.", "RESOURCE_DOES_NOT_EXIST")
            return max(versions, key=lambda version: int(version.version))
        try:
            model = self._model(name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST" or tells_missing_models_by_alias():
                raise
            raise _missing_alias(alias) from None
        number = model.source["aliases"].get(alias)
        found = None if number is None else self.docs.get(MODEL_VERSIONS, version_id(model.id, number))
        if found is None or not is_live(found.source):
            if number is not None:
                self._recomputed(model.source)
            raise _missing_alias(alias)
        return model_version(found.source, name, model.source["aliases"])


def _missing_alias(alias: str) -> Exception:
    return mlflow_error(f"Registered model alias {alias} not found.")
