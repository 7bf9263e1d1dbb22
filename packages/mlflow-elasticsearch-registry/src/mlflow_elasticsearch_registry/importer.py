"""The import of the registry: models, prompts, versions with stages, aliases and tags, webhooks."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.exceptions import MlflowException
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from mlflow_elasticsearch_registry.base import KIND
from mlflow_elasticsearch_registry.ciphers import encrypt
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS, WEBHOOKS
from mlflow_elasticsearch_registry.records import (
    Source,
    is_prompt,
    model_document,
    version_document,
    version_id,
)
from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Documents, bulk
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import ImportSource, all_pages, page_of, paged
from mlflow_plugkit_elasticsearch.names import KEYS, claim
from mlflow_plugkit_elasticsearch.queries import all_of, none_of, term, terms

_PAGE, _VERSIONS_PAGE = 200, 1_000
#: MLflow leaves prompts out of a search that does not ask for them.
_PROMPTS = f"tags.`{IS_PROMPT_TAG_KEY}` = 'true'"
_KINDS = (("registered models", None), ("prompts", _PROMPTS))
_NAMESPACE = uuid.UUID("6f1d2a1e-6a3c-5a52-9d5c-0a4f5f3b7f10")
_DELETED = STAGE_DELETED_INTERNAL
Page = tuple[Sequence[Any], str | None]


class RegistryImporter:
    """Copies what a registry holds.

    Args:
        source: to read from.
        target_uri: the store to fill.
        documents: of that store.
    """

    def __init__(self, source: ImportSource, target_uri: str, documents: Documents) -> None:
        self._source, self._docs = source, documents
        self._store = ElasticsearchRegistryStore(target_uri)

    def clashes(self) -> Iterator[str]:
        """Models of the target that have a name of the source's."""
        for _, wanted in _KINDS:
            models = all_pages(lambda token, wanted=wanted: self._read_models(wanted, token))  # type: ignore[misc]
            while some := list(islice(models, _PAGE)):
                owners = self._docs.get_many(KEYS, [document_id(KIND, model.name) for model in some])
                for found in owners.values():
                    yield f"It has a registered model {found.source['name']!r}."

    def notes(self) -> Iterator[str]:
        """See `Importer`."""
        if not self._source.is_database:
            yield (
                "A server does not tell secrets of webhooks: give those that have one their secret anew before they "
                "are used. Nor does it tell the numbers of deleted versions, which may be given again."
            )

    def parts(self) -> Iterator[Part]:
        """See `Importer`."""
        for name, wanted in _KINDS:
            yield self._models_part(name, wanted)
        for name, wanted in _KINDS:
            yield self._versions_part(f"versions of {name}", wanted)
        if self._source.is_database:
            yield self._deleted_part()
        yield Part(
            "webhooks",
            self._webhooks_of_database if self._source.is_database else self._webhooks_of_server,
            self._write_webhooks,
            self._count_webhooks,
            lambda webhook: str(webhook["webhook_id"]),
            self._webhook_sides,
        )

    # Models and prompts.

    def _models_part(self, name: str, wanted: str | None) -> Part:
        flag = wanted is not None
        return Part(
            name,
            lambda token: self._read_models(wanted, token),
            lambda models: self._write_models(models, is_prompt_kind=flag),
            lambda: self._count_models(wanted),
            lambda model: str(model.name),
            lambda model: (
                _told_model(self._source.registry.get_registered_model(model.name)),
                _told_model(_found(lambda: self._store.get_registered_model(model.name))),
            ),
        )

    def _read_models(self, wanted: str | None, token: str | None) -> Page:
        return paged(
            self._source.registry.search_registered_models(
                filter_string=wanted, max_results=_PAGE, order_by=["name ASC"], page_token=token
            )
        )

    def _count_models(self, wanted: str | None) -> int:
        return sum(len(self._docs.get_many(REGISTERED_MODELS, ids)) for ids in self._model_ids(wanted))

    def _model_ids(self, wanted: str | None) -> Iterator[list[str]]:
        """The ids of the source's models, some at a time: others may share the prefix."""
        models = all_pages(lambda token: self._read_models(wanted, token))
        while some := list(islice(models, _PAGE)):
            yield [_model_id(model.name) for model in some]

    def _count_versions(self, wanted: str | None, condition: Any) -> int:
        chunks = self._model_ids(wanted)
        return sum(self._docs.count(MODEL_VERSIONS, all_of([terms("model_id", ids), condition])) for ids in chunks)

    def _write_models(self, models: Sequence[Any], *, is_prompt_kind: bool) -> None:
        if not models:
            return
        deleted = self._highest_deleted([model.name for model in models])
        for model in models:
            self._claim(model.name)
        sources = [_model(model, deleted.get(model.name, 0), has_prompts=is_prompt_kind) for model in models]
        bulk(self._docs, [Action("index", REGISTERED_MODELS, s["model_id"], model_document(s)) for s in sources])

    def _claim(self, name: str) -> None:
        owner = claim(self._docs, KIND, name, _model_id(name), lambda other: self._store._lives_as(other, name))
        if owner is not None:
            raise mlflow_error(
                f"The target has another registered model {name!r}. Rename one of them, and run the command again.",
                "RESOURCE_ALREADY_EXISTS",
            )

    def _highest_deleted(self, names: list[str]) -> dict[str, int]:
        """The highest number of a deleted version, which must not be given again, by name."""
        highest: dict[str, int] = {}
        if self._source.is_database:
            where = {"name": names, "current_stage": _DELETED}
            for name, version in self._source.rows("model_versions", ["name", "version"], where):
                highest[name] = max(version, highest.get(name, 0))
        return highest

    # Versions.

    def _versions_part(self, name: str, wanted: str | None) -> Part:
        flag = wanted is not None
        live = none_of([term("stage", _DELETED)])
        registry, store = self._source.registry, self._store
        return Part(
            name,
            lambda token: self._read_versions(wanted, token),
            lambda versions: self._write_versions(versions, flag=flag),
            lambda: self._count_versions(wanted, live),
            lambda version: f"{version.name} {version.version}",
            lambda version: (
                _told_version(registry, version),
                _found(lambda: _told_version(store, version)),
            ),
        )

    def _read_versions(self, wanted: str | None, token: str | None) -> Page:
        return paged(
            self._source.registry.search_model_versions(
                filter_string=wanted,
                max_results=_VERSIONS_PAGE,
                order_by=["name ASC", "version_number ASC"],
                page_token=token,
            )
        )

    def _write_versions(self, versions: Sequence[Any], *, flag: bool) -> None:
        if not versions:
            return
        locations = self._locations(versions)
        sources = [_version(one, locations.get((one.name, int(one.version))), flag=flag) for one in versions]
        self._put_versions(sources)

    def _locations(self, versions: Sequence[Any]) -> dict[tuple[str, int], str]:
        """Where the files are of versions whose source is a model's URI; all others' source says it."""
        indirect = [one for one in versions if (one.source or "").startswith("models:")]
        if not self._source.is_database:
            uri_of = self._source.registry.get_model_version_download_uri
            return {(one.name, int(one.version)): uri_of(one.name, one.version) for one in indirect}
        where = {"name": sorted({v.name for v in indirect}), "version": sorted({int(v.version) for v in indirect})}
        rows = self._source.rows("model_versions", ["name", "version", "storage_location"], where) if indirect else ()
        return {(name, version): location for name, version, location in rows if location}

    def _deleted_part(self) -> Part:
        columns = ["name", "version", "creation_time", "last_updated_time", "storage_location"]

        def read(_: str | None) -> Page:
            rows = self._source.rows("model_versions", columns, {"current_stage": _DELETED}, ["name", "version"])
            return list(rows), None

        def sides(row: Any) -> tuple[Any, Any]:
            found = self._docs.get(MODEL_VERSIONS, version_id(_model_id(row[0]), row[1]))
            return _DELETED, found.source["stage"] if found else None

        return Part(
            "deleted versions",
            read,
            lambda rows: self._put_versions([_deleted_version(row) for row in rows]),
            lambda: sum(self._count_versions(wanted, term("stage", _DELETED)) for _, wanted in _KINDS),
            lambda row: f"{row[0]} {row[1]}",
            sides,
        )

    def _put_versions(self, sources: Sequence[Source]) -> None:
        actions = [
            Action("index", MODEL_VERSIONS, version_id(s["model_id"], s["version"]), version_document(s))
            for s in sources
        ]
        if actions:
            bulk(self._docs, actions)

    # Webhooks, as the sources of their documents.

    def _webhooks_of_server(self, token: str | None) -> Page:
        webhooks, following = page_of(lambda: self._source.registry.list_webhooks(_PAGE, token))
        return [_webhook(one) for one in webhooks], following

    def _webhooks_of_database(self, _: str | None) -> Page:
        """With their secrets, which are copied as they are: encrypted with the key of MLflow's own setting."""
        columns = ["webhook_id", "name", "url", "description", "secret", "status"]
        times = ["creation_timestamp", "last_updated_timestamp"]
        found: dict[str, Source] = {}
        for *values, created, updated in self._source.rows(
            "webhooks", [*columns, *times], {"deleted_timestamp": None}, ["creation_timestamp", "webhook_id"]
        ):
            source: Source = dict(zip(columns, values, strict=True))
            found[source["webhook_id"]] = source | {
                "events": [],
                "creation_time": created,
                "last_updated_time": updated,
            }
        events = ["webhook_id", "entity", "action"]
        for webhook_id, entity, action in self._source.rows("webhook_events", events, {}, events) if found else ():
            if webhook_id in found:
                found[webhook_id]["events"].append(_event(entity, action))
        return list(found.values()), None

    def _count_webhooks(self) -> int:
        read = self._webhooks_of_database if self._source.is_database else self._webhooks_of_server
        ids = [webhook["webhook_id"] for webhook in all_pages(read)]
        return len(self._docs.get_many(WEBHOOKS, ids)) if ids else 0

    def _write_webhooks(self, webhooks: Sequence[Source]) -> None:
        if webhooks:
            bulk(self._docs, [Action("index", WEBHOOKS, one["webhook_id"], one) for one in webhooks])

    def _webhook_sides(self, webhook: Source) -> tuple[Any, Any]:
        found = self._docs.get(WEBHOOKS, webhook["webhook_id"])
        shown = [name for name in webhook if name != "secret"]
        return {n: webhook[n] for n in shown}, {n: found.source.get(n) for n in shown} if found else None


