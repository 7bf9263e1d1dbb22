"""The checks as metrics for `mlflow.models.evaluate(..., extra_metrics=[...])`, for any evaluator.

MLflow hands a metric the columns that its function's parameters name. So a column whose name is no Python identifier
has to be renamed with MLflow's `col_mapping`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from mlflow.models import EvaluationMetric, make_metric

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator import checks
from mlflow_validation_evaluator.figures import higher_is_better


def gap(metric: str, by: str) -> EvaluationMetric:
    """`gap_<metric>_by_<column>`: the largest difference of a group metric between the values of a column."""
    return _between("gap", metric, by)


def ratio(metric: str, by: str) -> EvaluationMetric:
    """`ratio_<metric>_by_<column>`: the smallest over the largest value of a group metric."""
    return _between("ratio", metric, by)


def worst_slice(metric: str, by: str) -> EvaluationMetric:
    """`worst_<metric>_by_<column>`: the worst value of a metric among the values of a column."""

    def function(predictions: Any, targets: Any, column: Any) -> float:
        values = checks.group_metrics(targets, predictions, column)[metric]
        return float(values.min() if higher_is_better(metric) else values.max())

    return _metric(function, f"worst_{metric}_by_{by}", by, bool(higher_is_better(metric)))


def ece(scores: str, bins: int = 10) -> EvaluationMetric:
    """`ece`: the expected calibration error of the probabilities in a column. Labels are 0 and 1."""

    def function(predictions: Any, targets: Any, column: Any) -> float:
        return checks.expected_calibration_error(targets, column, bins=bins)

    return _metric(function, "ece", scores, False)


def brier(scores: str) -> EvaluationMetric:
    """`brier`: the Brier score of the probabilities in a column. Labels are 0 and 1."""

    def function(predictions: Any, targets: Any, column: Any) -> float:
        return float(np.mean((np.asarray(column, float) - np.asarray(targets, float)) ** 2))

    return _metric(function, "brier", scores, False)


def psi(column: str, reference: Any) -> EvaluationMetric:
    """`psi_<column>`: the population stability index of a column against the values of a reference."""

    def function(predictions: Any, targets: Any, column: Any) -> float:
        return checks.population_stability_index(reference, column)

    return _metric(function, f"psi_{column}", column, False)


def _between(what: Literal["gap", "ratio"], metric: str, by: str) -> EvaluationMetric:
    def function(predictions: Any, targets: Any, column: Any) -> float:
        table = checks.group_gaps(targets, predictions, column).set_index("figure")["value"]
        return float(table.get(f"{what}.{metric}", np.nan))

    return _metric(function, f"{what}_{metric}_by_{by}", by, what == "ratio")


def _metric(function: Callable[..., float], name: str, column: str, greater: bool) -> EvaluationMetric:
    if not column.isidentifier():
        raise mlflow_error(
            f"MLflow finds a metric's column by a parameter's name, which {column!r} cannot be. Rename the column, "
            "or give another name here and map it with 'col_mapping' in the evaluator_config."
        )

    def called(*arguments: Any) -> float:
        return function(*arguments)

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    names = ("predictions", "targets", column)
    called.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in names])  # type: ignore[attr-defined]
    metric: EvaluationMetric = make_metric(eval_fn=called, greater_is_better=greater, name=name)
    return metric
