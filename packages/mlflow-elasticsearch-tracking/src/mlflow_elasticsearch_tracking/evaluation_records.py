"""Records of evaluation datasets.

A record's document has its dataset, its id and its times as fields, and all else as JSON text: any JSON comes back
as it was, numbers of any size and NaN included. Its `_id` follows from the dataset and the inputs, so that equal
inputs meet in one record, whoever writes them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import StoreBase, now_ms
from mlflow_elasticsearch_tracking.indices_models import EVALUATION_DATASETS, EVALUATION_RECORDS
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Document, Hit, bulk
from mlflow_plugkit_elasticsearch.documents import busy, pause
from mlflow_plugkit_elasticsearch.encode import document_id, token, utf8
from mlflow_plugkit_elasticsearch.queries import all_of, term, terms

if TYPE_CHECKING:
    from mlflow.entities.dataset_record import DatasetRecord

USER_TAG = "mlflow.user"
_ORDER = [
    {"created_time": {"order": "asc", "unmapped_type": "long"}},
    {"dataset_record_id": {"order": "asc", "unmapped_type": "keyword"}},
]
#: All of a dataset's records at once is a real question: `EvaluationDataset.records`.
_ALL = 2**31
_logger = logging.getLogger(__name__)
Source = dict[str, Any]


class EvaluationRecords(StoreBase):
    """Write, read and delete the records of evaluation datasets."""

    def upsert_dataset_records(self, dataset_id: str, records: list[dict[str, Any]]) -> dict[str, int]:
        """Add records; one whose inputs the dataset has already is merged into that one.

        Returns:
            How many were `inserted` and how many `updated`.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such dataset; `INVALID_PARAMETER_VALUE` for inputs,
                expectations or tags that are no dict, what JSON cannot hold, or a source type that MLflow has not.
        """
        if not records and self.docs.get(EVALUATION_DATASETS, dataset_id) is None:
            return {"inserted": 0, "updated": 0}  # as in MLflow's SQL store
        self._check_dataset(dataset_id)
        check_records(records)
        now = now_ms()
        keys = [document_id(dataset_id, input_hash(record)) for record in records]
        inserted = self._write_records(dataset_id, list(zip(keys, records, strict=True)), now)
        count = self.docs.count(EVALUATION_RECORDS, term("dataset_id", dataset_id))
        users = [tags[USER_TAG] for tags in (record.get("tags") for record in records) if tags and USER_TAG in tags]

        def change(source: Source) -> Source:
            schema = merged_schema(source["schema"], records)
            user = users[-1] if users else None
            changed = {"last_update_time": now, "last_updated_by": user, "digest": digest_of(source["name"], now)}
            changed |= {"schema": json.dumps(schema)} if schema else {}
            return source | changed | ({"profile": json.dumps({"num_records": count})} if count else {})

        self.docs.update(
            EVALUATION_DATASETS,
            dataset_id,
            lambda source: dataset_document(change(source)),
            lambda: self._deleted_meanwhile(dataset_id),
        )
        return {"inserted": inserted, "updated": len(records) - inserted}

    def _write_records(self, dataset_id: str, records: Sequence[tuple[str, dict[str, Any]]], now: int) -> int:
        """Write the records; those that another process wrote in between once more. How many were new."""
        inserted, left = 0, list(records)
        for attempt in range(100):
            documents = self.docs.get_many(EVALUATION_RECORDS, list(dict.fromkeys(key for key, _ in left)))
            merged: dict[str, Source] = {}
            for key, record in left:
                before = merged.get(key) or (documents[key].source if key in documents else None)
                merged[key] = _merged(before, record, now) if before else _new_record(dataset_id, record, now)
            outcomes = bulk(self.docs, [_action(key, source, documents.get(key)) for key, source in merged.items()])
            lost = {key for key, outcome in zip(merged, outcomes, strict=True) if outcome.conflict}
            inserted += sum(key not in documents and key not in lost for key in merged)
            if not lost:
                return inserted
            left = [(key, record) for key, record in left if key in lost]
            pause(attempt)
        raise busy(EVALUATION_RECORDS, dataset_id)

    def _load_dataset_records(
        self, dataset_id: str, max_results: int | None = None, page_token: str | None = None
    ) -> tuple[list[DatasetRecord], str | None]:
        """A page of records, the oldest first, and the token of the next one.

        Args:
            dataset_id: which dataset.
            max_results: size of the page; None for all records, 0 for 1,000.
            page_token: of the page before.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a damaged token.
        """
        from mlflow.store.tracking import LOAD_DATASET_RECORDS_MAX_RESULTS

        if max_results is not None and max_results < 0:
            raise mlflow_error(f"max_results is {max_results}; give a positive number of records.")
        size = _ALL if max_results is None else max_results or LOAD_DATASET_RECORDS_MAX_RESULTS
        after = _decoded(page_token) if page_token else None
        query = term("dataset_id", dataset_id)
        hits = self.docs.page(EVALUATION_RECORDS, query, _ORDER, size + 1, after=after)
        more = len(hits) > size
        return [_entity(hit) for hit in hits[:size]], _encoded(hits[size - 1]) if more else None

    def delete_dataset_records(self, dataset_id: str, dataset_record_ids: list[str]) -> int:
        """Delete records by their ids; how many there were.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such dataset, where there were records of it.
        """
        chosen = all_of([term("dataset_id", dataset_id), terms("dataset_record_id", dataset_record_ids)])
        deleted = self.docs.delete_where(EVALUATION_RECORDS, chosen, "dataset_record_id")
        if not deleted:
            _logger.warning("No records found to delete for dataset %s.", dataset_id)
            return 0

        def change(source: Source) -> Source:
            profile = json.loads(source["profile"] or "null") or {}
            count = max(0, profile.get("num_records", 0) - deleted)
            return dataset_document(source | {"profile": json.dumps({"num_records": count} if count else None)})

        self.docs.update(EVALUATION_DATASETS, dataset_id, change, lambda: no_dataset(dataset_id))
        self.docs.refresh(EVALUATION_RECORDS)
        return deleted

    def _check_dataset(self, dataset_id: str) -> None:
        if self.docs.get(EVALUATION_DATASETS, dataset_id) is None:
            raise no_dataset(dataset_id)

    def _deleted_meanwhile(self, dataset_id: str) -> Exception:
        self.docs.delete_where(EVALUATION_RECORDS, term("dataset_id", dataset_id), "dataset_record_id")
        return no_dataset(dataset_id)


def dataset_document(source: Source) -> Source:
    """The document of a dataset: its source and the fields that are searched by."""
    tokens = [token(key, value) for key, value in source["t"].items() if value is not None]
    return source | {"tag_tokens": tokens, "experiment_ids": [experiment_id for experiment_id, _ in source["e"]]}


def digest_of(name: str, last_update_time: int) -> str:
    """The digest of a dataset as MLflow's SQL store computes it."""
    return hashlib.sha256(utf8(f"{name}:{last_update_time}")).hexdigest()[:8]


