"""Gates: how they are read, and what they say of figures."""

from __future__ import annotations

import pytest
from mlflow.exceptions import MlflowException

from mlflow_validation_evaluator.figures import Figure
from mlflow_validation_evaluator.gates import judge, parse_gate

NAN = float("nan")


@pytest.mark.parametrize(
    ("text", "figure", "operator", "limit", "level"),
    [
        ("worst_slice.recall >= 0.7", "worst_slice.recall", ">=", 0.7, None),
        ("psi.max < 0.2", "psi.max", "<", 0.2, None),
        ("gap.selection_rate <= 0.1 @ 95 %", "gap.selection_rate", "<=", 0.1, 0.95),
        ("accuracy>90%", "accuracy", ">", 0.9, None),
        ("  mae<=1e-3@0.99 ", "mae", "<=", 0.001, 0.99),
        ("mean_error >= -.5 @ 90%", "mean_error", ">=", -0.5, 0.9),
        ("psi.marital status < 0.1", "psi.marital status", "<", 0.1, None),
    ],
)
def test_gates_are_read(text: str, figure: str, operator: str, limit: float, level: float | None) -> None:
    gate = parse_gate(text)
    assert (gate.figure, gate.operator, gate.limit) == (figure, operator, limit)
    assert gate.level == (level if level is None else pytest.approx(level))


@pytest.mark.parametrize(
    "text", ["", "recall", "recall 0.7", "recall = 0.7", "recall >= high", ">= 0.7", "recall >= 0.7 @"]
)
def test_what_is_no_gate_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(MlflowException, match=r"recall >= 0\.7 @ 95 %") as caught:
        parse_gate(text)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("level", ["5 %", "100 %", "95"])
def test_a_level_is_between_half_and_one(level: str) -> None:
    with pytest.raises(MlflowException, match="between 50 % and 100 %"):
        parse_gate(f"recall >= 0.7 @ {level}")


def verdict(gate: str, value: float, low: float = 0.0, high: float = 1.0, **kwargs: str) -> bool:
    figure = Figure("x", value, lambda level: (low, high), **kwargs)
    return judge([parse_gate(gate)], {"x": figure})[0].passed


def test_a_gate_compares_the_value_and_its_limit_counts_as_written() -> None:
    assert verdict("x >= 0.7", 0.7)
    assert not verdict("x > 0.7", 0.7)
    assert verdict("x <= 0.7", 0.7)
    assert not verdict("x < 0.7", 0.7)


def test_with_a_level_the_less_favourable_bound_is_compared() -> None:
    assert not verdict("x >= 0.7 @ 95 %", 0.8, low=0.65)
    assert verdict("x >= 0.7 @ 95 %", 0.8, low=0.71)
    assert not verdict("x <= 0.1 @ 95 %", 0.05, high=0.12)
    assert verdict("x <= 0.1 @ 95 %", 0.05, high=0.09)


def test_the_level_reaches_the_interval() -> None:
    asked = []
    figure = Figure("x", 0.5, lambda level: asked.append(level) or (0.4, 0.6))
    judge([parse_gate("x > 0.1 @ 80 %")], {"x": figure})
    assert asked == [0.8]


def test_what_cannot_be_measured_is_broken_and_says_why() -> None:
    undefined = Figure("x", NAN, undefined="there are no positives")
    assert "there are no positives" in judge([parse_gate("x < 1")], {"x": undefined})[0].sentence()
    bare = Figure("x", 0.5)
    assert "no confidence interval" in judge([parse_gate("x < 1 @ 95 %")], {"x": bare})[0].sentence()
    missing = judge([parse_gate("y < 1")], {"x": bare})[0]
    assert not missing.passed
    assert "no such figure" in missing.sentence()


def test_a_verdict_is_plain_json() -> None:
    import json

    undefined = Figure("x", NAN, undefined="no rows")
    text = json.dumps([v.plain() for v in judge([parse_gate("x < 1")], {"x": undefined})], allow_nan=False)
    assert json.loads(text)[0]["value"] is None
