"""Confidence intervals. Each function takes the level as a share (0.95) and works on arrays of groups at once.

Which one fits which figure, and what a simulation says of their coverage, is in the README.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

Floats = NDArray[np.float64]


def normal_quantile(level: float) -> float:
    """The two-sided quantile of the normal distribution: 1.96 at 0.95."""
    return float(special.ndtri((1 + level) / 2))


def wilson(successes: Any, trials: Any, level: float) -> tuple[Floats, Floats]:
    """Wilson's score interval of a proportion (E. B. Wilson 1927); NaN where there are no trials."""
    k, n = np.asarray(successes, float), np.asarray(trials, float)
    z2 = normal_quantile(level) ** 2
    with np.errstate(divide="ignore", invalid="ignore"):
        p = k / n
        centre, scale = p + z2 / (2 * n), 1 + z2 / n
        half = np.sqrt(z2 * (p * (1 - p) / n + z2 / (4 * n * n)))
        low, high = (centre - half) / scale, (centre + half) / scale
    empty = n == 0
    low, high = np.where(k == 0, 0.0, low), np.where(k == n, 1.0, high)
    return np.where(empty, np.nan, low), np.where(empty, np.nan, high)


def mover_mean(values: Floats, low: Floats, high: Floats, axis: int = -1) -> tuple[Floats, Floats]:
    """The interval of the mean of independent figures from their own (MOVER: Zou and Donner 2008).

    NaN entries along the axis are left out.
    """
    count = np.sum(~np.isnan(values), axis=axis)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.nansum(values, axis=axis) / count
        below = np.sqrt(np.nansum((values - low) ** 2, axis=axis)) / count
        above = np.sqrt(np.nansum((high - values) ** 2, axis=axis)) / count
    return mean - below, mean + above


def largest_difference(values: Floats, low: Floats, high: Floats) -> tuple[float, float, int, int]:
    """Bounds of the gap `max - min` of independent groups, at the level of the groups' own intervals.

    The upper bound is the largest of the upper bounds of all pairs (each by MOVER). It holds without a correction,
    for the pair that truly has the gap is among them.

    Args:
        values: of each group; no NaN.
        low: lower ends of their intervals.
        high: upper ends.

    Returns:
        The bound, the difference of the pair that has it, and the indices of this pair.
    """
    above, below = high - values, values - low
    first, second = int(np.argmax(high)), int(np.argmin(low))
    best = values[first] - values[second] + np.hypot(above[first], below[second])
    # A pair's bound is at most high[i] - low[j]: whoever stays below what one pair has reached drops out.
    rows = np.flatnonzero(high - low.min() >= best)
    columns = np.flatnonzero(high.max() - low >= best)
    pair = (first, second)
    for start in range(0, len(rows), 1024):
        part = rows[start : start + 1024]
        bounds = (values[part][:, None] - values[columns][None]) + np.hypot(above[part][:, None], below[columns][None])
        bounds[part[:, None] == columns[None]] = -np.inf
        at = np.unravel_index(int(np.argmax(bounds)), bounds.shape)
        if bounds[at] > best or pair[0] == pair[1]:
            best, pair = float(bounds[at]), (int(part[at[0]]), int(columns[at[1]]))
    return float(best), float(values[pair[0]] - values[pair[1]]), *pair


def contenders(values: Floats, low: Floats, high: Floats) -> int:
    """How many pairs of groups may well be the one with the true gap: the correction of its lower bound.

    A group contends for the largest value if its interval reaches the largest estimate, and for the smallest alike.
    """
    top = int(np.sum(high >= values.max()))
    bottom = int(np.sum(low <= values.min()))
    both = int(np.sum((high >= values.max()) & (low <= values.min())))
    return max(1, top * bottom - both)


