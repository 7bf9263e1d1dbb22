"""What labels, predictions, probabilities and columns may look like: a clear answer or a clear error."""

from __future__ import annotations

from typing import Any

import cases
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException

from mlflow_validation_evaluator import checks
from mlflow_validation_evaluator.evaluator import examine
from mlflow_validation_evaluator.headline import headline
from mlflow_validation_evaluator.outcome import Outcome


def figures(outcome: Outcome) -> dict[str, Any]:
    return {f.name: f for f in headline(outcome, 200, 0)}


@pytest.mark.parametrize(
    ("labels", "predictions", "kind", "words"),
    [
        ([], [], "classifier", "no rows"),
        ([0, 1, None, 1], [0, 1, 1, 1], "classifier", "1 of 4 labels are missing"),
        ([0, 1, 0, 1], [0, 1, None, None], "classifier", "2 of 4 predictions are missing"),
        ([1.0, np.nan, 2.0], [1.0, 1.0, 1.0], "regressor", "1 of 3 labels are missing or infinite"),
        ([1.0, 2.0, 3.0], [1.0, np.inf, 1.0], "regressor", "1 of 3 predictions are missing or infinite"),
        (["a", "b", "c"], [1.0, 2.0, 3.0], "regressor", "must be numbers"),
        (["1", "0", "1"], [1, 0, 1], "classifier", "make them the same"),
        (np.arange(600) + 0.5, np.arange(600) + 0.5, "classifier", "the model_type is 'regressor'"),
    ],
)
def test_what_cannot_be_evaluated_is_said(labels: Any, predictions: Any, kind: str, words: str) -> None:
    with pytest.raises(MlflowException, match=words) as caught:
        cases.read(labels, predictions, kind=kind)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize(
    ("labels", "predictions"),
    [
        ([True, False, True, False], [True, True, True, False]),
        (["yes", "no", "yes", "no"], ["yes", "yes", "yes", "no"]),
        ([1, 0, 1, 0], [1.0, 1.0, 1.0, 0.0]),
        (pd.Categorical(["yes", "no", "yes", "no"]), pd.Categorical(["yes", "yes", "yes", "no"])),
        ([1, 0, 1, 0], [True, True, True, False]),
        ([2, 1, 2, 1], [2, 2, 2, 1]),
        (pd.to_datetime(["2024-02-01", "2024-01-01"] * 2), pd.to_datetime(["2024-02-01"] * 3 + ["2024-01-01"])),
    ],
    ids=["boolean", "text", "numbers", "category", "mixed", "other numbers", "dates"],
)
def test_classes_of_any_type_have_a_positive_one(labels: Any, predictions: Any) -> None:
    found = figures(cases.read(labels, predictions))
    assert (found["recall"].value, found["precision"].value) == (1.0, pytest.approx(2 / 3))


def test_the_positive_class_can_be_chosen() -> None:
    found = figures(cases.read(["yes", "no", "yes", "no"], ["yes", "yes", "yes", "no"], pos_label="no"))
    assert (found["recall"].value, found["precision"].value) == (0.5, 1.0)
    with pytest.raises(MlflowException, match="none of the classes"):
        cases.read(["yes", "no"], ["yes", "no"], pos_label="maybe")


@pytest.mark.parametrize(("label", "defined"), [(1, "recall"), (0, "specificity"), ("a", "specificity")])
def test_one_class_only_leaves_out_what_it_cannot_tell_and_says_why(label: Any, defined: str) -> None:
    outcome = cases.read([label] * 50, [label] * 50)
    found = figures(outcome)
    assert found["accuracy"].value == found[defined].value == 1.0
    other = found["specificity" if defined == "recall" else "recall"]
    assert np.isnan(other.value)
    assert other.undefined in ("there are no negatives", "there are no positives")
    examine(outcome, cases.config(), None)


def test_a_group_without_positives_has_no_recall_and_zero_division_sets_it() -> None:
    labels, guess, group = [1, 0, 0, 0] * 20, [1, 0, 0, 1] * 20, ["a", "a", "b", "b"] * 20
    frame = pd.DataFrame({"g": group})
    table = checks.group_metrics(labels, guess, frame).set_index("group")["recall"]
    assert table["a"] == 1.0
    assert np.isnan(table["b"])
    assert checks.group_metrics(labels, guess, frame, zero_division=0.0).set_index("group")["recall"]["b"] == 0.0