def no_dataset(dataset_id: str) -> Exception:
    """The error for a dataset that is not there."""
    return mlflow_error(f"Evaluation dataset with id '{dataset_id}' not found", "RESOURCE_DOES_NOT_EXIST")


def check_records(records: Iterable[Mapping[str, Any]]) -> None:
    """Refuse what MLflow's SQL store has no column for.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    for record in records:
        for part, wanted in (("inputs", dict), ("expectations", dict | None), ("tags", dict | None)):
            if not isinstance(record.get(part, {}), wanted):
                raise mlflow_error(f"The {part} of a dataset's record must be a dict, not {record[part]!r}.")


def input_hash(record: Mapping[str, Any]) -> str:
    """What tells the inputs of two records apart, as MLflow's SQL store computes it.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what JSON cannot hold.
    """
    return hashlib.sha256(_json(record.get("inputs", {}), sort_keys=True).encode()).hexdigest()


def merged_schema(existing: str | None, records: Iterable[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The types of the fields of all records, each as it was seen first; None for no schema and no records."""
    records = list(records)
    if not records and not existing:
        return None
    schema: dict[str, Any] = (
        json.loads(existing) if existing else {"inputs": {}, "outputs": {}, "expectations": {}, "version": "1.0"}
    )
    for record in records:
        for part in ("inputs", "outputs", "expectations"):
            value = record.get(part)
            if isinstance(value, dict) and isinstance(schema[part], dict):
                new = {key: type_name(one) for key, one in value.items() if key not in schema[part]}
                schema[part] = schema[part] | new
            elif part == "outputs" and value is not None and not schema["outputs"]:
                schema["outputs"] = type_name(value)
    return schema


