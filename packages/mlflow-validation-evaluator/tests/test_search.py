"""The slice search finds what was planted, and little else. The full simulation is a benchmark."""

from __future__ import annotations

import cases
import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mlflow_validation_evaluator import checks, search, slices
from mlflow_validation_evaluator.outcome import Outcome


def found_in(outcome: Outcome) -> list[np.ndarray]:
    return [f.mask() for f in slices.search(outcome, cases.config().slices, [])]


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_planted_slices_are_found(kind: str) -> None:
    hits, false, wrong = 0, [], 0
    for seed in range(40):
        outcome, inside = cases.planted(seed, 3000, kind)
        masks = found_in(outcome)
        hits += any((m & inside).sum() >= 0.5 * (m | inside).sum() for m in masks)
        wrong = sum((m & inside).sum() < 0.5 * m.sum() for m in masks)
        false.append(wrong / max(1, len(masks)))
    assert hits >= 38
    assert np.mean(false) < 0.05


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_where_there_is_nothing_nothing_is_found(kind: str) -> None:
    """5 % of false discoveries are allowed: of 40 data sets, 6 with any would be very unlikely."""
    outcomes = [cases.planted(seed, 1500, kind, with_slice=False)[0] for seed in range(40)]
    assert sum(bool(found_in(outcome)) for outcome in outcomes) <= 5


def test_a_shadow_of_a_slice_is_not_reported_beside_it() -> None:
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.choice(list("xyz"), 6000), "b": rng.choice(list("uvw"), 6000)})
    frame["copy of a"] = np.where(rng.random(6000) < 0.9, frame["a"], "x")
    wrong = rng.random(6000) < np.where(frame["a"] == "y", 0.4, 0.1)
    table = checks.find_slices(frame, np.zeros(6000, int), wrong.astype(int))
    assert table["slice"].to_list() == ["a = y"]
    assert table.loc[0, "accuracy"] == pytest.approx(1 - wrong[frame["a"] == "y"].mean())


def test_two_slices_are_found_and_named() -> None:
    rng = np.random.default_rng(1)
    n = 8000
    when = pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.integers(0, 365, n), "D")
    frame = pd.DataFrame({"age": rng.integers(18, 90, n), "plan": rng.choice(["free", "paid"], n), "when": when})
    frame["flag"] = pd.array(rng.choice([True, False], n)).astype("boolean")
    frame.loc[rng.random(n) < 0.15, "age"] = np.nan
    bad = (frame["age"].isna() & (frame["plan"] == "free")) | (frame["when"] >= "2024-10-01")
    wrong = rng.random(n) < np.where(bad, 0.5, 0.1)
    names = set(checks.find_slices(frame, np.zeros(n, int), wrong.astype(int))["slice"])
    assert "age is missing and plan = free" in names
    assert any(name.startswith("when >= 2024-") for name in names)


def test_the_search_can_look_at_recall_and_reports_all_rows_of_the_slice() -> None:
    rng = np.random.default_rng(2)
    n = 6000
    frame = pd.DataFrame({"site": rng.choice(list("abcd"), n), "noise": rng.normal(size=n)})
    truth = (rng.random(n) < 0.3).astype(int)
    missed = rng.random(n) < np.where(frame["site"] == "c", 0.6, 0.2)
    guess = np.where((truth == 1) & missed, 0, truth)
    table = checks.find_slices(frame, truth, guess, metric="recall")
    assert table["slice"].to_list() == ["site = c"]
    assert table.loc[0, "rows"] == (frame["site"] == "c").sum()


def test_the_approximate_tail_is_that_of_the_hypergeometric_distribution() -> None:
    """It is within 10 % where the slice is small, and never too small by more than that."""
    for rows, total, n, within in [(2000, 200, 60, 0.1), (10_000, 30, 900, 0.1), (500, 100, 250, np.inf)]:
        k = np.arange(1, min(n, total) + 1, dtype=float)
        exact = stats.hypergeom.sf(k - 1, rows, total, n)
        near = search.hypergeometric_tail(k, float(n), float(total), float(rows))
        shown = (exact > 1e-12) & (exact < 0.5)
        ratio = np.log(near[shown] / exact[shown])
        assert -0.1 < ratio.min() <= ratio.max() < within


def test_adjusted_p_values_equal_scipys() -> None:
    p = np.random.default_rng(0).random(50) ** 3
    for dependent, method in ((True, "by"), (False, "bh")):
        wanted = stats.false_discovery_control(p, method=method)
        assert search.adjusted_p_values(p, dependent) == pytest.approx(wanted, abs=1e-12)


def test_a_column_of_identifiers_or_lists_does_no_harm() -> None:
    rng = np.random.default_rng(3)
    n = 2000
    frame = pd.DataFrame({
        "id": [f"row {i}" for i in range(n)], "nested": [[i % 3] for i in range(n)], "constant": 1,
        "empty": np.nan, "infinite": np.where(rng.random(n) < 0.1, np.inf, rng.normal(size=n)),
        "category": pd.Categorical(rng.choice(["a", "b"], n), categories=["a", "b", "never"]),
    })  # fmt: skip
    wrong = rng.random(n) < np.where(frame["category"] == "a", 0.4, 0.1)
    table = checks.find_slices(frame, np.zeros(n, int), wrong.astype(int))
    assert table["slice"].to_list() == ["category = a"]