def _model_id(name: str) -> str:
    """The id of a model: the same at each import."""
    return uuid.uuid5(_NAMESPACE, name).hex


def _model(model: Any, highest_deleted: int, *, has_prompts: bool) -> Source:
    latest = {one.current_stage: int(one.version) for one in model.latest_versions or ()}
    source: Source = {
        "model_id": _model_id(model.name),
        "name": model.name,
        "description": model.description or None,
        "creation_time": model.creation_timestamp,
        "last_updated_time": model.last_updated_timestamp,
        "tags": dict(model._tags),  # the property leaves out what makes it a prompt
        "aliases": {alias: int(version) for alias, version in (model.aliases or {}).items()},
        "last_version": max([*latest.values(), highest_deleted]),
        "latest": latest,
    }
    return source | {"has_prompts": True} if has_prompts and latest else source


def _version(version: Any, location: str | None, *, flag: bool) -> Source:
    tags = dict(version.tags or {})
    return {
        "model_id": _model_id(version.name),
        "name": version.name,
        "version": int(version.version),
        "is_prompt": flag or is_prompt(tags),
        "stage": version.current_stage,
        "source": version.source,
        "storage_location": location or version.source,
        "run_id": version.run_id,
        "run_link": version.run_link,
        "description": version.description,
        "creation_time": version.creation_timestamp,
        "last_updated_time": version.last_updated_timestamp,
        "tags": tags,
    }


