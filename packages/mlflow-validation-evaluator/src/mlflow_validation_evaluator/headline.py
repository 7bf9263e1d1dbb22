"""The figures of all rows, each with a confidence interval that fits it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

import numpy as np

from mlflow_validation_evaluator.figures import Figure, Interval
from mlflow_validation_evaluator.intervals import Floats, StudentisedBootstrap, logit_normal, median_interval
from mlflow_validation_evaluator.outcome import Outcome, row_losses
from mlflow_validation_evaluator.tables import GroupTable

WILSON = "Wilson score"
MOVER = "MOVER of Wilson scores"
METHODS = {"f1": "Wilson score of TP/(TP+FP+FN), transformed", "balanced_accuracy": MOVER}
MULTICLASS_METHODS = {"accuracy": WILSON, "f1": "delta method, logit scale"}
BOOTSTRAP = "studentised bootstrap"
Function = Callable[[Floats], tuple[Floats, Floats]]


def headline(outcome: Outcome, resamples: int, seed: int) -> list[Figure]:
    """The figures of all rows."""
    if outcome.kind == "regression":
        return list(_regression(outcome, resamples, seed))
    table = outcome.whole()
    found = [_of_table(table, metric, outcome.kind) for metric in table.metrics]
    return found + list(_of_scores(outcome, resamples, seed))


def names(outcome: Outcome) -> list[str]:
    """The names of the figures that `headline` gives and that calibration adds."""
    if outcome.kind == "regression":
        return ["mae", "mse", "rmse", "mean_error", "median_absolute_error", "r2"]
    scored = ["roc_auc", "log_loss", "brier", "ece"] if outcome.scores is not None else []
    return [*outcome.metrics, *scored]


def _of_table(table: GroupTable, metric: str, kind: str) -> Figure:
    value = float(table.value(metric)[0])

    def interval(level: float) -> Interval:
        low, high = table.interval(metric, level)
        return float(low[0]), float(high[0])

    method = METHODS.get(metric, WILSON) if kind == "binary" else MULTICLASS_METHODS.get(metric, MOVER)
    undefined = "" if np.isfinite(value) else table.why_undefined(metric)
    return Figure(metric, value, interval, method, undefined, headline=True)


def _of_scores(outcome: Outcome, resamples: int, seed: int) -> Iterator[Figure]:
    if outcome.scores is None:
        return
    yield _roc_auc(outcome)
    losses = np.stack(row_losses(outcome.truth, outcome.scores), axis=1)
    means = losses.mean(axis=0)
    bootstrap = _lazy(lambda: StudentisedBootstrap(losses, resamples, seed))
    for column, name in enumerate(("log_loss", "brier")):
        yield _bootstrapped(name, float(means[column]), bootstrap, log_of(column), np.exp)


def _regression(outcome: Outcome, resamples: int, seed: int) -> Iterator[Figure]:
    error = outcome.guess - outcome.truth
    size = np.abs(error)
    # Centred, for squares of large numbers that vary little would lose the digits that matter.
    level = outcome.truth - outcome.truth.mean()
    columns = np.stack([size, error**2, error, level, level**2], axis=1)
    mae, mse, mean_error, _, spread = (float(v) for v in columns.mean(axis=0))
    bootstrap = _lazy(lambda: StudentisedBootstrap(columns, resamples, seed))
    yield _bootstrapped("mae", mae, bootstrap, log_of(0), np.exp)
    yield _bootstrapped("mse", mse, bootstrap, log_of(1), np.exp)
    yield _bootstrapped("rmse", float(np.sqrt(mse)), bootstrap, log_of(1), lambda v: np.exp(v / 2))
    yield _bootstrapped("mean_error", mean_error, bootstrap, identity_of(2), lambda v: v)
    yield Figure(
        "median_absolute_error", float(np.median(size)), lambda level: median_interval(size, level),
        "order statistics", headline=True,
    )  # fmt: skip
    if spread > 0 and outcome.rows > 1:
        # A larger 1 - R2 is a smaller R2: the ends change places.
        yield _bootstrapped("r2", 1 - mse / spread, bootstrap, log_unexplained, lambda v: 1 - np.exp(v), turned=True)
    else:
        yield Figure("r2", float("nan"), undefined="all labels are the same", headline=True)


def _bootstrapped(
    name: str, value: float, bootstrap: Any, function: Function, back: Any, *, turned: bool = False
) -> Figure:
    def interval(level: float) -> Interval:
        low, high = bootstrap().interval(function, level)
        low, high = float(back(low)), float(back(high))
        return (high, low) if turned else (low, high)

    return Figure(name, value, interval, BOOTSTRAP, headline=True)


def log_of(column: int) -> Function:
    """The logarithm of a column's mean, with its gradient."""

    def function(means: Floats) -> tuple[Floats, Floats]:
        gradient = np.zeros_like(means)
        gradient[:, column] = 1 / means[:, column]
        return np.log(means[:, column]), gradient

    return function


