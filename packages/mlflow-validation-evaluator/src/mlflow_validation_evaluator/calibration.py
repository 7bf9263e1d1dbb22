"""The section on calibration: reliability curves and the expected calibration error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlflow_validation_evaluator.figures import Figure, Interval, Section
from mlflow_validation_evaluator.intervals import Floats, sum_of_absolutes, wilson
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.settings import Config


def calibration(outcome: Outcome, config: Config) -> Section | None:
    """The section on calibration; None where there are no probabilities.

    `ece` of a binary classifier compares the probability of the positive class with its frequency; of several
    classes, the probability of the predicted class with the share of right predictions.
    """
    wanted = config.calibration
    assert wanted
    if outcome.scores is None:
        return None
    confidence, hit = confidences(outcome)
    curve = reliability(hit, confidence, wanted.bins, wanted.strategy)
    section = Section("Calibration")
    value = ece_of(curve)
    weights = curve["rows"].to_numpy(float) / outcome.rows
    gaps, errors = (curve["observed"] - curve["predicted"]).to_numpy(), curve["error"].to_numpy()

    def interval(level: float) -> Interval:
        return sum_of_absolutes(weights, gaps, errors, level, config.seed)

    section.figures.append(Figure("ece", value, interval, "hierarchical Bayes", headline=True))
    low, high = wilson(curve["observed"] * curve["rows"], curve["rows"], config.confidence)
    curve["observed.lower"], curve["observed.upper"] = low, high
    section.add_table("reliability", curve.drop(columns="error"), "Predicted and observed frequencies")
    worst = curve.iloc[int(np.argmax(np.abs(gaps) * weights))]
    section.text.append(
        f"Predicted probabilities differ from what happens by {value:.3g} on average. It comes most from those around "
        f"{worst['predicted']:.2f}, of which {worst['observed']:.2f} come true ({int(worst['rows']):,} rows)."
    )
    return section


def confidences(outcome: Outcome) -> tuple[Floats, Any]:
    """Of each row the probability that is checked, and whether what it is the probability of is true."""
    assert outcome.scores is not None
    if outcome.scores.ndim == 1:
        return outcome.scores, outcome.truth == 1
    top = np.argmax(outcome.scores, axis=1)
    return outcome.scores[np.arange(outcome.rows), top], top == outcome.truth


def reliability(hit: Any, confidence: Floats, bins: int, strategy: str) -> pd.DataFrame:
    """The reliability curve: mean prediction and observed frequency of each bin with rows in it.

    Bins as scikit-learn's `calibration_curve` makes them: a probability on an edge belongs to the lower bin.

    Returns:
        Columns `predicted`, `observed`, `rows`, and `error`: the standard error of `observed - predicted`.
    """
    if strategy == "quantile":
        edges = np.quantile(confidence, np.linspace(0, 1, bins + 1))
    else:
        edges = np.linspace(0, 1, bins + 1)
    codes = np.searchsorted(edges[1:-1], confidence)
    rows = np.bincount(codes, minlength=bins).astype(float)
    filled = rows > 0
    difference = hit - confidence
    with np.errstate(divide="ignore", invalid="ignore"):
        predicted = np.bincount(codes, weights=confidence, minlength=bins) / rows
        observed = np.bincount(codes, weights=np.asarray(hit, float), minlength=bins) / rows
        mean = observed - predicted
        squares = np.bincount(codes, weights=(difference - mean[codes]) ** 2, minlength=bins)
        # A bin in which all are right (or wrong) has no spread of its own, but that of what was predicted.
        expected = np.bincount(codes, weights=confidence * (1 - confidence), minlength=bins) / rows
        error = np.sqrt(np.maximum(squares / np.maximum(rows - 1, 1), expected) / rows)
    frame = pd.DataFrame({"predicted": predicted, "observed": observed, "rows": rows, "error": error})
    frame = frame[filled].reset_index(drop=True)
    return frame.astype({"rows": np.int64})


def ece_of(curve: pd.DataFrame) -> float:
    """The expected calibration error of a reliability curve."""
    weights = curve["rows"] / curve["rows"].sum()
    return float(np.sum(weights * np.abs(curve["observed"] - curve["predicted"])))
