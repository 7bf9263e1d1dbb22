"""Metrics of many groups at once, from counts and sums. A group may be a slice, or all rows.

A table is made from one pass over the rows (`numpy.bincount`); what follows costs per group, not per row.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.intervals import Floats, mover_mean, normal_quantile, wilson

Codes = NDArray[Any]
MOST_CELLS = 20_000_000
ALL = ("tp", "tn", "fp", "fn")
#: Numerator and denominator of each rate, in cells of the confusion matrix.
RATES: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "accuracy": (("tp", "tn"), ALL),
    "precision": (("tp",), ("tp", "fp")),
    "recall": (("tp",), ("tp", "fn")),
    "specificity": (("tn",), ("tn", "fp")),
    "false_positive_rate": (("fp",), ("tn", "fp")),
    "false_negative_rate": (("fn",), ("tp", "fn")),
    "selection_rate": (("tp", "fp"), ALL),
}
WITHOUT = {
    "precision": "nothing is predicted positive",
    "recall": "there are no positives",
    "specificity": "there are no negatives",
    "false_positive_rate": "there are no negatives",
    "false_negative_rate": "there are no positives",
    "f1": "there are no positives, and none are predicted",
    "balanced_accuracy": "only one class occurs",
}


class GroupTable(ABC):
    """Metrics of groups.

    Attributes:
        metrics: the names that `value` and `interval` take.
        count: rows of each group, shape (groups,).
    """

    metrics: tuple[str, ...]
    count: Floats

    @abstractmethod
    def value(self, metric: str) -> Floats:
        """The metric of each group; NaN where it is undefined."""

    @abstractmethod
    def interval(self, metric: str, level: float) -> tuple[Floats, Floats]:
        """Lower and upper ends of the confidence intervals of each group; NaN where there is none."""

    def support(self, metric: str) -> Floats:
        """How many rows of each group the metric rests on: the positives, for recall."""
        return self.count

    def why_undefined(self, metric: str) -> str:
        """Why a metric of a group may be undefined."""
        return WITHOUT.get(metric, "there are no rows")


class BinaryTable(GroupTable):
    """Groups of a binary classifier, from the four cells of each one's confusion matrix."""

    metrics = ("accuracy", "balanced_accuracy", "precision", "recall", "specificity", "f1", "selection_rate",
               "false_positive_rate", "false_negative_rate")  # fmt: skip

    def __init__(self, truth: Codes, guess: Codes, groups: Codes, size: int, zero_division: float | None) -> None:
        cells = np.bincount((groups.astype(np.int64) * 2 + truth) * 2 + guess, minlength=size * 4).reshape(size, 4)
        self._cells = dict(zip(("tn", "fp", "fn", "tp"), cells.T.astype(float), strict=True))
        self.count = cells.sum(axis=1).astype(float)
        self._undefined = np.nan if zero_division is None else zero_division

    def value(self, metric: str) -> Floats:
        if metric == "balanced_accuracy":
            return (self.value("recall") + self.value("specificity")) / 2
        if metric == "f1":
            tp, wrong = self._cells["tp"], self._cells["fp"] + self._cells["fn"]
            return self._ratio(2 * tp, 2 * tp + wrong)
        return self._ratio(*self._parts(metric))

    def interval(self, metric: str, level: float) -> tuple[Floats, Floats]:
        if metric == "balanced_accuracy":
            both = [wilson(*self._parts(m), level) for m in ("recall", "specificity")]
            values = np.stack([self._ratio(*self._parts(m), np.nan) for m in ("recall", "specificity")])
            low, high = mover_mean(values, np.stack([b[0] for b in both]), np.stack([b[1] for b in both]), axis=0)
            missing = np.isnan(values).any(axis=0)
            return np.where(missing, np.nan, low), np.where(missing, np.nan, high)
        if metric == "f1":
            # F1 = 2J/(1+J), where J is the share of true positives among all but the true negatives: a proportion.
            tp = self._cells["tp"]
            low, high = wilson(tp, tp + self._cells["fp"] + self._cells["fn"], level)
            return 2 * low / (1 + low), 2 * high / (1 + high)
        return wilson(*self._parts(metric), level)

    def support(self, metric: str) -> Floats:
        if metric == "f1":
            return np.asarray(self._cells["tp"] + self._cells["fp"] + self._cells["fn"])
        if metric == "balanced_accuracy":
            return np.minimum(self.support("recall"), self.support("specificity"))
        return np.asarray(self._parts(metric)[1])

    def _parts(self, metric: str) -> tuple[Floats, Floats]:
        above, below = RATES[metric]
        return sum(self._cells[c] for c in above), sum(self._cells[c] for c in below)  # type: ignore[return-value]

    def _ratio(self, above: Floats, below: Floats, undefined: float | None = None) -> Floats:
        otherwise = np.where(self.count == 0, np.nan, self._undefined if undefined is None else undefined)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(below > 0, above / below, otherwise)


