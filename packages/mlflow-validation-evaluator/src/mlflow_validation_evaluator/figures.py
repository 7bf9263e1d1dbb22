"""What every section gives: figures with their intervals, tables, plots and notes."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

Interval = tuple[float, float]
"""Lower and upper end; NaN where there is none."""
LOWER_IS_BETTER = frozenset(
    (
        "false_positive_rate", "false_negative_rate", "log_loss", "brier", "ece", "mae", "mse", "rmse",
        "median_absolute_error",
    )
)  # fmt: skip
ON_DEMAND = frozenset(
    ("balanced_accuracy", "specificity", "f1", "false_negative_rate", "mse", "p_value", "found by", "tested")
)
"""What the report leaves to the tables."""
READABLE = 50
"""Of more rows, the report shows the groups with the most rows."""
WITHOUT_DIRECTION = frozenset(("selection_rate", "mean_error", "mean_prediction", "count"))


@dataclass(frozen=True)
class Figure:
    """One number with a name, which is both its metric's key and what a gate calls it.

    Attributes:
        name: as `recall`, `worst_slice.recall`, `gap.selection_rate.sex`.
        value: NaN where it is undefined; `undefined` then says why.
        interval: gives the confidence interval at a level between 0 and 1; None where none is computed.
        method: how the interval is made, for the report.
        headline: whether the report shows it at the top.
        about: what it belongs to, such as the slice that has this value.
        detail: whether it belongs to one column of several, and is logged without its interval.
    """

    name: str
    value: float
    interval: Callable[[float], Interval] | None = None
    method: str = ""
    undefined: str = ""
    headline: bool = False
    about: str = ""
    detail: bool = False

    @property
    def is_defined(self) -> bool:
        """Whether there is a number."""
        return math.isfinite(self.value)

    def bounds(self, level: float) -> Interval | None:
        """The confidence interval, or None where there is none."""
        if self.interval is None or not self.is_defined:
            return None
        low, high = self.interval(level)
        return None if math.isnan(low) or math.isnan(high) else (low, high)


@dataclass
class Section:
    """What one check found.

    Attributes:
        title: the heading in the report.
        text: sentences that say what was found, for somebody who knows no statistics.
        tables: by file name without its ending.
        shown: the heading and the part of each table that the report shows.
        plots: PNG images by file name without its ending.
    """

    title: str
    text: list[str] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    tables: dict[str, Any] = field(default_factory=dict)
    shown: dict[str, tuple[str, Any]] = field(default_factory=dict)
    plots: dict[str, bytes] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_table(self, name: str, frame: Any, heading: str, part: Any = None) -> None:
        """Keep a table, of which the report shows all or a part under a heading."""
        self.tables[name] = frame
        self.shown[name] = (heading, frame if part is None else part)


def for_readers(frame: Any) -> Any:
    """The columns of a table of slices or groups that fit on a page."""
    hidden = [c for c in frame.columns if str(c).removesuffix(".lower").removesuffix(".upper") in ON_DEMAND]
    shown = frame.drop(columns=hidden)
    return shown if len(shown) <= READABLE else shown.sort_values("rows", ascending=False, kind="stable")


def higher_is_better(metric: str) -> bool | None:
    """Whether more is better; None for a metric that has no good end."""
    if metric in WITHOUT_DIRECTION:
        return None
    return metric not in LOWER_IS_BETTER
