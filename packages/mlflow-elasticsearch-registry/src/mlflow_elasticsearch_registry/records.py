"""What the registry's documents hold, and the entities that MLflow makes of them.

A registered model: model_id, name, description, creation_time, last_updated_time, tags {key: value}, aliases {alias:
version}, last_version (the highest number given), latest {stage: version}, has_prompts (one of its versions is a
prompt's), is_deleted (its deletion has begun), renaming {from: [names], at: ms} (its versions still get the new name).

A version: model_id, version, name, stage, source, storage_location, run_id, run_link, description, creation_time,
last_updated_time, named_at (when it got its name), is_prompt (it belongs to a model with `has_prompts`), tags.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mlflow.entities.model_registry import (
    ModelVersion,
    ModelVersionTag,
    RegisteredModel,
    RegisteredModelAlias,
    RegisteredModelTag,
)
from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from mlflow_plugkit_elasticsearch.encode import bounded, token

Source = dict[str, Any]
READY = "READY"


def model_document(source: Source) -> Source:
    """The document of a registered model: its source and the fields that are derived from it."""
    return source | {"name_term": bounded(source["name"]), **_tag_fields(source["tags"])}


def version_document(source: Source) -> Source:
    """The document of a version: its source and the fields that are derived from it."""
    derived: Source = {"name_term": bounded(source["name"]), **_tag_fields(source["tags"])}
    for field, key in (("run_term", "run_id"), ("source_term", "source")):
        if source.get(key) is not None:
            derived[field] = bounded(source[key])
    return source | derived


def _tag_fields(tags: Mapping[str, str | None]) -> Source:
    """The terms by which tags are found: a tag without a value has none, and equals nothing, as NULL in SQL.

    `cut_tags` are the keys of values too long for a term: a pattern has to look at those values themselves.
    """
    values = [(key, value) for key, value in tags.items() if value is not None]
    return {
        "tag_tokens": [token(key, value) for key, value in values],
        "cut_tags": [key for key, value in values if bounded(value) != value],
    }


def version_id(model_id: str, version: int) -> str:
    """The document id of a version."""
    return f"{model_id}:{version}"


def is_live(source: Source) -> bool:
    """Whether a version has not been deleted; the document of a deleted one keeps its number taken."""
    return bool(source["stage"] != STAGE_DELETED_INTERNAL)


def is_prompt(tags: Mapping[str, str | None]) -> bool:
    """Whether the tags are those of a prompt or of a version of one, as MLflow's SQL store asks it."""
    return tags.get(IS_PROMPT_TAG_KEY) == "true"


def registered_model(source: Source, latest: Iterable[Source]) -> RegisteredModel:
    """MLflow's entity; `latest` are the sources of its latest versions."""
    return RegisteredModel(
        source["name"],
        source["creation_time"],
        source["last_updated_time"],
        source["description"],
        [model_version(one, source["name"]) for one in latest],
        [RegisteredModelTag(key, value) for key, value in source["tags"].items()],
        [RegisteredModelAlias(alias, version) for alias, version in sorted(source["aliases"].items())],
    )


def model_version(source: Source, name: str, aliases: Mapping[str, int] | None = None) -> ModelVersion:
    """MLflow's entity.

    Args:
        source: the version.
        name: the name of its model, which a version follows a moment later.
        aliases: all aliases of its model; without them the entity has none.
    """
    version = source["version"]
    return ModelVersion(
        name,
        version,
        source["creation_time"],
        source["last_updated_time"],
        source["description"],
        None,
        source["stage"],
        source["source"],
        source["run_id"],
        READY,
        None,
        [ModelVersionTag(key, value) for key, value in source["tags"].items()],
        source["run_link"],
        sorted(alias for alias, number in (aliases or {}).items() if number == version),
    )


def without_tag(source: Source, key: str) -> Source | None:
    """The source without a tag, or None where it has none of that key."""
    if key not in source["tags"]:
        return None
    return source | {"tags": {k: v for k, v in source["tags"].items() if k != key}}
