"""Tables of measurements: medians, and how many times a reference is slower or faster."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass
class Table:
    """Samples of operations (rows) by implementations (columns).

    Attributes:
        title: what was measured, where and how.
        unit: of the samples, such as "s".
        columns: names of the implementations in the order they are shown.
        reference: the column that ratios refer to, or None for a table without ratios.
    """

    title: str
    unit: str
    columns: Sequence[str]
    reference: str | None = None
    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, row: str, column: str, value: float) -> None:
        """One sample."""
        self.samples.setdefault(row, {}).setdefault(column, []).append(value)

    def median(self, row: str, column: str) -> float | None:
        """The median of a cell's samples, or None where there are none."""
        values = self.samples.get(row, {}).get(column)
        return statistics.median(values) if values else None

    def ratio(self, row: str, column: str) -> float | None:
        """The reference's median divided by this one's: how many times faster (or smaller) it is."""
        own, other = self.median(row, column), self.median(row, self.reference or "")
        return other / own if own and other else None

    def markdown(self) -> str:
        """The table as Markdown."""
        head = ["", *(f"{c}, {self.unit}" for c in self.columns)]
        lines = [f"{self.title}\n", _line(head), _line(["---"] * len(head))]
        lines += [_line([row, *(self._cell(row, column) for column in self.columns)]) for row in self.samples]
        return "\n".join(lines)

    def _cell(self, row: str, column: str) -> str:
        value = self.median(row, column)
        if value is None:
            return ""
        ratio = self.ratio(row, column) if column != self.reference else None
        return shown(value) + (f" (x{shown(ratio)})" if ratio else "")

    def plain(self) -> dict[str, object]:
        """The samples for a JSON file."""
        return {"title": self.title, "unit": self.unit, "reference": self.reference, "samples": self.samples}


def shown(value: float) -> str:
    """Three significant digits without an exponent."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def interleave(rounds: int, columns: Sequence[str], sample: Callable[[str, bool], Mapping[str, float] | None]) -> None:
    """Let the implementations take turns, in rotating order; a round before the first warms up.

    Args:
        rounds: that count.
        columns: the implementations.
        sample: measures one; its second argument says whether the round counts.
    """
    for number in range(rounds + 1):
        shift = number % len(columns)
        for column in [*columns[shift:], *columns[:shift]]:
            sample(column, number > 0)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
