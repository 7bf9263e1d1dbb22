"""The caller's `extra_metrics`: computed here as well, so that gates can name them."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.figures import Figure
from mlflow_validation_evaluator.outcome import Outcome


def user_figures(metrics: Sequence[Any] | None, outcome: Outcome) -> list[Figure]:
    """The figures of `mlflow.models.make_metric` metrics.

    A function is given what its parameters name: `predictions`, `targets`, `metrics` (empty here), or a column of the
    data; with two parameters of other names it gets a frame of both and the metrics, as MLflow's own evaluator does it.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a parameter that is none of those and has no default.
    """
    return [figure for metric in metrics or () for figure in _figures(metric, outcome)]


def _figures(metric: Any, outcome: Outcome) -> list[Figure]:
    truth, guess = _decoded(outcome, outcome.truth), _decoded(outcome, outcome.guess)
    found = metric.eval_fn(*_arguments(metric, outcome.features, truth, guess))
    aggregated = getattr(found, "aggregate_results", None)
    if aggregated is not None:
        return [Figure(f"{metric.name}/{k}", float(v)) for k, v in aggregated.items()]
    if not isinstance(found, (int, float, np.number)):
        return []
    return [Figure(metric.name, float(found), undefined="it is not a number", headline=True)]


def _arguments(metric: Any, features: Any, truth: Any, guess: Any) -> list[Any]:
    parameters = inspect.signature(metric.eval_fn).parameters
    plain = [p for p in parameters.values() if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    names = [p.name for p in plain]
    if len(names) == 2 and not {"predictions", "targets"} & set(names):
        return [pd.DataFrame({"prediction": guess, "target": truth}), {}]
    given = {"predictions": guess, "targets": truth, "metrics": {}}
    arguments = []
    for parameter in plain:
        if parameter.name in given:
            arguments.append(given[parameter.name])
        elif parameter.name in features.columns:
            arguments.append(features[parameter.name])
        elif parameter.default is not parameter.empty:
            arguments.append(parameter.default)
        else:
            raise mlflow_error(
                f"The extra metric {metric.name!r} wants {parameter.name!r}, which is neither predictions, targets, "
                "metrics nor a column of the data."
            )
    return arguments


def _decoded(outcome: Outcome, codes: Any) -> Any:
    values = codes if outcome.kind == "regression" else np.array(outcome.classes, object)[codes]
    return pd.Series(values).infer_objects()
