"""What `query_trace_metrics` can be asked: metrics, aggregations and dimensions by view (MLflow's REST reference)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from mlflow_plugkit.errors import mlflow_error

_NUMBERS = frozenset({"AVG", "MIN", "MAX", "PERCENTILE"})
_SUMS = _NUMBERS | {"SUM"}
_COUNT = frozenset({"COUNT"})
_MODELS = ("span_model_name", "span_model_provider")


class Metric(NamedTuple):
    """A metric of a view.

    Attributes:
        field: what holds the value; None where documents are counted.
        aggregations: what can be made of it.
        dimensions: what it can be grouped by.
    """

    field: str | None
    aggregations: frozenset[str]
    dimensions: tuple[str, ...]


_TOKENS = ("input_tokens", "output_tokens", "total_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
METRICS: dict[str, dict[str, Metric]] = {
    "TRACES": {
        "trace_count": Metric(None, _COUNT, ("trace_name", "trace_status")),
        "session_count": Metric("session_id", _COUNT, ()),
        "latency": Metric("execution_time_ms", _NUMBERS, ("trace_name",)),
        **{name: Metric(name, _SUMS, ("trace_name",)) for name in _TOKENS},
    },
    "SPANS": {
        "span_count": Metric(None, _COUNT, ("span_name", "span_type", "span_status", *_MODELS)),
        "latency": Metric("latency_ms", _NUMBERS, ("span_name", "span_status")),
        **{name: Metric(name, _SUMS, _MODELS) for name in ("input_cost", "output_cost", "total_cost")},
    },
    "ASSESSMENTS": {
        "assessment_count": Metric(None, _COUNT, ("assessment_name", "assessment_value")),
        "assessment_value": Metric("value", _NUMBERS, ("assessment_name",)),
    },
}
#: Where a dimension is kept.
DIMENSIONS = {
    "trace_name": "name",
    "trace_status": "status",
    "span_name": "name",
    "span_type": "type",
    "span_status": "status",
    "span_model_name": "model_name",
    "span_model_provider": "model_provider",
    "assessment_name": "name",
    "assessment_value": "value",
}


def checked(view: str, metric_name: str, aggregations: Sequence[Any], dimensions: Sequence[str]) -> Metric:
    """The metric.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what cannot be asked.
    """
    if view not in METRICS:
        raise mlflow_error(f"view_type must be one of {list(METRICS)}, got '{view}'")
    metric = METRICS[view].get(metric_name)
    if metric is None:
        raise mlflow_error(f"metric_name must be one of {list(METRICS[view])}, got '{metric_name}'")
    unknown = sorted({a.aggregation_type.value for a in aggregations} - metric.aggregations)
    if unknown:
        raise mlflow_error(
            f"Found invalid aggregation_type(s): {unknown}. Supported aggregation types: {sorted(metric.aggregations)}"
        )
    strange = sorted(set(dimensions) - set(metric.dimensions))
    if strange:
        raise mlflow_error(f"Found invalid dimension(s): {strange}. Supported dimensions: {sorted(metric.dimensions)}")
    return metric
