"""Metrics by group through fairlearn's MetricFrame: for functions of the user's own. Needs the extra `fairlearn`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.requirements import require
from mlflow_validation_evaluator.columns import MISSING
from mlflow_validation_evaluator.figures import Figure
from mlflow_validation_evaluator.groups import grouped
from mlflow_validation_evaluator.outcome import Outcome

DISTRIBUTION = "mlflow-validation-evaluator"


def function_figures(outcome: Outcome, columns: Sequence[Any], functions: Mapping[str, Any]) -> list[Figure]:
    """`gap.<name>.<column>` and `ratio.<name>.<column>` of functions `f(labels, predictions)`.

    Raises:
        MlflowException: `FEATURE_DISABLED` without fairlearn, `INVALID_PARAMETER_VALUE` where a name is taken.
    """
    metrics = require("fairlearn.metrics", distribution=DISTRIBUTION, extra="fairlearn")
    taken = [name for name in functions if name in outcome.metrics or "." in name]
    if taken:
        raise mlflow_error(
            f"The name {taken[0]!r} in 'fairness.functions' is taken or holds a dot: choose another one."
        )
    truth, guess = _decoded(outcome, outcome.truth), _decoded(outcome, outcome.guess)
    found = []
    for names in columns:
        groups = grouped(outcome.features, names, "key 'fairness.columns'", bins=None)
        texts = np.asarray(groups.texts, object)[groups.codes]
        frame = metrics.MetricFrame(
            metrics=dict(functions),
            y_true=truth,
            y_pred=guess,
            sensitive_features=np.where(texts == "", MISSING, texts),
        )
        gaps, ratios = frame.difference(), frame.ratio()
        for name in functions:
            found.append(Figure(f"gap.{name}.{groups.name}", float(gaps[name])))
            found.append(Figure(f"ratio.{name}.{groups.name}", float(ratios[name])))
    return found


def _decoded(outcome: Outcome, codes: Any) -> Any:
    return codes if outcome.kind == "regression" else np.array(outcome.classes)[codes]
