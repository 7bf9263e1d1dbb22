"""Validation of classifiers and regressors: `mlflow.models.evaluate(..., evaluators="validation")`.

Slices, fairness, calibration, drift and robustness, with confidence intervals and gates. The same checks are
plain functions (`mlflow_validation_evaluator.checks`), and metrics for `extra_metrics=`
(`mlflow_validation_evaluator.extra`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_validation_evaluator.broken import GatesBrokenError

__all__ = ["GatesBrokenError"]


def __getattr__(name: str) -> Any:
    if name != "GatesBrokenError":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow_validation_evaluator.broken import GatesBrokenError

    return GatesBrokenError