class StudentisedBootstrap:
    """Bootstrap-t intervals of smooth functions of means, all from the same resamples.

    Rows are resampled one by one; of more than `UNITS` rows, random batches of equal size are. That is a bootstrap
    of the same statistics at a cost that does not grow with the data: a batch's mean is the unit.

    Args:
        columns: per-row statistics, shape (rows, d), whose means the figures are functions of.
        resamples: number of bootstrap samples.
        seed: of the resampling and of the batches.
    """

    UNITS = 4000
    SMALLEST = 10

    def __init__(self, columns: Floats, resamples: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        units = _batches(columns, self.UNITS, rng)
        self.means = columns.mean(axis=0)
        self.resamples = resamples
        self._m, self._d = units.shape
        # Centred: products of raw columns would lose the variance of large numbers to cancellation.
        centred = units - self.means
        pairs = [(i, j) for i in range(self._d) for j in range(i, self._d)]
        products = np.stack([centred[:, i] * centred[:, j] for i, j in pairs], axis=1)
        self._moments = np.hstack([centred, products])
        self._pairs = pairs
        self._drawn = self._draw(rng)
        self._whole = self._moments.mean(axis=0, keepdims=True)

    def _draw(self, rng: np.random.Generator) -> Floats:
        drawn, step = np.empty((self.resamples, self._moments.shape[1])), max(1, 2_000_000 // self._m)
        for start in range(0, self.resamples, step):
            size = min(step, self.resamples - start)
            picked = rng.integers(0, self._m, size=(size, self._m)) + np.arange(size)[:, None] * self._m
            weights = np.bincount(picked.ravel(), minlength=size * self._m).reshape(size, self._m)
            drawn[start : start + size] = weights @ self._moments / self._m
        return drawn

    def interval(self, function: Any, level: float) -> tuple[float, float]:
        """The interval of `function`.

        Args:
            function: takes means of shape (b, d); gives values (b,) and gradients (b, d).
            level: at most `1 - 20 / resamples`: the quantiles beyond rest on too few resamples.

        Returns:
            NaN twice for fewer than ten rows; the value twice where the statistics do not vary.
        """
        if self._m < self.SMALLEST:
            return float("nan"), float("nan")
        with np.errstate(all="ignore"):
            value, error = self._studentised(function, self._whole)
            values, errors = self._studentised(function, self._drawn)
            t = (values - value) / errors
        if not error[0] > 0:
            return float(value[0]), float(value[0])
        t = t[np.isfinite(t)]
        low, high = np.quantile(t, [(1 - level) / 2, (1 + level) / 2])
        return float(value[0] - high * error[0]), float(value[0] - low * error[0])

    def _studentised(self, function: Any, moments: Floats) -> tuple[Floats, Floats]:
        shift = moments[:, : self._d]
        values, gradients = function(self.means + shift)
        variance = np.zeros(len(moments))
        for number, (i, j) in enumerate(self._pairs):
            covariance = moments[:, self._d + number] - shift[:, i] * shift[:, j]
            variance += (1 if i == j else 2) * gradients[:, i] * gradients[:, j] * covariance
        return values, np.sqrt(np.maximum(variance, 0) / self._m)


def _batches(columns: Floats, units: int, rng: np.random.Generator) -> Floats:
    n = len(columns)
    if n <= units:
        return columns
    order = rng.permutation(n)
    size = n // units
    kept = columns[order[: size * units]]
    return np.asarray(kept.reshape(units, size, -1).mean(axis=1)) * 1.0


def logit_normal(value: float, error: float, level: float) -> tuple[float, float]:
    """A normal interval on the logit scale, for a figure between 0 and 1 with a known standard error."""
    if not 0 < value < 1 or not error > 0:
        return (value, value) if error == 0 else (float("nan"), float("nan"))
    half = normal_quantile(level) * error / (value * (1 - value))
    centre = float(special.logit(value))
    return float(special.expit(centre - half)), float(special.expit(centre + half))


def median_interval(values: Floats, level: float) -> tuple[float, float]:
    """The distribution-free interval of a median: order statistics by the binomial distribution, interpolated.

    Interpolation after Hettmansperger and Sheather (1986).
    """
    n = len(values)
    if n < 6:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    # d is the largest rank with P(Bin(n, 1/2) < d) <= tail.
    counts = np.arange(n // 2 + 1)
    below = special.bdtr(counts, n, 0.5) if n < 2000 else special.ndtr((counts + 0.5 - n / 2) / np.sqrt(n / 4))
    d = int(np.searchsorted(below, tail, side="right"))
    if d < 1:
        return float("nan"), float("nan")
    inner, outer = 1 - 2 * (below[d] if d < len(below) else 0.5), 1 - 2 * below[d - 1]
    share = (outer - level) / (outer - inner) if outer > inner else 0.0
    weight = (n - d) * share / (d + (n - 2 * d) * share)
    near = (d - 1, d, n - d - 1, n - d)
    part = np.partition(values, [min(max(i, 0), n - 1) for i in near])
    low = (1 - weight) * part[d - 1] + weight * part[min(d, n - 1)]
    high = (1 - weight) * part[n - d] + weight * part[max(n - d - 1, 0)]
    return float(low), float(high)


def sum_of_absolutes(weights: Floats, means: Floats, errors: Floats, level: float, seed: int) -> tuple[float, float]:
    """The interval of `sum w_b |m_b|` from estimates of the `m_b` with independent normal errors.

    The plain estimate is too large where some `m_b` are near 0, for noise has no sign there. So the `m_b` are taken as
    drawn from a normal distribution of unknown spread, and the interval is that of the sum given the estimates
    (hierarchical Bayes with a flat prior on the spread). It reaches down to 0 unless the estimates differ from 0
    beyond chance (chi-square test).

    Args:
        weights: of each term; they sum to 1.
        means: the estimates.
        errors: their standard errors.
        level: as 0.95.
        seed: of the simulation.
    """
    observed = float(np.sum(weights * np.abs(means)))
    used = errors > 0
    if not used.any():
        return observed, observed
    certain = float(np.sum(weights[~used] * np.abs(means[~used])))
    weights, means, errors = weights[used], means[used], errors[used]
    rng, size = np.random.default_rng(seed), 8000
    top = 4 * (np.abs(means).max() + errors.max())
    spreads = (np.arange(400) + 0.5) / 400 * top
    variance = spreads[:, None] ** 2 + errors**2
    logs = -0.5 * np.sum(np.log(variance) + means**2 / variance, axis=1)
    chances = spreads * np.exp(logs - logs.max())
    spread = rng.choice(spreads, size, p=chances / chances.sum())[:, None]
    shrunk = spread**2 / (spread**2 + errors**2)
    drawn = shrunk * means + np.sqrt(shrunk) * errors * rng.standard_normal((size, len(means)))
    sums = np.abs(drawn) @ weights + certain
    low, high = np.quantile(sums, [(1 - level) / 2, (1 + level) / 2])
    surprise = special.chdtrc(len(means), float(np.sum((means / errors) ** 2)))
    return (float(low) if surprise < (1 - level) / 2 or certain else 0.0), float(high)
