"""Figures equal those of scikit-learn, scipy and fairlearn on the same data to 1e-12."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pandas as pd
import pytest
from scipy import stats
from scipy.spatial import distance
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from mlflow_validation_evaluator import calibration, checks, drift, groups, headline
from mlflow_validation_evaluator.outcome import Outcome

EXACT = {"rel": 1e-12, "abs": 1e-12}


def values(outcome: Outcome) -> dict[str, float]:
    return {f.name: f.value for f in headline.headline(outcome, 200, 0)}


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_a_binary_classifier_equal_scikit_learns(seed: int) -> None:
    outcome = cases.binary(700, seed)
    y, p, s = outcome.truth, outcome.guess, outcome.scores
    tn, fp, fn, tp = sk.confusion_matrix(y, p).ravel()
    wanted = {
        "accuracy": sk.accuracy_score(y, p),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p),
        "precision": sk.precision_score(y, p),
        "recall": sk.recall_score(y, p),
        "specificity": tn / (tn + fp),
        "f1": sk.f1_score(y, p),
        "selection_rate": p.mean(),
        "false_positive_rate": fp / (fp + tn),
        "false_negative_rate": fn / (fn + tp),
        "roc_auc": sk.roc_auc_score(y, s),
        "log_loss": sk.log_loss(y, s),
        "brier": sk.brier_score_loss(y, s),
    }
    assert values(outcome) == pytest.approx(wanted, **EXACT)


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_several_classes_equal_scikit_learns(seed: int) -> None:
    outcome = cases.multiclass(700, seed)
    y, p, s = outcome.truth, outcome.guess, outcome.scores
    one_hot = np.eye(4)[y]
    wanted = {
        "accuracy": sk.accuracy_score(y, p),
        "balanced_accuracy": sk.balanced_accuracy_score(y, p),
        "precision": sk.precision_score(y, p, average="macro"),
        "recall": sk.recall_score(y, p, average="macro"),
        "f1": sk.f1_score(y, p, average="macro"),
        "roc_auc": sk.roc_auc_score(y, s, multi_class="ovr", average="macro"),
        "log_loss": sk.log_loss(y, s),
        "brier": np.mean(np.sum((s - one_hot) ** 2, axis=1)),
    }
    assert values(outcome) == pytest.approx(wanted, **EXACT)


@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_figures_of_a_regressor_equal_scikit_learns_also_far_from_zero(shift: float) -> None:
    base = cases.regression(700)
    y, p = base.truth + shift, base.guess + shift
    wanted = {
        "mae": sk.mean_absolute_error(y, p),
        "mse": sk.mean_squared_error(y, p),
        "rmse": np.sqrt(sk.mean_squared_error(y, p)),
        "mean_error": np.mean(p - y),
        "median_absolute_error": sk.median_absolute_error(y, p),
        "r2": sk.r2_score(y, p),
    }
    assert values(Outcome("regression", base.features, y, p)) == pytest.approx(wanted, **EXACT)


def test_a_class_that_is_never_predicted_counts_as_in_scikit_learn() -> None:
    y, p = np.array([0, 1, 2, 2, 1, 0]), np.array([0, 1, 1, 1, 1, 3])
    found = values(Outcome("multiclass", pd.DataFrame(index=range(6)), y, p, None, (0, 1, 2, 3)))
    assert found["precision"] == pytest.approx(sk.precision_score(y, p, average="macro", zero_division=0), **EXACT)
    assert found["f1"] == pytest.approx(sk.f1_score(y, p, average="macro", zero_division=0), **EXACT)


FAIR = {
    "accuracy": sk.accuracy_score,
    "precision": sk.precision_score,
    "recall": sk.recall_score,
    "f1": sk.f1_score,
    "balanced_accuracy": sk.balanced_accuracy_score,
}


@pytest.mark.parametrize("seed", range(3))
def test_groups_gaps_and_ratios_equal_fairlearns(seed: int) -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    outcome = cases.binary(900, seed)
    y, p, by = outcome.truth, outcome.guess, outcome.features["group"]
    own = {name: getattr(fairlearn, name) for name in ("selection_rate", "false_positive_rate", "false_negative_rate")}
    frame = fairlearn.MetricFrame(metrics=FAIR | own, y_true=y, y_pred=p, sensitive_features=by)
    table = checks.group_metrics(y, p, by).set_index("group")
    gaps = checks.group_gaps(y, p, by).set_index("figure")["value"]
    for name in FAIR | own:
        assert table[name].to_dict() == pytest.approx(frame.by_group[name].to_dict(), **EXACT)
        assert gaps[f"gap.{name}"] == pytest.approx(frame.difference()[name], **EXACT)
        assert gaps[f"ratio.{name}"] == pytest.approx(frame.ratio()[name], **EXACT)
    parity = fairlearn.demographic_parity_difference(y, p, sensitive_features=by)
    assert gaps["gap.selection_rate"] == pytest.approx(parity, **EXACT)
    odds = fairlearn.equalized_odds_difference(y, p, sensitive_features=by)
    assert gaps["gap.equalized_odds"] == pytest.approx(odds, **EXACT)


def test_group_errors_of_a_regressor_equal_fairlearns() -> None:
    fairlearn = pytest.importorskip("fairlearn.metrics")
    outcome = cases.regression(900)
    metrics = {"mae": sk.mean_absolute_error, "mse": sk.mean_squared_error}
    y, p, by = outcome.truth, outcome.guess, outcome.features["group"]
    frame = fairlearn.MetricFrame(metrics=metrics, y_true=y, y_pred=p, sensitive_features=by)
    table = checks.group_metrics(y, p, by).set_index("group")
    for name in metrics:
        assert table[name].to_dict() == pytest.approx(frame.by_group[name].to_dict(), **EXACT)


def test_macro_averages_within_groups_equal_scikit_learns() -> None:
    outcome = cases.multiclass(900)
    table = checks.group_metrics(outcome.truth, outcome.guess, outcome.features["group"]).set_index("group")
    for group, rows in outcome.features.groupby("group").indices.items():
        wanted = sk.f1_score(outcome.truth[rows], outcome.guess[rows], average="macro")
        assert table.loc[group, "f1"] == pytest.approx(wanted, **EXACT)


def test_functions_of_the_users_own_go_through_fairlearn() -> None:
    pytest.importorskip("fairlearn.metrics")
    outcome = cases.binary(500)
    wanted = cases.config(fairness={"columns": ["group"], "functions": {"kappa": sk.cohen_kappa_score}})
    figures = {f.name: f.value for f in groups.fairness(outcome, wanted).figures}
    per_group = [
        sk.cohen_kappa_score(outcome.truth[rows], outcome.guess[rows])
        for rows in outcome.features.groupby("group").indices.values()
    ]
    assert figures["gap.kappa"] == pytest.approx(max(per_group) - min(per_group), **EXACT)


@pytest.mark.parametrize("strategy", ["uniform", "quantile"])
def test_the_reliability_curve_equals_scikit_learns(strategy: Any) -> None:
    outcome = cases.binary(2000)
    observed, predicted = sk_calibration.calibration_curve(outcome.truth, outcome.scores, n_bins=10, strategy=strategy)
    curve = checks.reliability_curve(outcome.truth, outcome.scores, strategy=strategy)
    assert curve["observed"].to_numpy() == pytest.approx(observed, **EXACT)
    assert curve["predicted"].to_numpy() == pytest.approx(predicted, **EXACT)
    wanted = np.sum(curve["rows"] / 2000 * np.abs(observed - predicted))
    assert checks.expected_calibration_error(outcome.truth, outcome.scores, strategy=strategy) == pytest.approx(wanted)


def test_calibration_of_several_classes_is_that_of_the_predicted_class() -> None:
    outcome = cases.multiclass(2000)
    section = calibration.calibration(outcome, cases.config())
    hit, top = outcome.guess == outcome.truth, outcome.scores.max(axis=1)
    assert section.figures[0].value == pytest.approx(checks.expected_calibration_error(hit, top), **EXACT)


def test_drift_statistics_equal_scipys() -> None:
    rng = np.random.default_rng(0)
    before, after = rng.normal(size=800), rng.normal(0.3, 1.2, size=600)
    found = drift.compare(pd.Series(before), pd.Series(after))
    wanted = stats.ks_2samp(before, after, method="asymp")
    assert found["ks"] == pytest.approx(wanted.statistic, **EXACT)
    assert found["p_value"] == pytest.approx(wanted.pvalue, rel=1e-9)
    one, other = pd.Series(rng.choice(list("abc"), 500)), pd.Series(rng.choice(list("abc"), 400, p=[0.5, 0.3, 0.2]))
    counts = np.stack([s.value_counts().sort_index().to_numpy() for s in (one, other)])
    found = drift.compare(one, other)
    chi = stats.chi2_contingency(counts, correction=False)
    assert (found["chi_square"], found["p_value"]) == pytest.approx((chi.statistic, chi.pvalue), **EXACT)
    assert found["js"] == pytest.approx(distance.jensenshannon(*counts, base=2), **EXACT)
    p, q = counts / counts.sum(axis=1, keepdims=True)
    assert found["psi"] == pytest.approx(np.sum((q - p) * np.log(q / p)), **EXACT)
