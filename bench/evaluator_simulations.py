"""Simulations with known truth: how often intervals hold it, and what the slice search finds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from mlflow_validation_evaluator import calibration, groups, headline, slices
from mlflow_validation_evaluator.figures import Figure
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.settings import read_config

ROWS = 500
TRUTH_ROWS = 4_000_000
SHARES = (0.5, 0.3, 0.2)


def binary(n: int, seed: int) -> Outcome:
    """Probabilities that are too bold; three groups whose rates differ."""
    rng = np.random.default_rng(seed)
    group = rng.choice(3, n, p=SHARES)
    score = rng.normal(size=n) + 0.5 * (group == 1) - 0.4 * (group == 2)
    truth = (rng.random(n) < 1 / (1 + np.exp(-score))).astype(np.int32)
    proba = 1 / (1 + np.exp(-1.5 * score - 0.2))
    return Outcome("binary", pd.DataFrame({"g": group}), truth, (proba >= 0.5).astype(np.int32), proba, (0, 1))


def multiclass(n: int, seed: int) -> Outcome:
    """Four classes of different sizes, three groups that differ in nothing."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 4)) * 1.2 + np.array([0.8, 0.3, 0, -0.5])
    p = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    truth = (p.cumsum(axis=1) < rng.random(n)[:, None]).sum(axis=1).astype(np.int32)
    bold = np.exp(1.4 * z) / np.exp(1.4 * z).sum(axis=1, keepdims=True)
    features = pd.DataFrame({"g": rng.choice(3, n, p=SHARES)})
    return Outcome("multiclass", features, truth, bold.argmax(axis=1).astype(np.int32), bold, (0, 1, 2, 3))


def regression(n: int, seed: int) -> Outcome:
    """Errors with heavy tails (Student's t with six degrees of freedom), which are larger in one group."""
    rng = np.random.default_rng(seed)
    x, group = rng.normal(size=n), rng.choice(3, n, p=SHARES)
    truth = 2 * x + rng.standard_t(6, size=n) * (1 + 0.5 * (group == 2))
    return Outcome("regression", pd.DataFrame({"g": group}), truth, 1.9 * x + 0.3 * (group == 1))


MAKERS: dict[str, Callable[[int, int], Outcome]] = {
    "binary": binary, "multiclass": multiclass, "regression": regression,
}  # fmt: skip
COMPARED = {"binary": ["selection_rate", "recall"], "multiclass": ["accuracy"], "regression": ["mae", "mean_error"]}


def _figures(outcome: Outcome) -> list[Figure]:
    found = headline.headline(outcome, 2000, 0)
    config = read_config({"fairness": {"columns": ["g"], "metrics": COMPARED[outcome.kind]}}, {})
    if section := calibration.calibration(outcome, config):
        found += section.figures
    return found + [f for f in groups.fairness(outcome, config).figures if f.name.count(".") == 1]


def coverage(rounds: int) -> dict[str, Any]:
    """Percent of data sets of 500 rows in which the 95 % interval holds the true value."""
    found: dict[str, Any] = {"coverage": f"95 % intervals, {ROWS} rows, {rounds} data sets each"}
    for kind, make in MAKERS.items():
        truth = {f.name: f.value for f in _figures(make(TRUTH_ROWS, 987_654))}
        inside: Counter[str] = Counter()
        for seed in range(rounds):
            for figure in _figures(make(ROWS, seed)):
                bounds = figure.bounds(0.95)
                inside[figure.name] += bounds is not None and bounds[0] <= truth[figure.name] <= bounds[1]
        found[f"coverage, {kind}"] = {name: round(100 * inside[name] / rounds, 1) for name in truth}
    return found


def planted(seed: int, n: int, kind: str, *, with_slice: bool) -> tuple[Outcome, Any]:
    """Ten columns, and a slice of one or two conditions in which errors are more frequent, or larger.

    35 % of the predictions are wrong in the slice and 10 % elsewhere; a regressor's errors are 1.8 times as large.
    """
    rng = np.random.default_rng(seed)
    columns: dict[str, Any] = {
        f"text{i}": rng.choice([f"v{j}" for j in range(rng.integers(2, 7))], n) for i in range(4)
    }
    columns |= {f"number{i}": rng.normal(size=n) + (columns["text0"] == "v1") * 0.3 for i in range(4)}
    columns["flag"] = rng.random(n) < 0.3
    columns["date"] = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), "D")
    data = pd.DataFrame(columns)
    place, number = rng.integers(4), data[f"number{rng.integers(4)}"]
    one, other = data[f"text{place}"], data[f"text{(place + 1) % 4}"]
    value = one == rng.choice(one.unique())
    forms = (
        value,
        value & (other == rng.choice(other.unique())),
        number > number.quantile(rng.choice([0.7, 0.75, 0.8])),
        value & (number < number.quantile(rng.choice([0.5, 0.6]))),
    )
    inside = forms[seed % 4].to_numpy() if with_slice else np.zeros(n, bool)
    if kind == "binary":
        truth = (rng.random(n) < 0.4).astype(np.int32)
        wrong = rng.random(n) < np.where(inside, 0.35, 0.1)
        return Outcome("binary", data, truth, np.where(wrong, 1 - truth, truth).astype(np.int32), None, (0, 1)), inside
    numbers = rng.normal(size=n) * 3
    error = rng.standard_t(4, size=n) * np.where(inside, 1.8, 1)
    return Outcome("regression", data, numbers, numbers + error), inside


def search(data_sets: int = 100) -> dict[str, Any]:
    """What is found of one planted slice, and what is found that is none.

    A slice is found if it shares at least half of the rows of both with the planted one, and false if fewer than half
    of its rows are the planted one's.
    """
    wanted = read_config({}, {}).slices
    assert wanted
    found: dict[str, Any] = {}
    for kind in ("binary", "regression"):
        for rows in (1000, 2000, 4000):
            hits, rates, nothing = 0, [], 0
            for seed in range(data_sets):
                outcome, inside = planted(seed, rows, kind, with_slice=True)
                masks = [f.mask() for f in slices.search(outcome, wanted, [])]
                hits += any((m & inside).sum() >= 0.5 * (m | inside).sum() for m in masks)
                false = sum(int((m & inside).sum() < 0.5 * m.sum()) for m in masks)
                rates.append(false / max(1, len(masks)))
                nothing += bool(slices.search(planted(seed, rows, kind, with_slice=False)[0], wanted, []))
            found[f"search, {kind}, {rows:,} rows"] = {
                f"found of {data_sets}": hits,
                "false discovery rate, %": round(100 * float(np.mean(rates)), 2),
                f"of {data_sets} data sets without a slice, with one found": nothing,
            }
    return found