def test_probabilities_as_predictions_are_taken_as_such() -> None:
    labels, probability = [0, 1, 1, 0], [0.2, 0.7, 0.4, 0.1]
    outcome = cases.read(labels, probability)
    assert outcome.guess.tolist() == [0, 1, 0, 0]
    assert outcome.scores.tolist() == probability
    assert "probabilities" in outcome.notes[0]
    assert cases.read(labels, probability, threshold=0.3).guess.tolist() == [0, 1, 1, 0]


def test_columns_of_probabilities_are_named_in_the_configuration() -> None:
    frame = pd.DataFrame({"x": [1, 2, 3], "a": [0.5, 0.2, 0.1], "b": [0.3, 0.7, 0.1], "c": [0.2, 0.1, 0.8]})
    outcome = cases.read(["a", "b", "c"], ["a", "b", "c"], frame, scores=["a", "b", "c"])
    assert list(outcome.features) == ["x"]
    assert figures(outcome)["log_loss"].value == pytest.approx(-np.mean(np.log([0.5, 0.7, 0.8])))
    for wrong, words in [
        (["a", "b"], "2 columns of probabilities and 3 classes"),
        ("a", "name a column"),
        ("d", "Columns"),
    ]:
        with pytest.raises(MlflowException, match=words):
            cases.read(["a", "b", "c"], ["a", "b", "c"], frame, scores=wrong)
    with pytest.raises(MlflowException, match="between 0 and 1"):
        cases.read([0, 1, 1], [0, 1, 1], frame, scores="x")


def test_columns_of_every_type_are_evaluated() -> None:
    rng = np.random.default_rng(0)
    n = 400
    frame = pd.DataFrame({
        "text": rng.choice(["a", "b", None], n), "category": pd.Categorical(rng.choice(list("xy"), n), list("xyz")),
        "boolean": rng.random(n) < 0.5, "nullable": pd.array(rng.integers(0, 100, n), "Int64"),
        "date": pd.Timestamp("2024-01-01", tz="Europe/Paris") + pd.to_timedelta(rng.integers(0, 90, n), "D"),
        "duration": pd.to_timedelta(rng.integers(0, 90, n), "h"), "number": rng.normal(size=n),
        "infinite": np.where(rng.random(n) < 0.1, -np.inf, 1.0), "missing": np.full(n, np.nan),
        "nested": [{"a": i % 2} for i in range(n)], "<b>$x_1$": rng.integers(0, 3, n), 7: rng.integers(0, 3, n),
    })  # fmt: skip
    frame.loc[:5, "number"] = np.nan
    labels = rng.integers(0, 2, n)
    names = [c for c in frame if isinstance(c, str)]
    given = {
        "slices": {"columns": [*names, ["text", "boolean"]]}, "fairness": {"columns": names},
        "drift": {"reference": frame.sample(300, random_state=0)},
    }  # fmt: skip
    outcome = cases.read(labels, labels ^ (rng.random(n) < 0.2), frame, **given)
    _, sections = examine(outcome, cases.config(**given), None)
    groups = sections[0].tables["slices"]
    assert groups[groups["column"] == "category"]["group"].to_list() == ["x", "y"]
    assert groups[groups["column"] == "missing"]["group"].to_list() == ["missing"]
    assert groups[groups["column"] == "boolean"]["group"].to_list() == ["False", "True"]
    assert (groups.groupby("column")["rows"].sum() == n).all()
    assert len(sections[-1].tables["drift"]) == frame.shape[1]


def test_ten_thousand_groups_are_compared() -> None:
    rng = np.random.default_rng(0)
    n = 60_000
    frame = pd.DataFrame({"shop": rng.integers(0, 10_000, n)})
    labels = rng.integers(0, 2, n)
    guess = labels ^ (rng.random(n) < 0.2)
    gaps = checks.group_gaps(labels, guess, frame).set_index("figure")
    assert gaps.loc["gap.accuracy", "value"] == 1.0
    # The groups are alike, and differ by chance alone: the interval knows.
    assert gaps.loc["gap.accuracy", "lower"] == 0.0
    assert len(checks.group_metrics(labels, guess, frame)) == frame["shop"].nunique()


def test_a_group_for_each_row_is_refused() -> None:
    n = 100_500
    with pytest.raises(MlflowException, match="too many groups"):
        checks.group_metrics(np.zeros(n, int), np.zeros(n, int), np.arange(n))


