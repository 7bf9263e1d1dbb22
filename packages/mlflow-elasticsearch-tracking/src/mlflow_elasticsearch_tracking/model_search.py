"""The search for logged models: MLflow's filter, order and datasets as one query."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_elasticsearch_tracking.clauses import number
from mlflow_elasticsearch_tracking.filters import (
    Clause,
    any_clause,
    conjunction,
    experiment_numbers,
    key_clause,
    metric_clause,
    text_clause,
)
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS, MODEL_METRICS
from mlflow_elasticsearch_tracking.model_documents import dataset_token, latest_key, logged_model, scoped
from mlflow_elasticsearch_tracking.model_metrics import ModelMetrics
from mlflow_elasticsearch_tracking.ordering import Sort
from mlflow_elasticsearch_tracking.run_search import find
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import point, points
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import MATCH_NONE, Query, any_of, between, none_of, term, terms

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel
    from mlflow.store.entities.paged_list import PagedList

TEXTS = frozenset(
    {
        "model_id",
        "experiment_id",
        "name",
        "artifact_location",
        "status",
        "lifecycle_stage",
        "model_type",
        "source_run_id",
        "status_message",
    }
)
TIMES = frozenset({"creation_timestamp_ms", "last_updated_timestamp_ms"})
#: As MLflow's SQL store names the columns (SqlLoggedModel.ALIASES).
ALIASES = {
    "creation_time": "creation_timestamp_ms",
    "creation_timestamp": "creation_timestamp_ms",
    "last_updated_timestamp": "last_updated_timestamp_ms",
}
Datasets = Sequence[tuple[str, str | None]]
_OTHER_SEARCH = (
    "Experiment IDs in the page token do not match those of this search.",
    "Filter string in the page token does not match that of this search.",
    "Order by in the page token does not match that of this search.",
)


class ModelSearch(ModelMetrics):
    """Search logged models."""

    def search_logged_models(
        self,
        experiment_ids: list[str],
        filter_string: str | None = None,
        datasets: list[dict[str, Any]] | None = None,
        max_results: int | None = None,
        order_by: list[dict[str, Any]] | None = None,
        page_token: str | None = None,
    ) -> PagedList[LoggedModel]:
        """A page of the models that are not deleted, with their tags, params and metrics.

        Args:
            experiment_ids: where to search.
            filter_string: comparisons joined by AND, of `name`, `metrics.…`, `params.…`, `tags.…`; a metric fulfils
                a comparison if one of its values does.
            datasets: values of metrics count only where they were logged on one of these datasets
                (`dataset_name`, `dataset_digest`; any digest without it); without a filter on metrics, models
                that have any metric on one of them.
            max_results: size of the page, 100 unless given.
            order_by: `field_name`, `ascending`, for a metric also `dataset_name` and `dataset_digest`; what has no
                value comes last. Then the newest first, then by id.
            page_token: of the page before.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for what MLflow's grammar has not, or a token of another search.
        """
        from mlflow.store.entities.paged_list import PagedList
        from mlflow.store.tracking import SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT

        ids = [str(one) for one in experiment_numbers(experiment_ids)]
        size = max_results or SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
        if size < 0:
            raise mlflow_error(f"Invalid value {max_results} for 'max_results': it must be a positive integer.")
        # MLflow's SQL store makes its token for None where it was asked with "", and then refuses it: so do we.
        after = decode_token(page_token, ids, filter_string, order_by, words=_OTHER_SEARCH)
        asked = (ids, filter_string or None, order_by or None)
        wanted = conjunction(
            [
                Clause(terms("experiment_id", ids)),
                Clause(none_of([term("lifecycle_stage", "deleted")])),
                *self._model_clauses(filter_string, _datasets(datasets)),
            ]
        )
        hits, more = find(self.docs, LOGGED_MODELS, wanted, model_order(order_by or ()), size, after)
        sources = [hit.source for hit in hits]
        models = map(logged_model, sources, self._metrics_of_models(sources))
        return PagedList(list(models), token=encode_token(hits[-1].sort, *asked) if more else None)

    def _model_clauses(self, filter_string: str | None, datasets: Datasets) -> list[Clause]:
        comparisons = parsed(filter_string)
        clauses = [self._metric_clause(one, datasets) if one.kind == "metrics" else _clause(one) for one in comparisons]
        if datasets and not any(one.kind == "metrics" for one in comparisons):
            found = [term("metric_datasets", dataset_token(*dataset)) for dataset in datasets]
            clauses.append(Clause(any_of(found)))
        return clauses

    def _metric_clause(self, comparison: Comparison, datasets: Datasets) -> Clause:
        field = "dataset_metric_points" if datasets else "metric_points"
        keys = [scoped(comparison.key, *dataset) for dataset in datasets] or [comparison.key]
        query = any_of([_value_query(field, key, comparison) for key in keys])
        if comparison.op != "=" or query == MATCH_NONE:
            return Clause(query)
        # A document has the extremes of all its points, but not each value of the older ones.
        blocks = self.docs.scan(MODEL_METRICS, query, "block_id", source=["model_id"])
        older = {block.source["model_id"] for block in blocks}
        return Clause(any_of([query, terms("model_id", sorted(older))]) if older else query)


class Comparison(NamedTuple):
    """One comparison of a filter: of an attribute, or of a key of the tags, params or metrics."""

    kind: str
    key: str
    op: str
    value: Any


def parsed(filter_string: str | None) -> list[Comparison]:
    """The comparisons of a filter, by MLflow's own parser.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    from mlflow.utils.search_logged_model_utils import parse_filter_string

    try:
        comparisons = parse_filter_string(filter_string)
    except (ValueError, SyntaxError) as exc:
        raise mlflow_error(f"Invalid filter string: {filter_string!r}. {exc}") from exc
    return [Comparison(one.entity.type.value, one.entity.key, one.op, _plain(one.value)) for one in comparisons]


