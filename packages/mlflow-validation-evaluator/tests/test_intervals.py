"""Confidence intervals cover what they should. The full simulation is a benchmark; here fewer data sets do."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable

import cases
import numpy as np
import pytest
from scipy import stats

from mlflow_validation_evaluator import calibration, groups, headline, intervals
from mlflow_validation_evaluator.figures import Figure
from mlflow_validation_evaluator.outcome import Outcome

ROUNDS = 200


def of(outcome: Outcome) -> list[Figure]:
    found = headline.headline(outcome, 200, 0)
    if outcome.scores is not None:
        found += calibration.calibration(outcome, cases.config()).figures
    metric = {"binary": "selection_rate", "multiclass": "accuracy", "regression": "mae"}[outcome.kind]
    section = groups.fairness(outcome, cases.config(fairness={"columns": ["group"], "metrics": [metric]}))
    return found + [f for f in section.figures if f.name == f"gap.{metric}"]


@pytest.mark.parametrize("make", [cases.binary, cases.multiclass, cases.regression], ids=lambda f: f.__name__)
def test_intervals_cover_the_truth_as_often_as_they_say(make: Callable[[int, int], Outcome]) -> None:
    """At a level of 90 %, which needs fewer resamples. 200 rounds tell 90 % from 82 % and from 98 %.

    Where groups are alike, and where calibration is good, an interval that ends at 0 covers more often.
    """
    truth = {f.name: f.value for f in of(make(1_000_000, 12345))}
    inside: Counter[str] = Counter()
    for seed in range(ROUNDS):
        for figure in of(make(300, seed)):
            low, high = figure.bounds(0.9)
            inside[figure.name] += low <= truth[figure.name] <= high
    share = {name: inside[name] / ROUNDS for name in truth}
    wrong = {name: s for name, s in share.items() if not 0.83 <= s <= (1.0 if name[:3] in ("gap", "ece") else 0.96)}
    assert not wrong, share


def test_a_wider_level_gives_a_wider_interval() -> None:
    for figure in [*of(cases.binary(300)), *of(cases.regression(300)), *of(cases.multiclass(300))]:
        narrow, wide = figure.bounds(0.8), figure.bounds(0.99)
        assert wide[0] <= narrow[0] <= narrow[1] <= wide[1], figure.name


def test_wilson_equals_scipys() -> None:
    for k, n in [(0, 10), (3, 10), (10, 10), (250, 1000)]:
        wanted = stats.binomtest(k, n).proportion_ci(0.95, method="wilson")
        low, high = intervals.wilson(k, n, 0.95)
        assert (float(low), float(high)) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize("groups_", [2, 3, 40, 1500])
def test_the_largest_difference_is_that_of_all_pairs(groups_: int) -> None:
    rng = np.random.default_rng(groups_)
    values = rng.random(groups_)
    low, high = values - rng.random(groups_) * 0.3, values + rng.random(groups_) * 0.3
    found, *_ = intervals.largest_difference(values, low, high)
    matrix = (values[:, None] - values) + np.hypot((high - values)[:, None], values - low)
    np.fill_diagonal(matrix, -np.inf)
    assert found == pytest.approx(matrix.max(), abs=1e-12)


def test_batches_give_the_interval_of_the_rows() -> None:
    """Above 4,000 rows batches are resampled: the interval is that of the normal approximation, which holds there."""
    rng = np.random.default_rng(0)
    rows = rng.exponential(size=(50_001, 1))
    low, high = intervals.StudentisedBootstrap(rows, 4000, 0).interval(headline.identity_of(0), 0.95)
    half = 1.96 * rows.std() / np.sqrt(len(rows))
    assert (high - low) / 2 == pytest.approx(half, rel=0.06)


def test_the_median_interval_holds_its_level() -> None:
    inside = 0
    for seed in range(600):
        low, high = intervals.median_interval(np.random.default_rng(seed).exponential(size=101), 0.95)
        inside += low <= np.log(2) <= high
    assert 0.925 <= inside / 600 <= 0.975


def test_a_perfect_model_has_intervals_too() -> None:
    truth = np.array([0, 1] * 20, np.int32)
    outcome = Outcome("binary", cases.binary(40).features, truth, truth, truth * 0.8 + 0.1, (0, 1))
    found = {f.name: f.bounds(0.95) for f in headline.headline(outcome, 500, 0)}
    assert found["accuracy"][1] == 1.0 > found["accuracy"][0] > 0.9
    assert found["roc_auc"][1] == 1.0 > found["roc_auc"][0] > 0.7


def test_the_same_data_give_the_same_interval() -> None:
    one, other = ([f.bounds(0.95) for f in of(make(500, 3))] for make, _ in itertools.product([cases.binary], range(2)))
    assert one == other