def identity_of(column: int) -> Function:
    """A column's mean, with its gradient."""

    def function(means: Floats) -> tuple[Floats, Floats]:
        gradient = np.zeros_like(means)
        gradient[:, column] = 1
        return means[:, column], gradient

    return function


def log_unexplained(means: Floats) -> tuple[Floats, Floats]:
    """`log(1 - R2)` from the means of squared errors (1), centred labels (3) and their squares (4)."""
    mse, centre, square = means[:, 1], means[:, 3], means[:, 4]
    variance = square - centre**2
    gradient = np.zeros_like(means)
    gradient[:, 1], gradient[:, 3], gradient[:, 4] = 1 / mse, 2 * centre / variance, -1 / variance
    return np.log(mse) - np.log(variance), gradient


def _roc_auc(outcome: Outcome) -> Figure:
    assert outcome.scores is not None
    present = np.bincount(outcome.truth, minlength=len(outcome.classes)) > 0
    if not present.all():
        missing = [str(c) for c, there in zip(outcome.classes, present, strict=True) if not there]
        why = f"the labels lack the class {', '.join(missing[:5])}"
        return Figure("roc_auc", float("nan"), undefined=why, headline=True)
    if outcome.scores.ndim == 1:
        value, influence, smaller = auc(outcome.truth == 1, outcome.scores)
    else:
        parts = [auc(outcome.truth == k, outcome.scores[:, k]) for k in range(len(outcome.classes))]
        value = float(np.mean([p[0] for p in parts]))
        influence = np.mean([p[1] for p in parts], axis=0)
        smaller = min(p[2] for p in parts)
    error = float(np.sqrt(np.sum(influence**2)) / outcome.rows)

    def interval(level: float) -> Interval:
        if value in (0.0, 1.0):
            # Perfect separation has no variance; as many pairs in a row without a miss say how good it must be.
            edge = float(((1 - level) / 2) ** (1 / smaller))
            return (edge, 1.0) if value == 1.0 else (0.0, 1 - edge)
        return logit_normal(value, error, level)

    return Figure("roc_auc", value, interval, "DeLong, logit scale", headline=True)


def auc(positive: Any, scores: Floats) -> tuple[float, Floats, int]:
    """The area under the ROC curve, the influence of each row (DeLong 1988), and the size of the smaller class."""
    n1 = int(positive.sum())
    n0 = len(positive) - n1
    ranks = midranks(scores)
    value = (float(ranks[positive].sum()) - n1 * (n1 + 1) / 2) / (n1 * n0)
    within = np.empty(len(scores))
    within[positive], within[~positive] = midranks(scores[positive]), midranks(scores[~positive])
    beaten = ranks - within
    # For a positive: the share of negatives below it; for a negative: the share of positives above it.
    placement = np.where(positive, beaten / n0, 1 - beaten / n1)
    factor = np.where(
        positive, len(positive) / np.sqrt(n1 * max(n1 - 1, 1)), len(positive) / np.sqrt(n0 * max(n0 - 1, 1))
    )
    return value, (placement - value) * factor, min(n1, n0)


def midranks(values: Floats) -> Floats:
    """Ranks from 1; equal values share the mean of theirs."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[starts[1:], len(values)]
    ranks = np.empty(len(values))
    ranks[order] = np.repeat((starts + 1 + ends) / 2, ends - starts)
    return ranks


def _lazy(make: Callable[[], StudentisedBootstrap]) -> Callable[[], StudentisedBootstrap]:
    return lru_cache(maxsize=1)(make)
