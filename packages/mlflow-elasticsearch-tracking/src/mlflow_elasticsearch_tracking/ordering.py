"""From MLflow's order_by to Elasticsearch's sort. Pure functions.

Where MLflow's SQL store puts what is missing: for runs last in both directions, NaN between the numbers and the
missing; for experiments below every value, as SQLite has it. Every order ends with a unique field.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.utils.search_utils import SearchExperimentsUtils, SearchUtils

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import field_key

Sort = list[dict[str, Any]]
_KINDS = {"metric": "metrics", "parameter": "params", "tag": "tags"}
_LONGS = {"start_time", "end_time", "creation_time", "last_update_time", "number"}


def by(field: str, ascending: bool, missing: str = "_last") -> dict[str, Any]:
    """One level of a sort; an index without the field sorts as if it had no values."""
    kind = "long" if field in _LONGS else "keyword"
    return {field: {"order": "asc" if ascending else "desc", "missing": missing, "unmapped_type": kind}}


def by_metric(columns: str, nans: str, key: str, ascending: bool) -> Sort:
    """By the number of one key in a `flattened` field of `encode.sortable_float`s, then NaN, then no number.

    Args:
        columns: the field of numbers.
        nans: the field that holds the key where its number is NaN.
        key: the key.
        ascending: the direction; NaN and missing come last in both.
    """
    name = field_key(key)
    return [by(f"{columns}.{name}", ascending), by(f"{nans}.{name}", True)]


def run_order(order_by: Sequence[str] | None) -> Sort:
    """The sort of a search for runs: as asked, then the latest start, then the run id.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not have; `INTERNAL_ERROR`, as
            MLflow's own store has it, for a field that is named twice.
    """
    sort: Sort = []
    seen: set[tuple[str, str]] = set()
    for clause in order_by or ():
        kind, key, ascending = SearchUtils.parse_order_by_for_search_runs(clause)
        key = SearchUtils.translate_key_alias(key)
        if (kind, key) in seen:
            raise mlflow_error(f"`order_by` contains duplicate fields: {list(order_by or ())}", "INTERNAL_ERROR")
        seen.add((kind, key))
        if SearchUtils.is_attribute(kind, key, "="):
            sort.append(by(key, ascending))
        elif kind == "metric":
            sort += by_metric("metrics", "nan_metrics", key, ascending)
        elif kind in _KINDS:
            sort.append(by(f"{_KINDS[kind]}.{field_key(key)}", ascending))
        else:
            raise mlflow_error(f"Invalid identifier type '{kind}'")
    if ("attribute", "start_time") not in seen:
        sort.append(by("start_time", False))
    return sort if ("attribute", "run_id") in seen else [*sort, by("run_id", True)]


def experiment_order(order_by: Sequence[str] | None) -> Sort:
    """The sort of a search for experiments: as asked, or the newest first; then the highest id.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar does not have.
    """
    sort: Sort = []
    for clause in order_by or ("creation_time DESC", "experiment_id ASC"):
        kind, key, ascending = SearchExperimentsUtils.parse_order_by_for_search_experiments(clause)
        if kind != "attribute":
            raise mlflow_error(f"Invalid order_by entity: {kind}")
        field = "number" if key == "experiment_id" else key
        if all(field not in level for level in sort):
            sort.append(by(field, ascending, "_first" if ascending else "_last"))
    return sort if any("number" in level for level in sort) else [*sort, by("number", False)]
