"""The automatic search for the worst slices, with control of false discoveries.

Candidates are conditions on one column (a value; a range of neighbouring quantile bins) and pairs of them. Each is
tested against all rows; the strongest is kept if it passes the Benjamini-Yekutieli (or -Hochberg) procedure over all
candidates, its rows are set aside, and what remains is searched anew. So a slice that is only a shadow of another is
not reported.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from mlflow_validation_evaluator.columns import MISSING, Coded
from mlflow_validation_evaluator.headline import midranks
from mlflow_validation_evaluator.intervals import Floats

MOST_CELLS = 1_000_000
"""A pair of columns with more combinations is not searched."""


@dataclass(frozen=True)
class Condition:
    """`column` has one of the codes `first` to `last`."""

    column: Coded
    first: int
    last: int

    def __str__(self) -> str:
        name, edges, bins = self.column.name, self.column.edges, self.column.ordered
        if self.first >= bins:
            text = self.column.texts[self.first]
            return f"{name} is missing" if text == MISSING else f"{name} = {text}"
        if self.first == 0:
            return f"{name} < {edges[self.last]}" if self.last < bins - 1 else f"{name} is not missing"
        if self.last == bins - 1:
            return f"{name} >= {edges[self.first - 1]}"
        return f"{name} in [{edges[self.first - 1]}, {edges[self.last]})"

    def mask(self) -> NDArray[np.bool_]:
        """The rows that fulfil it."""
        codes = self.column.codes
        return np.asarray((codes >= self.first) & (codes <= self.last))


@dataclass(frozen=True)
class Found:
    """A slice that the search kept.

    Attributes:
        adjusted: its p-value after the correction, among the rows that no slice before it had taken.
        tested: how many candidates there were.
    """

    conditions: tuple[Condition, ...]
    metric: str
    p_value: float
    adjusted: float
    tested: int

    def __str__(self) -> str:
        return " and ".join(str(c) for c in self.conditions)

    def mask(self) -> NDArray[np.bool_]:
        """The rows of the slice."""
        return np.asarray(np.logical_and.reduce([c.mask() for c in self.conditions]))

    def of(self, columns: Sequence[Coded]) -> Found:
        """The same slice of other rows, given as the same columns."""
        by_name = {c.name: c for c in columns}
        return replace(self, conditions=tuple(replace(c, column=by_name[c.column.name]) for c in self.conditions))


@dataclass
class _Counts:
    """Rows and sum of losses in each combination of codes."""

    rows: Floats
    loss: Floats


class SliceSearch:
    """The search among given columns.

    Args:
        columns: as codes; a code stands for a value, or for one of the column's ordered bins.
        loss: of each row that counts. If all are 0 or 1, slices are tested by the hypergeometric distribution;
            otherwise the ranks of the losses are, which no single outlier can drive.
        min_rows: candidates have at least as many rows, and leave as many out.
        depth: 1 or 2 conditions.
        rate: the largest share of false discoveries.
        dependent: Benjamini-Yekutieli if true, Benjamini-Hochberg otherwise.
    """

    def __init__(
        self, columns: Sequence[Coded], loss: Floats, *, min_rows: int, depth: int, rate: float, dependent: bool = True
    ) -> None:
        self._columns = [c for c in columns if c.size > 1]
        self._binary = bool(np.all((loss == 0) | (loss == 1)))
        self._loss = loss if self._binary else midranks(loss) / len(loss)
        self._min_rows, self._rate, self._dependent = min_rows, rate, dependent
        self._literals = [_literals(c) for c in self._columns]
        pairs = combinations(range(len(self._columns)), 2) if depth > 1 else ()
        self._parts: list[tuple[int, ...]] = [(i,) for i in range(len(self._columns))]
        self._parts += [p for p in pairs if self._columns[p[0]].size * self._columns[p[1]].size <= MOST_CELLS]

    def run(self, metric: str, most: int) -> list[Found]:
        """The slices that are worse than the rest, the most certain first."""
        left = np.ones(len(self._loss), bool)
        counts = self._counted(left)
        found: list[Found] = []
        while len(found) < most and self._parts:
            rows, total, square = left.sum(), self._loss[left].sum(), np.sum(self._loss[left] ** 2)
            best = self._best(counts, float(rows), float(total), float(square))
            if best is None:
                break
            conditions, p, adjusted, tested = best
            found.append(Found(conditions, metric, p, adjusted, tested))
            taken = found[-1].mask() & left
            left &= ~taken
            if left.sum() < 2 * self._min_rows:
                break
            for part, less in zip(counts, self._counted(taken), strict=True):
                part.rows -= less.rows
                part.loss -= less.loss
        return found

    def _counted(self, mask: NDArray[np.bool_]) -> list[_Counts]:
        every = bool(mask.all())
        loss = self._loss if every else self._loss[mask]
        codes = [c.codes if every else c.codes[mask] for c in self._columns]
        return [self._count(part, codes, loss) for part in self._parts]

    def _count(self, part: tuple[int, ...], codes: Sequence[Any], loss: Floats) -> _Counts:
        sizes = [self._columns[i].size for i in part]
        cells = codes[part[0]].astype(np.intp)
        if len(part) > 1:
            cells *= sizes[1]
            cells += codes[part[1]]
        size = int(np.prod(sizes))
        rows = np.bincount(cells, minlength=size).reshape(sizes).astype(float)
        sums = np.bincount(cells, weights=loss, minlength=size).reshape(sizes).astype(float)
        return _Counts(rows, sums)

    def _candidates(self, counts: Sequence[_Counts]) -> Iterator[tuple[tuple[int, ...], Floats, Floats]]:
        """For each part the rows and losses of its candidates: a value for each (pair of) condition(s)."""
        for part, cells in zip(self._parts, counts, strict=True):
            first = self._literals[part[0]][1]
            rows, loss = first @ cells.rows, first @ cells.loss
            if len(part) > 1:
                second = self._literals[part[1]][1]
                rows, loss = rows @ second.T, loss @ second.T
            yield part, rows, loss

    def _best(
        self, counts: Sequence[_Counts], rows: float, total: float, square: float
    ) -> tuple[tuple[Condition, ...], float, float, int] | None:
        places, sizes, losses = [], [], []
        for part, n, loss in self._candidates(counts):
            kept = np.flatnonzero((n.ravel() >= self._min_rows) & (n.ravel() <= rows - self._min_rows))
            places += [(part, n.shape, kept)]
            sizes.append(n.ravel()[kept])
            losses.append(loss.ravel()[kept])
        n, loss = np.concatenate(sizes), np.concatenate(losses)
        if not len(n):
            return None
        p, z = self._p_values(n, loss, rows, total, square)
        tested = len(p)
        index = int(np.lexsort((-z, p))[0])
        adjusted = _adjusted_smallest(p, self._dependent)
        if adjusted > self._rate or z[index] <= 0:
            return None
        conditions = self._simplified(self._conditions(places, index), counts, (rows, total, square), tested)
        return conditions, float(p[index]), adjusted, tested

    def _conditions(self, places: Sequence[Any], index: int) -> tuple[Condition, ...]:
        for part, shape, kept in places:
            if index < len(kept):
                where = np.unravel_index(int(kept[index]), shape)
                spans = [self._literals[i][0][int(w)] for i, w in zip(part, where, strict=True)]
                return tuple(Condition(self._columns[i], *span) for i, span in zip(part, spans, strict=True))
            index -= len(kept)
        raise IndexError(index)

    def _simplified(
        self, conditions: tuple[Condition, ...], counts: Sequence[_Counts], whole: Any, tested: int
    ) -> tuple[Condition, ...]:
        """One condition instead of two, where it passes alone and the second makes no difference within it."""
        if len(conditions) == 1:
            return conditions
        place = [next(i for i, c in enumerate(self._columns) if c is cond.column) for cond in conditions]
        pair = counts[self._parts.index((place[0], place[1]))]
        spans = (slice(conditions[0].first, conditions[0].last + 1), slice(conditions[1].first, conditions[1].last + 1))
        inner = np.array([pair.rows[spans].sum()]), np.array([pair.loss[spans].sum()])
        rows, total, square = whole
        variance = square / rows - (total / rows) ** 2
        # The second condition was picked among all: only what survives a correction for that makes a difference.
        picked = sum(len(spans) for spans, _ in self._literals)
        for keep, within in enumerate(((spans[0], slice(None)), (slice(None), spans[1]))):
            n, loss = float(pair.rows[within].sum()), float(pair.loss[within].sum())
            alone = self._p_values(np.array([n]), np.array([loss]), rows, total, square)[0][0]
            if alone * self._factor(tested) > self._rate:
                continue
            of_outer = loss if self._binary else n * (variance + (loss / n) ** 2)
            p = self._p_values(*inner, n, loss, of_outer)[0][0]
            if p * picked > self._rate:
                return (conditions[keep],)
        return conditions

    def _factor(self, tested: int) -> float:
        """What the smallest p-value of so many is multiplied with, at most."""
        return tested * (float(np.sum(1 / np.arange(1, tested + 1))) if self._dependent else 1.0)

    def _p_values(self, n: Floats, loss: Floats, rows: float, total: float, square: float) -> tuple[Floats, Floats]:
        """One-sided p-values of "the slice is a random part of the rows", and the standardised excess of its loss."""
        mean = total / rows
        variance = max(square / rows - mean**2, 0.0)
        with np.errstate(divide="ignore", invalid="ignore"):
            error = np.sqrt(variance * n * (rows - n) / max(rows - 1, 1))
            z = np.where(error > 0, (loss - n * mean) / error, 0.0)
        if not self._binary:
            return special.ndtr(-z), z
        return hypergeometric_tail(loss, n, total, rows), z


def hypergeometric_tail(hits: Floats, n: Any, total: float, rows: float) -> Floats:
    """P(X >= hits) for X hypergeometric: `n` draws from `rows`, of which `total` are hits.

    Wise's binomial approximation (Biometrika 1954) for arrays: scipy's own distribution sums term by term in the
    versions that Python 3.10 has. Far out it errs upwards, so that a test by it is not too bold.
    """
    # Draws and hits may change places; the approximation is the better, the fewer the draws.
    k, n, total = np.round(hits), np.minimum(n, total), np.maximum(n, total)
    share = np.clip((total - (k - 1) / 2) / (rows - (n - 1) / 2), 0.0, 1.0)
    with np.errstate(invalid="ignore"):
        tail = special.betainc(np.maximum(k, 1e-12), np.maximum(n - k + 1, 1e-12), share)
    return np.where(k <= 0, 1.0, tail)


def adjusted_p_values(p: Floats, dependent: bool = True) -> Floats:
    """p-values after Benjamini and Yekutieli (2001), or Benjamini and Hochberg (1995)."""
    n = len(p)
    order = np.argsort(p)
    factor = np.sum(1 / np.arange(1, n + 1)) if dependent else 1.0
    scaled = p[order] * n * factor / np.arange(1, n + 1)
    adjusted = np.empty(n)
    adjusted[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return adjusted


def _adjusted_smallest(p: Floats, dependent: bool) -> float:
    """The adjusted p-value of the smallest one."""
    return float(adjusted_p_values(p, dependent).min())


def _literals(column: Coded) -> tuple[list[tuple[int, int]], Floats]:
    """The conditions on a column as ranges of codes, and which codes each of them has."""
    last = column.ordered - 1
    spans = [(a, b) for a in range(column.ordered) for b in range(a, column.ordered) if (a, b) != (0, last)]
    if column.ordered and column.size > column.ordered:
        spans.append((0, last))
    spans += [(code, code) for code in range(column.ordered, column.size)]
    members = np.zeros((len(spans), column.size))
    for row, (a, b) in enumerate(spans):
        members[row, a : b + 1] = 1
    return spans, members