def test_an_unknown_column_names_the_nearest() -> None:
    given = {"fairness": {"columns": ["grup"]}}
    with pytest.raises(MlflowException, match="Did you mean 'group'"):
        examine(cases.binary(50), cases.config(**given), None)


def test_groups_of_a_single_row_leave_a_regressors_gap_without_an_upper_end() -> None:
    truth, guess = np.arange(9.0), np.arange(9.0) + np.array([0, 1, 0, 1, 0, 1, 0, 1, 5])
    gaps = checks.group_gaps(truth, guess, list("aaaabbbbc"), kind="regressor").set_index("figure")
    assert gaps.loc["gap.mae", "value"] == pytest.approx(4.5)
    assert np.isinf(gaps.loc["gap.mae", "upper"])


PROBABILITY = np.array([0.9, 0.2, 0.7, 0.4, 0.1])
LABELS = [1, 0, 1, 1, 0]
WIDE = np.column_stack([1 - PROBABILITY, PROBABILITY])


@pytest.mark.parametrize(
    ("output", "given"),
    [
        (WIDE, {}),
        (WIDE, {"pos_label": 1}),
        (WIDE, {"label_list": [0, 1]}),
        (WIDE[:, ::-1], {"label_list": [1, 0], "pos_label": 1}),
        (pd.DataFrame(WIDE), {}),
        (pd.DataFrame(WIDE, columns=[0, 1]), {"label_list": [1, 0], "pos_label": 1}),
        (pd.DataFrame(WIDE[:, ::-1], columns=["1", "0"]), {}),
        (pd.DataFrame(WIDE[:, ::-1], columns=[1, 0]), {}),
        (pd.DataFrame(WIDE, columns=["no", "yes"]), {}),
        ([{"0": 1 - p, "1": p} for p in PROBABILITY], {}),
    ],
)
def test_columns_of_probabilities_belong_to_the_right_classes(output: Any, given: dict[str, Any]) -> None:
    outcome = cases.read_model(LABELS, output, **given)
    assert outcome.classes == (0, 1)
    assert outcome.scores == pytest.approx(PROBABILITY)


def test_the_positive_class_does_not_change_whose_probabilities_a_column_holds() -> None:
    """Unnamed columns stay in the order of the labels, whichever is the positive one."""
    outcome = cases.read_model(LABELS, WIDE, pos_label=0)
    assert outcome.classes == (1, 0)
    assert outcome.scores == pytest.approx(1 - PROBABILITY)
    frame = pd.DataFrame({"s0": 1 - PROBABILITY, "s1": PROBABILITY})
    guess = (PROBABILITY >= 0.5).astype(int)
    assert cases.read(LABELS, guess, frame, scores=["s0", "s1"], pos_label=0).scores == pytest.approx(1 - PROBABILITY)


def test_several_classes_have_the_order_of_the_label_list() -> None:
    names, labels = ["low", "medium", "high"], ["low", "medium", "high", "high"]
    wide = np.array([[0.8, 0.1, 0.1], [0.1, 0.7, 0.2], [0.1, 0.2, 0.7], [0.2, 0.2, 0.6]])
    found = figures(cases.read_model(labels, wide, label_list=names))
    assert (found["accuracy"].value, found["roc_auc"].value) == (1.0, 1.0)
    with pytest.raises(MlflowException, match="'low' stands twice"):
        cases.read_model(labels, wide, label_list=[*names, "low"])


@pytest.mark.parametrize(
    "output",
    [
        pd.DataFrame({"probability": PROBABILITY, "prediction": [1, 0, 1, 0, 0]}),
        pd.DataFrame({"probability": PROBABILITY, "prediction": list("xyxyy")}),
        [{"probability": p, "prediction": int(p > 0.5)} for p in PROBABILITY],
    ],
)
def test_columns_that_are_no_probabilities_are_not_taken_for_them(output: Any) -> None:
    with pytest.raises(MlflowException, match="predictions="):
        cases.read_model(LABELS, output)


def test_a_column_of_the_output_is_named() -> None:
    output = pd.DataFrame({"probability": PROBABILITY, "prediction": [1, 0, 1, 0, 0]})
    assert cases.read_model(LABELS, output, "prediction").guess.tolist() == [1, 0, 1, 0, 0]
    assert cases.read_model(LABELS, output, "probability").scores == pytest.approx(PROBABILITY)
    with pytest.raises(MlflowException, match="cannot be read as rows"):
        cases.read_model(LABELS, {"prediction": 1})