def model_order(order_by: Iterable[Mapping[str, Any]]) -> Sort:
    """The sort of a search for logged models.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a field that models cannot be ordered by.
    """
    sort: Sort = []
    fields = set()
    for one in order_by:
        name, ascending = one.get("field_name") or "", one.get("ascending", True)
        if "." in name:
            kind, key = name.split(".", 1)
            if kind != "metrics":
                raise mlflow_error(f"Invalid order by field name: {name}. Only metrics are supported.")
            column = latest_key(key, one.get("dataset_name") or None, one.get("dataset_digest") or None)
            sort += [_by(f"latest.{column}", ascending), _by(f"latest_nans.{column}", True)]
        else:
            field = _attribute(name, "order by field name")
            fields.add(field)
            sort.append(_by("experiment_number" if field == "experiment_id" else field, ascending))
    if "creation_timestamp_ms" not in fields:
        sort.append(_by("creation_timestamp_ms", False))
    return sort if "model_id" in fields else [*sort, _by("model_id", True)]


def _value_query(field: str, key: str, comparison: Comparison) -> Query:
    if not math.isnan(comparison.value):
        return metric_clause(field, comparison.op, key, comparison.value).query
    if comparison.op != "!=":
        return MATCH_NONE
    return between(field, gte=points(key)[0], lte=point(key, math.nan))


def _clause(comparison: Comparison) -> Clause:
    kind, key, op, value = comparison
    if kind == "attributes":
        field = _attribute(key, "attribute")
        if field in TIMES:
            return Clause(number(field, op, value))
        return text_clause(field, op, value, lambda source: source.get(field))
    field, of = ("tag_tokens", "t") if kind == "tags" else ("param_tokens", "p")
    if op in ("IN", "NOT IN"):
        return any_clause(field, op, key, value, lambda source: [source[of].get(key)])
    return key_clause(field, op, key, value, lambda source: source[of].get(key))


def _attribute(name: str, what: str) -> str:
    field = ALIASES.get(name, name)
    if field not in TEXTS | TIMES:
        raise mlflow_error(f"Invalid {what}: {name}. Known are {', '.join(sorted(TEXTS | TIMES | ALIASES.keys()))}.")
    return field


def _by(field: str, ascending: bool) -> dict[str, Any]:
    unmapped = "long" if field in TIMES or field == "experiment_number" else "keyword"
    return {field: {"order": "asc" if ascending else "desc", "missing": "_last", "unmapped_type": unmapped}}


def _datasets(given: list[dict[str, Any]] | None) -> Datasets:
    if given and not all(one.get("dataset_name") for one in given):
        raise mlflow_error("`dataset_name` in the `datasets` clause must be specified.")
    return [(one["dataset_name"], one.get("dataset_digest") or None) for one in given or ()]


def _plain(value: Any) -> Any:
    """A list's items as SQL compares them with a text."""
    return tuple(str(one) for one in value) if isinstance(value, tuple | list) else value
