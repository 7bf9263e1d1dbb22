"""The import of issues, scorers, label schemas and review queues."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from typing import Any

from mlflow_elasticsearch_tracking.importer_base import Imports, found
from mlflow_elasticsearch_tracking.indices_genai import ISSUES, LABEL_SCHEMAS, REVIEW_ITEMS, REVIEW_QUEUES, SCORERS
from mlflow_elasticsearch_tracking.issues import _rank
from mlflow_elasticsearch_tracking.labelling import _kind as schema_names
from mlflow_elasticsearch_tracking.labelling import _stored_input
from mlflow_elasticsearch_tracking.review_items import _key as item_key
from mlflow_elasticsearch_tracking.review_queues import _kind as queue_names
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import all_pages, page_of, paged
from mlflow_plugkit_elasticsearch.names import claim
from mlflow_plugkit_elasticsearch.queries import term

_PAGE = 100
Page = tuple[Sequence[Any], str | None]


class GenAIImports(Imports):
    """Copies what hangs on an experiment beside runs, models and traces."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self._left_out: list[str] = []

    def notes(self) -> Iterator[str]:
        """What could not be read."""
        if self._left_out:
            yield (
                "Scorers, label schemas and review queues of deleted experiments are not told by MLflow and were left "
                f"out: {', '.join(sorted(set(self._left_out))[:20])}. Restore an experiment first to copy them."
            )

    def parts(self, experiment_id: str, *, is_active: bool) -> Iterator[Part]:
        """Issues of any experiment; the rest of active ones."""
        if self.may_have("issues", experiment_id) and hasattr(self.source.tracking, "search_issues"):
            yield self._issues(experiment_id)
        hanging = [
            ("scorers", "list_scorers", self._scorers),
            ("label_schemas", "list_label_schemas", self._label_schemas),
            ("review_queues", "list_review_queues", self._queues),
        ]
        for table, method, part in hanging:
            if not self.may_have(table, experiment_id) or not hasattr(self.source.tracking, method):
                continue
            if is_active:
                yield from part(experiment_id)
            elif self.source.is_database:
                self._left_out.append(experiment_id)

    # Issues.

    def _issues(self, experiment_id: str) -> Part:
        search = self.source.tracking.search_issues
        return Part(
            f"issues of experiment {experiment_id}",
            lambda token: page_of(lambda: search(experiment_id=experiment_id, max_results=_PAGE, page_token=token)),
            lambda issues: self._put(ISSUES, [(issue.issue_id, _issue(issue)) for issue in issues]),
            self.counter(ISSUES, experiment_id),
            lambda issue: str(issue.issue_id),
            lambda issue: (plain(issue), plain(found(lambda: self.store.get_issue(issue.issue_id)))),
        )

    # Scorers.

    def _scorers(self, experiment_id: str) -> Iterator[Part]:
        tracking = self.source.tracking
        yield Part(
            f"scorers of experiment {experiment_id}",
            lambda _: page_of(lambda: tracking.list_scorers(experiment_id)),
            lambda scorers: self._put(SCORERS, [self._scorer(experiment_id, one) for one in scorers]),
            self.counter(SCORERS, experiment_id),
            lambda scorer: str(scorer.scorer_name),
            lambda scorer: (
                self._versions(tracking, experiment_id, scorer.scorer_name),
                found(lambda: self._versions(self.store, experiment_id, scorer.scorer_name)),
            ),
        )

    def _versions(self, store: Any, experiment_id: str, name: str) -> Any:
        versions = store.list_scorer_versions(experiment_id, name)
        return {str(one.scorer_version): [one._serialized_scorer, one.creation_time] for one in versions}

    def _scorer(self, experiment_id: str, latest: Any) -> tuple[str, Source]:
        name = latest.scorer_name
        versions = self.source.tracking.list_scorer_versions(experiment_id, name)
        doc_id = document_id("scorer", str(experiment_id), name)
        scorer_id = latest.scorer_id or str(uuid.uuid5(uuid.NAMESPACE_OID, doc_id))
        configs, _ = page_of(lambda: self.source.tracking.get_online_scoring_configs([scorer_id]))
        online = None
        if configs:
            one = configs[0]
            online = {
                "id": one.online_scoring_config_id,
                "sample_rate": float(one.sample_rate),
                "filter_string": one.filter_string,
            }
        return doc_id, {
            "scorer_id": scorer_id,
            "experiment_id": str(experiment_id),
            "number": int(experiment_id),
            "name": name,
            "versions": [[one.scorer_version, one._serialized_scorer, one.creation_time] for one in versions],
            "online": online,
        }

    # Label schemas.

    def _label_schemas(self, experiment_id: str) -> Iterator[Part]:
        read = self.source.tracking.list_label_schemas
        yield Part(
            f"label schemas of experiment {experiment_id}",
            lambda token: page_of(lambda: read(experiment_id, max_results=_PAGE, page_token=token)),
            self._write_schemas,
            self.counter(LABEL_SCHEMAS, experiment_id),
            lambda schema: str(schema.name),
            lambda schema: (plain(schema), plain(found(lambda: self.store.get_label_schema(schema.schema_id)))),
        )

    def _write_schemas(self, schemas: Sequence[Any]) -> None:
        for one in schemas:
            claim(self.docs, schema_names(str(one.experiment_id)), one.name, one.schema_id, lambda _: True)
        self._put(LABEL_SCHEMAS, [(one.schema_id, _label_schema(one)) for one in schemas])

    # Review queues.

    def _queues(self, experiment_id: str) -> Iterator[Part]:
        read = self.source.tracking.list_review_queues

        def pages(token: str | None) -> Page:
            return page_of(lambda: read(experiment_id, max_results=_PAGE, page_token=token))

        yield Part(
            f"review queues of experiment {experiment_id}",
            pages,
            self._write_queues,
            self.counter(REVIEW_QUEUES, experiment_id),
            lambda queue: str(queue.name),
            lambda queue: (plain(queue), plain(found(lambda: self.store.get_review_queue(queue.queue_id)))),
        )
        for queue in all_pages(pages):
            yield self._items(queue.queue_id)

    def _items(self, queue_id: str) -> Part:
        def told(item: Any) -> tuple[Any, Any]:
            there = self.docs.get(REVIEW_ITEMS, item_key(queue_id, item.item_id))
            expected = _item(item)
            return expected, {name: there.source.get(name) for name in expected} if there else None

        return Part(
            f"items of review queue {queue_id}",
            lambda token: self._read_items(queue_id, token),
            lambda items: self._put(REVIEW_ITEMS, [(item_key(queue_id, one.item_id), _item(one)) for one in items]),
            lambda: self.docs.count(REVIEW_ITEMS, term("queue_id", queue_id)),
            lambda item: str(item.item_id),
            told,
        )

    def _read_items(self, queue_id: str, token: str | None) -> Page:
        return paged(self.source.tracking.list_review_queue_items(queue_id, max_results=_PAGE, page_token=token))

    def _write_queues(self, queues: Sequence[Any]) -> None:
        written = []
        for one in queues:
            attached = sum(1 for _ in all_pages(lambda token, one=one: self._read_items(one.queue_id, token)))  # type: ignore[misc]
            claim(self.docs, queue_names(str(one.experiment_id)), one.name.lower(), one.queue_id, lambda _: True)
            written.append((one.queue_id, _queue(one, attached)))
        self._put(REVIEW_QUEUES, written)

    def _put(self, index: Any, documents: Sequence[tuple[str, Source]]) -> None:
        if documents:
            bulk(self.docs, [Action("index", index, doc_id, source) for doc_id, source in documents])


