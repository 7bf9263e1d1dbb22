"""What is evaluated: labels, predictions and probabilities, read and checked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from mlflow_validation_evaluator.intervals import Floats
from mlflow_validation_evaluator.tables import BinaryTable, Codes, GroupTable, MulticlassTable, RegressionTable

Kind = Literal["binary", "multiclass", "regression"]
METRICS: dict[str, tuple[str, ...]] = {
    "binary": BinaryTable.metrics,
    "multiclass": MulticlassTable.metrics,
    "regression": RegressionTable.metrics,
}
SEARCHED: dict[str, tuple[str, ...]] = {
    "binary": ("accuracy", "recall", "precision", "specificity", "false_positive_rate", "false_negative_rate",
               "log_loss", "brier"),
    "multiclass": ("accuracy", "log_loss", "brier"),
    "regression": ("mae", "mse", "rmse"),
}  # fmt: skip
"""The metrics that are means of a loss over rows: what the slice search can look at."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of some rows.

    Attributes:
        labels: codes of the predicted classes, or the predicted numbers.
        scores: the probability of the positive class, shape (rows,), or of each class, shape (rows, classes).
    """

    labels: Any
    scores: Floats | None = None


@dataclass(frozen=True)
class Outcome:
    """Labels and predictions of all rows.

    Attributes:
        kind: what is predicted.
        features: the columns that slices and groups are made of; the caller's own frame, never changed.
        truth, guess: codes of the classes, or numbers.
        classes: the classes by code; of two, the second is the positive one.
        predict: gives predictions for other rows of the same columns; None without a model.
        takes: the columns that the model is given.
    """

    kind: Kind
    features: Any
    truth: Any
    guess: Any
    scores: Floats | None = None
    classes: tuple[Any, ...] = ()
    predict: Callable[[Any], Predictions] | None = None
    takes: tuple[Any, ...] = ()
    zero_division: float | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.truth)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics of groups and slices of this kind."""
        return METRICS[self.kind]

    @property
    def searched(self) -> tuple[str, ...]:
        """The metrics that slices can be searched by."""
        return tuple(m for m in SEARCHED[self.kind] if self.scores is not None or m not in ("log_loss", "brier"))

    def table(self, groups: Codes, size: int) -> GroupTable:
        """The metrics of groups, given as codes below `size`."""
        return table_of(self.kind, self.truth, self.guess, groups, size, len(self.classes), self.zero_division)

    def whole(self) -> GroupTable:
        """The metrics of all rows, as one group."""
        return self.table(np.zeros(self.rows, np.int8), 1)

    def part(self, mask: Any) -> GroupTable:
        """The metrics of some rows, as one group."""
        rows = np.flatnonzero(mask)
        zeros = np.zeros(len(rows), np.int8)
        return table_of(self.kind, self.truth[rows], self.guess[rows], zeros, 1, len(self.classes), self.zero_division)

    def loss(self, metric: str) -> tuple[Floats, Any | None]:
        """The loss of each row whose mean the metric (or its complement) is, and the rows that count; None for all."""
        if self.kind == "regression":
            return np.abs(self.guess - self.truth), None
        if metric in ("log_loss", "brier"):
            assert self.scores is not None
            return row_losses(self.truth, self.scores)[0 if metric == "log_loss" else 1], None
        wrong = (self.guess != self.truth).astype(float)
        counted = {
            "recall": self.truth == 1, "false_negative_rate": self.truth == 1, "precision": self.guess == 1,
            "specificity": self.truth == 0, "false_positive_rate": self.truth == 0,
        }.get(metric)  # fmt: skip
        return wrong, counted


def table_of(
    kind: str, truth: Any, guess: Any, groups: Codes, size: int, classes: int, zero_division: float | None
) -> GroupTable:
    """The group table of a kind of model."""
    if kind == "binary":
        return BinaryTable(truth, guess, groups, size, zero_division)
    if kind == "multiclass":
        return MulticlassTable(truth, guess, groups, size, classes)
    return RegressionTable(truth, guess, groups, size)


def row_losses(truth: Any, scores: Floats) -> tuple[Floats, Floats]:
    """Log loss and Brier score of each row; probabilities are clipped as scikit-learn's `log_loss` does."""
    tiny = np.finfo(scores.dtype).eps
    if scores.ndim == 1:
        of_truth = np.where(truth == 1, scores, 1 - scores)
        return -np.log(np.clip(of_truth, tiny, 1 - tiny)), (scores - truth) ** 2
    of_truth = scores[np.arange(len(truth)), truth]
    brier = np.einsum("ij,ij->i", scores, scores) - 2 * of_truth + 1
    return -np.log(np.clip(of_truth, tiny, 1 - tiny)), brier