def type_name(value: Any) -> str:
    """The type of a field as MLflow names it."""
    names = {bool: "boolean", int: "integer", float: "float", str: "string", list: "array", dict: "object"}
    if value is None:
        return "null"
    return next((name for kind, name in names.items() if isinstance(value, kind)), "unknown")


def _action(key: str, source: Source, document: Document | None) -> Action:
    if document is None:
        return Action("create", EVALUATION_RECORDS, key, source)
    return Action("index", EVALUATION_RECORDS, key, source, document)


def _new_record(dataset_id: str, record: Mapping[str, Any], now: int) -> Source:
    from mlflow.entities.dataset_record import DatasetRecord
    from mlflow.entities.dataset_record_source import DatasetRecordSource

    source, tags = record.get("source"), record.get("tags")
    if source and not isinstance(source, DatasetRecordSource):
        try:
            source = DatasetRecordSource.from_dict(source)
        except (AttributeError, TypeError):
            text = f"The source of a record is {source!r}: give an object with 'source_type' and 'source_data'."
            raise mlflow_error(text) from None
    user = (tags or {}).get(USER_TAG)
    entity = DatasetRecord(
        dataset_id=dataset_id,
        inputs=record.get("inputs", {}),
        dataset_record_id=f"dr-{uuid.uuid4().hex}",
        created_time=now,
        last_update_time=now,
        outputs=record.get("outputs", {}),
        expectations=record.get("expectations"),
        tags=tags,
        source=source or None,
    )
    body = record_body(entity)
    return {
        "dataset_id": dataset_id,
        "dataset_record_id": entity.dataset_record_id,
        "created_time": now,
        "last_update_time": now,
        "created_by": user,
        "last_updated_by": user,
        "body": _json(body),
    }


def _merged(before: Source, record: Mapping[str, Any], now: int) -> Source:
    """A record with another one of the same inputs merged in: its outputs replaced, the rest added to."""
    body = json.loads(before["body"])
    if "outputs" in record:
        body["outputs"] = record["outputs"]
    for part in ("expectations", "tags"):
        if record.get(part):
            body[part] = (body[part] or {}) | record[part]
    user = (record.get("tags") or {}).get(USER_TAG, before["last_updated_by"])
    return before | {"last_update_time": now, "last_updated_by": user, "body": _json(body)}


def _entity(hit: Hit) -> DatasetRecord:
    from mlflow.entities.dataset_record import DatasetRecord
    from mlflow.entities.dataset_record_source import DatasetRecordSource

    stored, body = hit.source, json.loads(hit.source["body"])
    body["source"] = DatasetRecordSource.from_dict(body["source"]) if body["source"] else None
    names = ("dataset_id", "dataset_record_id", "created_time", "last_update_time", "created_by", "last_updated_by")
    return DatasetRecord(**{name: stored[name] for name in names}, **body)


def _json(value: Any, *, sort_keys: bool = False) -> str:
    try:
        return json.dumps(value, sort_keys=sort_keys)
    except (TypeError, ValueError) as exc:
        raise mlflow_error(f"A record of a dataset must be JSON: {exc}.") from exc


def _encoded(hit: Hit) -> str:
    cursor = f"{hit.source['created_time']}:{hit.source['dataset_record_id']}"
    return base64.b64encode(cursor.encode()).decode()


def _decoded(page_token: str) -> list[Any]:
    try:
        created, record_id = base64.b64decode(page_token.encode(), validate=True).decode().split(":", 1)
        return [int(created), record_id]
    except (ValueError, binascii.Error, AttributeError):
        raise mlflow_error("Invalid page token. Give the token of the page before as it is, or none.") from None


def record_body(record: DatasetRecord) -> Source:
    """What a record's document keeps as JSON."""
    return {
        "inputs": record.inputs,
        "outputs": record.outputs,
        "expectations": record.expectations,
        "tags": record.tags,
        "source": record.source.to_dict() if record.source else None,
        "source_id": record.source_id,
    }
