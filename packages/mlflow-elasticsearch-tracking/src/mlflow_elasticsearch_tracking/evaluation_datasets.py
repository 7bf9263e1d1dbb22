"""Evaluation datasets: names, tags, experiments. Their records are in evaluation_records.py."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.clauses import number
from mlflow_elasticsearch_tracking.evaluation_records import (
    USER_TAG,
    EvaluationRecords,
    Source,
    dataset_document,
    digest_of,
)
from mlflow_elasticsearch_tracking.filters import Clause, conjunction, key_clause, text_clause
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS
from mlflow_elasticsearch_tracking.indices_models import EVALUATION_DATASETS, EVALUATION_RECORDS
from mlflow_elasticsearch_tracking.ordering import Sort
from mlflow_elasticsearch_tracking.run_search import check_max_results, find
from mlflow_elasticsearch_tracking.trace_clauses import regular_expression
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import between, exists, term, terms

if TYPE_CHECKING:
    from mlflow.entities import EvaluationDataset
    from mlflow.store.entities.paged_list import PagedList

TIMES = frozenset({"created_time", "last_update_time"})
BOUNDS = {">": "gt", ">=": "gte", "<": "lt", "<=": "lte"}
_logger = logging.getLogger(__name__)


class EvaluationDatasets(EvaluationRecords):
    """Create, read, change, search and delete evaluation datasets."""

    def create_dataset(
        self, name: str, tags: dict[str, str] | None = None, experiment_ids: list[str] | None = None
    ) -> EvaluationDataset:
        """Make an empty dataset; names need not be unique. The tag `mlflow.user` says who made it."""
        now, user = now_ms(), (tags or {}).get(USER_TAG)
        ids = list(dict.fromkeys(str(one) for one in experiment_ids or ()))
        source: Source = {
            "dataset_id": f"d-{uuid.uuid4().hex}",
            "name": name,
            "digest": digest_of(name, now),
            "created_time": now,
            "last_update_time": now,
            "created_by": user,
            "last_updated_by": user,
            "schema": None,
            "profile": None,
            "t": {key: _text(value) for key, value in (tags or {}).items()},
            "e": [[one, now] for one in ids],
        }
        self.docs.create(EVALUATION_DATASETS, source["dataset_id"], dataset_document(source))
        dataset = evaluation_dataset(source)
        dataset.experiment_ids = ids
        return dataset

    def get_dataset(self, dataset_id: str) -> EvaluationDataset:
        """The dataset; its records and experiments are read when they are asked for.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        found = self.docs.get(EVALUATION_DATASETS, dataset_id)
        if found is None:
            raise mlflow_error(f"Evaluation dataset with id '{dataset_id}' not found", "RESOURCE_DOES_NOT_EXIST")
        return evaluation_dataset(found.source)

    def delete_dataset(self, dataset_id: str) -> None:
        """Delete the dataset and its records; a warning where there is none."""
        if not self.docs.delete(EVALUATION_DATASETS, dataset_id):
            _logger.warning("Evaluation dataset with id '%s' not found.", dataset_id)
        self.docs.delete_where(EVALUATION_RECORDS, term("dataset_id", dataset_id), "dataset_record_id")

    def search_datasets(
        self,
        experiment_ids: list[str] | None = None,
        filter_string: str | None = None,
        max_results: int = 1000,
        order_by: list[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[EvaluationDataset]:
        """A page of datasets, the newest first unless told otherwise.

        Args:
            experiment_ids: datasets of any of these experiments; of all without them.
            filter_string: comparisons joined by AND, of `name`, `created_by`, `last_updated_by`, `created_time`,
                `last_update_time` and `tags.…`.
            max_results: size of the page, 50,000 at most.
            order_by: `name`, `created_time` or `last_update_time`, each with ASC or DESC.
            page_token: of the page before.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.store.entities.paged_list import PagedList

        check_max_results(max_results)
        ids = [str(one) for one in experiment_ids or ()]
        asked = (ids, filter_string or None, list(order_by or ()))
        after = decode_token(page_token, *asked)
        wanted = conjunction([*_clauses(filter_string), *([Clause(terms("experiment_ids", ids))] if ids else [])])
        hits, more = find(self.docs, EVALUATION_DATASETS, wanted, _sort(order_by), max_results, after)
        token = encode_token(hits[-1].sort, *asked) if more else None
        return PagedList([evaluation_dataset(hit.source) for hit in hits], token)

    def set_dataset_tags(self, dataset_id: str, tags: dict[str, Any]) -> None:
        """Set tags; one whose value is None stays as it is.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        new = {key: str(value) for key, value in (tags or {}).items() if value is not None}
        message = f"Could not find evaluation dataset with ID {dataset_id}"
        self._change_dataset(dataset_id, message, lambda source: source | {"t": source["t"] | new})

    def delete_dataset_tag(self, dataset_id: str, key: str) -> None:
        """Delete a tag; nothing happens where there is no such dataset or tag."""
        found = self.docs.get(EVALUATION_DATASETS, dataset_id)
        if found is None or key not in found.source["t"]:
            return

        def change(source: Source) -> Source:
            return source | {"t": {name: value for name, value in source["t"].items() if name != key}}

        self._change_dataset(dataset_id, f"Dataset '{dataset_id}' not found", change)

    def get_dataset_experiment_ids(self, dataset_id: str) -> list[str]:
        """The experiments of a dataset, the first added first; none where there is no such dataset."""
        found = self.docs.get(EVALUATION_DATASETS, dataset_id)
        return [experiment_id for experiment_id, _ in _in_order(found.source["e"])] if found else []

    def add_dataset_to_experiments(self, dataset_id: str, experiment_ids: list[str]) -> EvaluationDataset:
        """Add a dataset to experiments that exist; it may be in some of them already.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such dataset or experiment.
        """
        message = f"Dataset '{dataset_id}' not found"
        if self.docs.get(EVALUATION_DATASETS, dataset_id) is None:
            raise mlflow_error(message, "RESOURCE_DOES_NOT_EXIST")
        ids = [str(one) for one in experiment_ids]
        known = self.docs.get_many(EXPERIMENTS, ids) if ids else {}
        for one in ids:
            if one not in known:
                raise mlflow_error(f"No Experiment with id={one}", "RESOURCE_DOES_NOT_EXIST")

        def change(source: Source) -> Source:
            now, before = now_ms(), {experiment_id for experiment_id, _ in source["e"]}
            new = [[one, now] for one in dict.fromkeys(ids) if one not in before]
            return source | {"e": [*source["e"], *new], "last_update_time": now}

        return evaluation_dataset(self._change_dataset(dataset_id, message, change))

    def remove_dataset_from_experiments(self, dataset_id: str, experiment_ids: list[str]) -> EvaluationDataset:
        """Remove a dataset from experiments; a warning for each that it is not in.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such dataset.
        """
        ids = {str(one) for one in experiment_ids}

        def change(source: Source) -> Source:
            kept = [pair for pair in source["e"] if pair[0] not in ids]
            changed = {"e": kept, "last_update_time": now_ms()} if len(kept) < len(source["e"]) else {}
            for one in sorted(ids - {experiment_id for experiment_id, _ in source["e"]}):
                _logger.warning("Dataset '%s' was not associated with experiment '%s'", dataset_id, one)
            return source | changed

        return evaluation_dataset(self._change_dataset(dataset_id, f"Dataset '{dataset_id}' not found", change))

    def _change_dataset(self, dataset_id: str, message: str, change: Callable[[Source], Source]) -> Source:
        def missing() -> Exception:
            return mlflow_error(message, "RESOURCE_DOES_NOT_EXIST")

        def changed(source: Source) -> Source:
            return dataset_document(change(source))

        return self.docs.update(EVALUATION_DATASETS, dataset_id, changed, missing).source


def evaluation_dataset(source: Source) -> EvaluationDataset:
    """The entity."""
    from mlflow.entities import EvaluationDataset

    fields = ("dataset_id", "name", "digest", "created_time", "last_update_time")
    more = ("schema", "profile", "created_by", "last_updated_by")
    return EvaluationDataset(**{field: source[field] for field in fields + more}, tags=dict(source["t"]))


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _in_order(associations: list[list[Any]]) -> list[list[Any]]:
    return sorted(associations, key=lambda pair: (pair[1], pair[0]))


def _clauses(filter_string: str | None) -> list[Clause]:
    from mlflow.utils.search_utils import SearchEvaluationDatasetsUtils

    parsed = SearchEvaluationDatasetsUtils.parse_search_filter(filter_string) if filter_string else ()
    return [_clause(one["type"], one["key"], one["comparator"].upper(), one["value"]) for one in parsed]


def _clause(kind: str, key: str, op: str, value: Any) -> Clause:
    if kind == "tag":
        _check(op, "tag", ("=", "!=", "LIKE", "ILIKE"))
        return key_clause("tag_tokens", op, key, value, lambda source: source["t"].get(key))
    if key in TIMES:
        _check(op, "numeric attribute", ("=", "!=", *BOUNDS))
        return Clause(number(key, op, _whole(key, value)))
    if op == "RLIKE":
        expression = regular_expression(value)
        return Clause(exists(key), lambda source: expression.search(source.get(key) or "") is not None)
    _check(op, "string attribute", ("=", "!=", "LIKE", "ILIKE", *BOUNDS, *(["IN"] if key == "name" else [])))
    if op in BOUNDS:
        return Clause(between(key, **{BOUNDS[op]: value}))
    return text_clause(key, op, value, lambda source: source.get(key))


def _whole(key: str, value: Any) -> int:
    """The value as a whole number; older MLflows' parser gives it as text."""
    try:
        if isinstance(value, float):
            raise ValueError
        return int(value)
    except (TypeError, ValueError):
        raise mlflow_error(f"Invalid value for numeric attribute '{key}': {value!r}") from None


def _check(op: str, what: str, allowed: tuple[str, ...]) -> None:
    if op not in allowed:
        raise mlflow_error(f"Invalid comparator for {what}: {op}")


def _sort(order_by: list[str] | None) -> Sort:
    from mlflow.utils.search_utils import SearchEvaluationDatasetsUtils

    sorts: Sort = []
    for clause in order_by or ["created_time DESC"]:
        kind, key, ascending = SearchEvaluationDatasetsUtils.parse_order_by_for_search_evaluation_datasets(clause)
        if kind != "attribute":
            raise mlflow_error(f"Invalid order_by entity: {kind}")
        unmapped = "long" if key in TIMES else "keyword"
        sorts.append({key: {"order": "asc" if ascending else "desc", "unmapped_type": unmapped}})
    return [*sorts, {"dataset_id": {"order": "desc", "unmapped_type": "keyword"}}]