def _text(value: Any) -> Any:
    return getattr(value, "value", value)


def _issue(issue: Any) -> Source:
    return {
        "issue_id": issue.issue_id,
        "experiment_id": str(issue.experiment_id),
        "name": issue.name,
        "description": issue.description,
        "status": _text(issue.status),
        "severity": _text(issue.severity),
        "rank": _rank(issue.severity),
        "root_causes": list(issue.root_causes or ()) or None,
        "source_run_id": issue.source_run_id,
        "categories": list(issue.categories or ()) or None,
        "created_timestamp": issue.created_timestamp,
        "last_updated_timestamp": issue.last_updated_timestamp,
        "created_by": issue.created_by,
    }


def _label_schema(schema: Any) -> Source:
    return {
        "schema_id": schema.schema_id,
        "experiment_id": str(schema.experiment_id),
        "name": schema.name,
        "type": str(_text(schema.type)),
        "instruction": schema.instruction,
        "enable_comment": schema.enable_comment,
        "is_default": bool(getattr(schema, "is_default", False)),
        "created_by": schema.created_by,
        "created": schema.created_at,
        "updated": schema.updated_at,
        **_stored_input(schema.input),
    }


def _queue(queue: Any, attached: int) -> Source:
    return {
        "queue_id": queue.queue_id,
        "experiment_id": str(queue.experiment_id),
        "name": queue.name,
        "queue_type": str(_text(queue.queue_type)),
        "created_by": queue.created_by,
        "creation_time_ms": queue.creation_time_ms,
        "last_update_time_ms": queue.last_update_time_ms,
        "users": sorted(queue.users),
        "schema_ids": sorted(queue.schema_ids),
        "attached": attached,
    }


def _item(item: Any) -> Source:
    return {
        "queue_id": item.queue_id,
        "item_id": item.item_id,
        "item_type": str(_text(item.item_type)),
        "status": str(_text(item.status)),
        "creation_time_ms": item.creation_time_ms,
        "last_update_time_ms": item.last_update_time_ms,
        "completed_by": item.completed_by,
        "completed_time_ms": item.completed_time_ms,
    }
