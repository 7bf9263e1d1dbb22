"""The search for logged models: MLflow's filter, order and datasets as one query."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_elasticsearch_tracking import clauses
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS, MODEL_METRICS
from mlflow_elasticsearch_tracking.model_documents import (
    LARGEST,
    dataset_token,
    latest_key,
    logged_model,
    scoped,
    value_token,
)
from mlflow_elasticsearch_tracking.model_metrics import ModelMetrics
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.encode import SEPARATOR
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import MATCH_NONE, Query, all_of, any_of, between, has_key, term, terms

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
Sort = dict[str, Any]


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

        ids = [_experiment_id(one) for one in experiment_ids]
        size = max_results or SEARCH_LOGGED_MODEL_MAX_RESULTS_DEFAULT
        if size < 0:
            raise mlflow_error(f"Invalid value {max_results} for 'max_results': it must be a positive integer.")
        asked = (ids, filter_string or None, order_by or None)
        after = decode_token(page_token, *asked)
        query = self._models_query(ids, filter_string, _datasets(datasets))
        hits = self.docs.page(LOGGED_MODELS, query, model_order(order_by or ()), size + 1, after=after)
        token = encode_token(hits[size - 1].sort, *asked) if len(hits) > size else None
        sources = [hit.source for hit in hits[:size]]
        metrics = self._metrics_of_models(sources)
        return PagedList([logged_model(*pair) for pair in zip(sources, metrics, strict=True)], token=token)

    def _models_query(self, experiment_ids: list[str], filter_string: str | None, datasets: Datasets) -> Query:
        queries = [terms("experiment_id", experiment_ids), {"bool": {"must_not": [term("lifecycle_stage", "deleted")]}}]
        comparisons = parsed(filter_string)
        for one in comparisons:
            if one.kind == "metrics":
                queries.append(self._metric_query(one, datasets))
            else:
                queries.append(_query(one))
        if datasets and not any(one.kind == "metrics" for one in comparisons):
            queries.append(any_of([term("metric_datasets", dataset_token(*dataset)) for dataset in datasets]))
        return all_of(queries)

    def _metric_query(self, comparison: Comparison, datasets: Datasets) -> Query:
        field = "dataset_metric_tokens" if datasets else "metric_tokens"
        keys = [scoped(comparison.key, *dataset) for dataset in datasets] or [comparison.key]
        query = any_of([value_query(field, key, comparison.op, comparison.value) for key in keys])
        if comparison.op != "=":
            return query
        # A document has the extremes of all its points, but not each value of the older ones.
        older = {
            hit.source["model_id"] for hit in self.docs.scan(MODEL_METRICS, query, "block_id", source=["model_id"])
        }
        return any_of([query, terms("model_id", sorted(older))]) if older else query


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
    return [Comparison(one.entity.type.value, one.entity.key, one.op, one.value) for one in comparisons]


def model_order(order_by: Iterable[Mapping[str, Any]]) -> list[Sort]:
    """The sort of a search for logged models.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a field that models cannot be ordered by.
    """
    sorts: list[Sort] = []
    fields = []
    for one in order_by:
        name, ascending = one.get("field_name") or "", one.get("ascending", True)
        if "." in name:
            kind, key = name.split(".", 1)
            if kind != "metrics":
                raise mlflow_error(f"Invalid order by field name: {name}. Only metrics are supported.")
            fields.append(
                "latest." + latest_key(key, one.get("dataset_name") or None, one.get("dataset_digest") or None)
            )
        else:
            fields.append(_attribute(name, "order by field name"))
        sorts.append(_sort("experiment_number" if fields[-1] == "experiment_id" else fields[-1], ascending))
    if "creation_timestamp_ms" not in fields:
        sorts.append(_sort("creation_timestamp_ms", False))
    if "model_id" not in fields:
        sorts.append(_sort("model_id", True))
    return sorts


def value_query(field: str, key: str, op: str, value: float) -> Query:
    """Whether the tokens of a key have a value that compares so; NaN is unequal to all and nothing else."""
    text = value_token(value)
    if op in ("=", "!=") and text == value_token(float("nan")):
        return MATCH_NONE if op == "=" else has_key(field, key)
    prefix = key + SEPARATOR
    below, above = {"gte": prefix, "lt": prefix + text}, {"gt": prefix + text, "lte": prefix + LARGEST}
    queries: dict[str, Callable[[], Query]] = {
        "=": lambda: term(field, prefix + text),
        "!=": lambda: any_of([between(field, **below), between(field, gt=prefix + text, lt=key + "\x01")]),
        "<": lambda: between(field, **below),
        "<=": lambda: between(field, gte=prefix, lte=prefix + text),
        ">": lambda: between(field, **above),
        ">=": lambda: between(field, gte=prefix + text, lte=prefix + LARGEST),
    }
    return queries[op]() if text != value_token(float("nan")) else MATCH_NONE


def _query(comparison: Comparison) -> Query:
    kind, key, op, value = comparison
    if kind == "tags":
        return clauses.keyed("tag_tokens", key, op, value)
    if kind == "params":
        return clauses.keyed("param_tokens", key, op, value)
    field = _attribute(key, "attribute")
    return clauses.number(field, op, value) if field in TIMES else clauses.text(field, op, value)


def _attribute(name: str, what: str) -> str:
    field = ALIASES.get(name, name)
    if field not in TEXTS | TIMES:
        raise mlflow_error(f"Invalid {what}: {name}. Known are {', '.join(sorted(TEXTS | TIMES | ALIASES.keys()))}.")
    return field


def _sort(field: str, ascending: bool) -> Sort:
    unmapped = "long" if field in TIMES or field == "experiment_number" else "keyword"
    return {field: {"order": "asc" if ascending else "desc", "missing": "_last", "unmapped_type": unmapped}}


def _datasets(given: list[dict[str, Any]] | None) -> Datasets:
    if given and not all(one.get("dataset_name") for one in given):
        raise mlflow_error("`dataset_name` in the `datasets` clause must be specified.")
    return [(one["dataset_name"], one.get("dataset_digest") or None) for one in given or ()]


def _experiment_id(value: Any) -> str:
    if not str(value).isdigit():
        raise mlflow_error(f"Invalid experiment ID '{value}': experiment IDs are integers.")
    return str(value)
