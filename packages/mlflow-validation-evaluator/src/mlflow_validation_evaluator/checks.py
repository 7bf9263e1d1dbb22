"""The checks as plain functions of arrays and frames, without MLflow.

Labels and predictions are those of a classifier or a regressor as `kind` says; by default numbers with fractions, or
more than 500 distinct values, are a regressor's. Errors are `MlflowException` with `INVALID_PARAMETER_VALUE`.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
import pandas as pd

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator import calibration, drift, groups, headline, slices
from mlflow_validation_evaluator.figures import Section
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.reading import read_outcome
from mlflow_validation_evaluator.settings import Config, Slices, read_config

Kind = Literal["classifier", "regressor"]


def figures(
    labels: Any, predictions: Any, scores: Any = None, *, kind: Kind | None = None, level: float = 0.95, **config: Any
) -> pd.DataFrame:
    """The headline figures with their confidence intervals: columns `figure`, `value`, `lower`, `upper`.

    Args:
        labels: the truth.
        predictions: of the same shape.
        scores: of a classifier, the probability of the positive class, or one column for each class in sorted order.
        kind: `classifier` or `regressor`.
        level: of the intervals.
        config: keys of the evaluator's configuration, such as `pos_label` and `resamples`.
    """
    outcome, checked = _outcome(None, labels, predictions, kind, config | {"confidence": level}, scores)
    rows = []
    for figure in headline.headline(outcome, checked.resamples, checked.seed):
        low, high = figure.bounds(level) or (np.nan, np.nan)
        rows.append({"figure": figure.name, "value": figure.value, "lower": low, "upper": high})
    return pd.DataFrame(rows)


def group_metrics(
    labels: Any, predictions: Any, by: Any, *, kind: Kind | None = None, level: float = 0.95, **config: Any
) -> pd.DataFrame:
    """Metrics of each group with confidence intervals.

    Args:
        labels: the truth.
        predictions: of the same shape.
        by: the group of each row: an array, a Series, or a frame whose combinations are the groups.
        kind: `classifier` or `regressor`.
        level: of the intervals.
        config: keys of the evaluator's configuration.
    """
    return _fairness(labels, predictions, by, kind, level, config).tables["groups"]


def group_gaps(
    labels: Any, predictions: Any, by: Any, *, kind: Kind | None = None, level: float = 0.95, **config: Any
) -> pd.DataFrame:
    """Gap and ratio of each metric between the groups: columns `figure`, `value`, `lower`, `upper`, `between`.

    Arguments as for `group_metrics`.
    """
    table = _fairness(labels, predictions, by, kind, level, config).tables["gaps"]
    return table[table["figure"].str.count(r"\.") == 1].reset_index(drop=True)


def find_slices(
    features: pd.DataFrame,
    labels: Any,
    predictions: Any,
    *,
    kind: Kind | None = None,
    scores: Any = None,
    **search: Any,
) -> pd.DataFrame:
    """The slices that are worse than the rest beyond chance, the most certain first.

    Args:
        features: the columns to search.
        labels: the truth.
        predictions: of the same length.
        kind: `classifier` or `regressor`.
        scores: probabilities, to search by `log_loss` or `brier`.
        search: keys of the configuration's `slices`, such as `metric`, `depth`, `rate`.
    """
    outcome, _ = _outcome(features, labels, predictions, kind, {"slices": search}, scores)
    wanted = read_config({"slices": search}, {}).slices
    assert isinstance(wanted, Slices)
    found = slices.search(outcome, wanted, [])
    return slices.found_frame(outcome, found, [outcome.part(f.mask()) for f in found], 0.95)


def expected_calibration_error(
    labels: Any, scores: Any, *, bins: int = 10, strategy: Literal["uniform", "quantile"] = "uniform"
) -> float:
    """The expected calibration error of probabilities of the label 1 (or True)."""
    return calibration.ece_of(reliability_curve(labels, scores, bins=bins, strategy=strategy))


def reliability_curve(
    labels: Any, scores: Any, *, bins: int = 10, strategy: Literal["uniform", "quantile"] = "uniform"
) -> pd.DataFrame:
    """Mean prediction (`predicted`) and frequency (`observed`) of each bin of probabilities, with its `rows`."""
    truth, probability = np.asarray(labels, float), np.asarray(scores, float)
    if truth.shape != probability.shape or not np.all((probability >= 0) & (probability <= 1)):
        raise mlflow_error("Give a label (0 or 1) and a probability between 0 and 1 for each row.")
    return calibration.reliability(truth, probability, bins, strategy).drop(columns="error")


def drift_table(reference: pd.DataFrame, current: pd.DataFrame, *, bins: int = 10, alpha: float = 0.05) -> pd.DataFrame:
    """PSI, Jensen-Shannon distance and tests of each column that both frames have, the most changed first."""
    outcome = Outcome("regression", current, np.zeros(len(current)), np.zeros(len(current)))
    config = read_config({"drift": {"reference": reference, "bins": bins, "alpha": alpha}}, {})
    frame: pd.DataFrame = drift.drift(outcome, config).tables["drift"]
    return frame


def population_stability_index(reference: Any, current: Any, *, bins: int = 10) -> float:
    """The PSI of one column: quantile bins of the reference for numbers and dates, values otherwise."""
    return float(drift.compare(pd.Series(reference), pd.Series(current), bins)["psi"])


def _fairness(labels: Any, predictions: Any, by: Any, kind: Any, level: float, config: dict[str, Any]) -> Section:
    frame = by if isinstance(by, pd.DataFrame) else pd.DataFrame({getattr(by, "name", None) or "group": by})
    columns = [tuple(frame.columns)] if frame.shape[1] > 1 else list(frame.columns)
    given = config | {"confidence": level, "fairness": {"columns": columns}}
    outcome, checked = _outcome(frame.reset_index(drop=True), labels, predictions, kind, given)
    return groups.fairness(outcome, checked)


def _outcome(
    features: Any, labels: Any, predictions: Any, kind: Kind | None, config: dict[str, Any], scores: Any = None
) -> tuple[Outcome, Config]:
    truth = np.asarray(labels)
    frame = pd.DataFrame(index=range(len(truth))) if features is None else features.reset_index(drop=True)
    if scores is not None:
        wide = np.asarray(scores, float).reshape(len(truth), -1)
        names = tuple(f"probability {i}" for i in range(wide.shape[1]))
        frame = frame.assign(**dict(zip(names, wide.T, strict=True)))
        config = config | {"scores": names[0] if len(names) == 1 else names}
    if len(np.asarray(predictions)) != len(truth) or len(frame) != len(truth):
        raise mlflow_error(f"There are {len(truth)} labels, but other numbers of predictions or rows.")
    checked = read_config(config, {})
    dataset = SimpleNamespace(features_data=frame, labels_data=truth, predictions_data=np.asarray(predictions))
    return read_outcome(None, kind or _guessed(truth), dataset, None, checked), checked


def _guessed(truth: Any) -> str:
    if truth.dtype.kind == "f" and (np.any(truth != np.floor(truth)) or len(np.unique(truth)) > 500):
        return "regressor"
    return "regressor" if truth.dtype.kind in "iu" and len(np.unique(truth)) > 500 else "classifier"
