"""The import of evaluation datasets and their records."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlflow_elasticsearch_tracking.evaluation_records import _json, dataset_document, input_hash, record_body
from mlflow_elasticsearch_tracking.importer_base import Imports, found
from mlflow_elasticsearch_tracking.indices_models import EVALUATION_DATASETS, EVALUATION_RECORDS
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import all_pages, page_of, paged
from mlflow_plugkit_elasticsearch.queries import term, terms

_PAGE, _RECORDS_PAGE = 200, 500
_FIELDS = ("dataset_id", "name", "digest", "created_time", "last_update_time", "created_by", "last_updated_by")
_NAMES = ("dataset_record_id", "created_time", "last_update_time", "created_by", "last_updated_by")


class DatasetImports(Imports):
    """Copies evaluation datasets."""

    def parts(self) -> Iterator[Part]:
        """The datasets, then the records of each."""
        ids: list[str] = []

        def count() -> int:
            found = self.docs.get_many(EVALUATION_DATASETS, ids) if ids else {}
            return len(found)

        ids += [one.dataset_id for one in all_pages(self._read)]
        if not ids:
            return
        yield Part("evaluation datasets", self._read, self._write, count, lambda one: str(one.dataset_id), self._sides)
        for dataset_id in ids:
            yield self._records_of(dataset_id)

    def _records_of(self, dataset_id: str) -> Part:
        return Part(
            f"records of evaluation dataset {dataset_id}",
            lambda token: paged(self.source.tracking._load_dataset_records(dataset_id, _RECORDS_PAGE, token)),
            self._write_records,
            lambda: self.docs.count(EVALUATION_RECORDS, term("dataset_id", dataset_id)),
            lambda record: str(record.dataset_record_id),
            self._record_sides,
        )

    def _read(self, token: str | None) -> tuple[Sequence[Any], str | None]:
        search = getattr(self.source.tracking, "search_datasets", None)
        if search is None:
            return [], None
        return page_of(lambda: search(max_results=_PAGE, order_by=["created_time ASC"], page_token=token))

    def _write(self, datasets: Sequence[Any]) -> None:
        sources = [self._source(one) for one in datasets]
        actions = [Action("index", EVALUATION_DATASETS, one["dataset_id"], dataset_document(one)) for one in sources]
        if actions:
            bulk(self.docs, actions)

    def _source(self, dataset: Any) -> Source:
        source: Source = {name: getattr(dataset, name) for name in _FIELDS}
        source |= {"schema": dataset.schema, "profile": dataset.profile, "t": dict(dataset.tags or {})}
        return source | {"e": self._experiments(dataset)}

    def _experiments(self, dataset: Any) -> list[list[Any]]:
        """The dataset's experiments with the times at which it was added; a server tells their order alone."""
        if self.source.is_database:
            columns = ["destination_id", "created_time"]
            where = {
                "source_type": "evaluation_dataset",
                "source_id": dataset.dataset_id,
                "destination_type": "experiment",
            }
            rows = self.source.rows("entity_associations", columns, where, ["created_time", "destination_id"])
            return [[str(experiment_id), at] for experiment_id, at in rows]
        ids = self.source.tracking.get_dataset_experiment_ids(dataset.dataset_id)
        return [[str(one), dataset.created_time + position] for position, one in enumerate(ids)]

    def _write_records(self, records: Sequence[Any]) -> None:
        actions = []
        for record in records:
            key = document_id(record.dataset_id, input_hash({"inputs": record.inputs}))
            actions.append(Action("index", EVALUATION_RECORDS, key, _record(record)))
        if actions:
            bulk(self.docs, actions)

    def _sides(self, dataset: Any) -> tuple[Any, Any]:
        there = found(lambda: self.store.get_dataset(dataset.dataset_id))
        expected, own = _told(dataset), _told(there)
        for told, store in ((expected, self.source.tracking), (own, self.store)):
            if told is not None:
                told["experiments"] = list(store.get_dataset_experiment_ids(dataset.dataset_id))
        return expected, own

    def _record_sides(self, record: Any) -> tuple[Any, Any]:
        hits = self.docs.page(
            EVALUATION_RECORDS,
            terms("dataset_record_id", [record.dataset_record_id]),
            [{"dataset_record_id": "asc"}],
            1,
        )
        expected = _record(record)
        own = {name: hits[0].source.get(name) for name in expected} if hits else None
        return expected, own


def _told(dataset: Any) -> Any:
    if dataset is None:
        return None
    told = {name: getattr(dataset, name) for name in (*_FIELDS, "schema", "profile", "tags")}
    return plain(told)


def _record(record: Any) -> Source:
    return {
        "dataset_id": record.dataset_id,
        **{name: getattr(record, name) for name in _NAMES},
        "body": _json(record_body(record)),
    }