def _deleted_version(row: Sequence[Any]) -> Source:
    """What keeps the number of a deleted version taken; see `delete_model_version`."""
    name, version, created, updated, location = row
    return {
        "model_id": _model_id(name),
        "name": name,
        "version": version,
        "is_prompt": False,
        "stage": _DELETED,
        "source": "REDACTED-SOURCE-PATH",
        "storage_location": location,
        "run_id": "REDACTED-RUN-ID",
        "run_link": "REDACTED-RUN-LINK",
        "description": None,
        "creation_time": created,
        "last_updated_time": updated,
        "tags": {},
    }


def _webhook(webhook: Any) -> Source:
    secret = webhook.secret
    return {
        "webhook_id": webhook.webhook_id,
        "name": webhook.name,
        "url": webhook.url,
        "description": webhook.description or None,
        "secret": encrypt(secret) if secret else None,
        "status": webhook.status.value,
        "events": [str(event) for event in webhook.events],
        "creation_time": webhook.creation_timestamp,
        "last_updated_time": webhook.last_updated_timestamp,
    }


def _event(entity: str, action: str) -> str:
    return f"{getattr(entity, 'value', entity)}.{getattr(action, 'value', action)}"


def _found(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _told_model(model: Any) -> Any:
    told = plain(model)
    if told is not None:
        told["latest_version"] = sorted(
            ((one["current_stage"], int(one["version"])) for one in told.get("latest_version", ())),
        )
    return told


def _told_version(store: Any, version: Any) -> Any:
    found = store.get_model_version(version.name, version.version)
    told = plain(found)
    told["version"] = int(found.version)
    told["aliases"] = sorted(found.aliases or ())
    told["files"] = store.get_model_version_download_uri(version.name, version.version)
    return told
