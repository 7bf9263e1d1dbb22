"""The latest version of each stage, which a model's document keeps, and changes of all versions of a model.

A change of a version comes first, then the model's document is brought up to date from the versions. Where the two
differ, because a process died in between, whoever meets it computes the model's part anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlflow.entities.model_registry.model_version_stages import STAGE_DELETED_INTERNAL
from mlflow.prompt.constants import IS_PROMPT_TAG_KEY

from mlflow_elasticsearch_registry.base import RegistryBase, StaleName
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS
from mlflow_elasticsearch_registry.records import (
    Source,
    is_live,
    model_document,
    version_document,
    version_id,
)
from mlflow_plugkit_elasticsearch import Action, Document, bulk
from mlflow_plugkit_elasticsearch.queries import all_of, key_equals, none_of, term

Change = Callable[[Source], Source | None]
_BATCH = 2_000


class LatestVersions(RegistryBase):
    """Latest versions, and what concerns all versions of a model."""

    def _with_latest(self, models: Sequence[Source]) -> list[tuple[Source, list[Source]]]:
        """Models with the sources of their latest versions, by one request for all of them."""
        ids = [version_id(m["model_id"], number) for m in models for number in m["latest"].values()]
        found = self.docs.get_many(MODEL_VERSIONS, ids) if ids else {}
        pairs = []
        for model in models:
            latest = _latest(model, found)
            if len(latest) < len(model["latest"]):
                model = self._recomputed(model)
                ids = [version_id(model["model_id"], number) for number in model["latest"].values()]
                latest = _latest(model, self.docs.get_many(MODEL_VERSIONS, ids) if ids else {})
            pairs.append((model, latest))
        return pairs

    def _recomputed(self, model: Source) -> Source:
        """The model, after its latest versions and aliases have been computed from its versions."""

        def change(source: Source) -> Source | None:
            new = source | {"latest": self._latest_numbers(source["model_id"]), "aliases": self._live_aliases(source)}
            return None if new == source else model_document(new)

        try:
            return self.docs.update(REGISTERED_MODELS, model["model_id"], change, StaleName).source
        except StaleName:
            return model | {"latest": {}}

    def _latest_numbers(self, model_id: str) -> dict[str, int]:
        """The highest number of each stage, whoever wrote the versions."""
        # Other processes' writes count, too: this makes the search refresh the index in any case.
        self.docs.written(MODEL_VERSIONS)
        numbers = {"stages": {"terms": {"field": "stage", "size": 10}, "aggs": {"n": {"max": {"field": "version"}}}}}
        query = all_of([term("model_id", model_id), none_of([term("stage", STAGE_DELETED_INTERNAL)])])
        answer = self.docs.search(MODEL_VERSIONS, {"query": query, "size": 0, "aggs": numbers})
        buckets = answer.get("aggregations", {}).get("stages", {}).get("buckets", ())
        return {bucket["key"]: int(bucket["n"]["value"]) for bucket in buckets}

    def _live_aliases(self, model: Source) -> dict[str, int]:
        ids = {alias: version_id(model["model_id"], number) for alias, number in model["aliases"].items()}
        found = self.docs.get_many(MODEL_VERSIONS, sorted(set(ids.values()))) if ids else {}
        return {a: n for a, n in model["aliases"].items() if ids[a] in found and is_live(found[ids[a]].source)}

    # All versions of a model.

    def _change_versions(self, model_id: str, change: Change, *where: Any) -> None:
        """Change versions of a model, those that `where` (queries) names; `change` as for `Documents.update`."""
        self.docs.written(MODEL_VERSIONS)
        query = all_of([term("model_id", model_id), *where])
        batch: list[str] = []
        for hit in self.docs.scan(MODEL_VERSIONS, query, "version", source=False):
            batch.append(hit.id)
            if len(batch) == _BATCH:
                self._change_batch(batch, change)
                batch = []
        self._change_batch(batch, change)

    def _change_batch(self, ids: Sequence[str], change: Change) -> None:
        """Change some versions in bulk; those that others change at the same moment one by one."""
        actions = list(_actions(self.docs.get_many(MODEL_VERSIONS, ids) if ids else {}, change))
        for action, outcome in zip(actions, bulk(self.docs, actions), strict=True):
            if outcome.conflict:
                self._change_one(action.id, change)

    def _change_one(self, doc_id: str, change: Change) -> None:
        def changed(source: Source) -> Source | None:
            new = change(source)
            return None if new is None else version_document(new)

        try:
            self.docs.update(MODEL_VERSIONS, doc_id, changed, StaleName)
        except StaleName:
            return

    def _settle_prompts(self, model_id: str) -> None:
        """Mark all versions of a model as a prompt's, or none, by whether one of them has the tag of a prompt.

        MLflow's SQL store leaves out of a search all versions of a name of which one has the tag.
        """
        self.docs.written(MODEL_VERSIONS)
        tagged = all_of([term("model_id", model_id), key_equals("tag_tokens", IS_PROMPT_TAG_KEY, "true")])
        wanted = bool(self.docs.page(MODEL_VERSIONS, tagged, [{"version": "asc"}], 1, source=False))

        def change(source: Source) -> Source | None:
            return None if source.get("has_prompts", False) == wanted else source | {"has_prompts": wanted}

        try:
            self.docs.update(
                REGISTERED_MODELS,
                model_id,
                lambda s: None if (new := change(s)) is None else model_document(new),
                StaleName,
            )
        except StaleName:
            return
        self._change_versions(
            model_id,
            lambda s: None if s["is_prompt"] == wanted else s | {"is_prompt": wanted},
            term("is_prompt", not wanted),
        )


def _latest(model: Source, found: dict[str, Document]) -> list[Source]:
    """The latest versions that are as the model's document says, by number."""
    wanted = sorted((number, stage) for stage, number in model["latest"].items())
    versions = [(found.get(version_id(model["model_id"], number)), stage) for number, stage in wanted]
    return [v.source for v, stage in versions if v is not None and v.source["stage"] == stage]


def _actions(found: dict[str, Document], change: Change) -> Iterator[Action]:
    for document in found.values():
        new = change(dict(document.source))
        if new is not None:
            yield Action("index", MODEL_VERSIONS, document.id, version_document(new), document)