class MulticlassTable(GroupTable):
    """Groups of a classifier of several classes. Averages are macro averages over the classes that occur in a group.

    Within an average a class without predictions (or without rows) counts 0, as in scikit-learn.
    """

    metrics = ("accuracy", "balanced_accuracy", "precision", "recall", "f1")

    def __init__(self, truth: Codes, guess: Codes, groups: Codes, size: int, classes: int) -> None:
        if size * classes * classes > MOST_CELLS:
            raise mlflow_error(
                f"{size} groups of {classes} classes are more than can be compared at once. Choose columns with fewer "
                f"values: at most {MOST_CELLS // classes**2} groups."
            )
        codes = (groups.astype(np.int64) * classes + truth) * classes + guess
        self._confusion = np.bincount(codes, minlength=size * classes**2).reshape(size, classes, classes)
        self._right = np.diagonal(self._confusion, axis1=1, axis2=2).astype(float)
        self._true = self._confusion.sum(axis=2).astype(float)
        self._predicted = self._confusion.sum(axis=1).astype(float)
        self._present = (self._true + self._predicted) > 0
        self.count = self._true.sum(axis=1)

    def value(self, metric: str) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            if metric == "accuracy":
                return np.asarray(self._right.sum(axis=1) / self.count)
            values = self._by_class(metric)
            return np.asarray(np.nansum(values, axis=1) / np.sum(~np.isnan(values), axis=1))

    def interval(self, metric: str, level: float) -> tuple[Floats, Floats]:
        if metric == "accuracy":
            return wilson(self._right.sum(axis=1), self.count, level)
        if metric == "f1":
            return self._f1_interval(level)
        values = self._by_class(metric)
        low, high = wilson(self._right, self._predicted if metric == "precision" else self._true, level)
        low, high = np.where(np.isnan(low), values, low), np.where(np.isnan(high), values, high)
        return mover_mean(values, low, high, axis=1)

    def _by_class(self, metric: str) -> Floats:
        below = {
            "precision": self._predicted,
            "recall": self._true,
            "balanced_accuracy": self._true,
            "f1": (self._true + self._predicted) / 2,
        }[metric]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = np.where(below > 0, self._right / below, 0.0)
        counts = self._true > 0 if metric == "balanced_accuracy" else self._present
        return np.where(counts, values, np.nan)

    def _f1_interval(self, level: float) -> tuple[Floats, Floats]:
        """The delta method on the logit scale, from the influence of each cell of the confusion matrix."""
        value = self.value("f1")
        f1 = np.nan_to_num(self._by_class("f1"))
        with np.errstate(divide="ignore", invalid="ignore"):
            inverse = np.where(self._present, 1 / (self._true + self._predicted), 0.0)
            part = f1 * inverse
            influence = part[:, :, None] + part[:, None, :]
            diagonal = np.arange(f1.shape[1])
            influence[:, diagonal, diagonal] -= 2 * inverse
            variance = np.sum(self._confusion * influence**2, axis=(1, 2)) / np.sum(self._present, axis=1) ** 2
            half = normal_quantile(level) * np.sqrt(variance) / (value * (1 - value))
            low, high = special.expit(special.logit(value) - half), special.expit(special.logit(value) + half)
        certain = variance == 0
        return np.where(certain, value, low), np.where(certain, value, high)


class RegressionTable(GroupTable):
    """Groups of a regressor."""

    metrics = ("mae", "mse", "rmse", "mean_error", "mean_prediction")

    def __init__(self, truth: Floats, guess: Floats, groups: Codes, size: int) -> None:
        error = guess - truth
        codes = groups.astype(np.int64)
        self.count = np.bincount(codes, minlength=size).astype(float)
        columns = {"mae": np.abs(error), "mse": error**2, "mean_error": error, "mean_prediction": guess}
        self._mean, self._deviation = {}, {}
        with np.errstate(divide="ignore", invalid="ignore"):
            for name, column in columns.items():
                mean = np.bincount(codes, weights=column, minlength=size) / self.count
                left = np.bincount(codes, weights=(column - mean[codes]) ** 2, minlength=size)
                self._mean[name], self._deviation[name] = mean, np.sqrt(left / (self.count - 1))

    def value(self, metric: str) -> Floats:
        return np.sqrt(self._mean["mse"]) if metric == "rmse" else self._mean[metric]

    def interval(self, metric: str, level: float) -> tuple[Floats, Floats]:
        if metric == "rmse":
            low, high = self.interval("mse", level)
            return np.sqrt(low), np.sqrt(high)
        mean = self._mean[metric]
        with np.errstate(divide="ignore", invalid="ignore"):
            quantile = special.stdtrit(np.maximum(self.count - 1, 1), (1 + level) / 2)
            # A single row says nothing of the spread: its interval is without end.
            half = np.where(self.count > 1, quantile * self._deviation[metric] / np.sqrt(self.count), np.inf)
            half = np.where(self.count > 0, half, np.nan)
            if metric in ("mae", "mse"):
                # On the log scale: sizes of errors are positive and skewed.
                factor = np.exp(np.where(mean > 0, half / mean, 0.0 * half))
                return mean / factor, mean * factor
        return mean - half, mean + half
