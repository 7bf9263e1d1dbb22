"""Gates: conditions on figures, as `worst_slice.recall >= 0.7` and `gap.selection_rate <= 0.1 @ 95 %`."""

from __future__ import annotations

import operator
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.figures import Figure

OPERATORS = {">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt}
_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_GATE = re.compile(
    rf"\s*(?P<figure>\S.*?)\s*(?P<operator>>=|<=|>|<)\s*(?P<limit>{_NUMBER})\s*(?P<percent>%?)"
    rf"\s*(?:@\s*(?P<level>{_NUMBER})\s*(?P<level_percent>%?))?\s*"
)


@dataclass(frozen=True)
class Gate:
    """One condition.

    Attributes:
        text: as written.
        figure: the figure's name.
        operator: of `OPERATORS`.
        limit: the number it is compared with.
        level: None compares the figure; a level such as 0.95 the bound of its confidence interval that is the
            less favourable one: the lower for `>=` and `>`, the upper for `<=` and `<`.
    """

    text: str
    figure: str
    operator: str
    limit: float
    level: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What became of a gate.

    Attributes:
        measured: what was compared with the limit; NaN where there is nothing to compare.
        value: the figure itself.
        reason: why a gate that was not measured is broken.
    """

    gate: Gate
    passed: bool
    measured: float
    value: float
    reason: str = ""

    def sentence(self) -> str:
        """One sentence for the exception and the report."""
        if self.reason:
            return f"{self.gate.text}: {self.reason}"
        what = f"{self.gate.figure} is {_number(self.value)}"
        if self.gate.level:
            end = "lower" if self.gate.operator[0] == ">" else "upper"
            what += f", with {_number(self.measured)} as the {end} end of its {self.gate.level:.4g} confidence interval"
        return f"{self.gate.text}: {what}"

    def plain(self) -> dict[str, Any]:
        """For JSON; NaN becomes null."""
        return {
            "gate": self.gate.text,
            "passed": self.passed,
            "figure": self.gate.figure,
            "operator": self.gate.operator,
            "limit": self.gate.limit,
            "level": self.gate.level,
            "value": None if self.value != self.value else self.value,
            "measured": None if self.measured != self.measured else self.measured,
            "reason": self.reason,
        }


def parse_gates(texts: Iterable[str]) -> tuple[Gate, ...]:
    """Parse gates of the form `<figure> <operator> <number>[%] [@ <level>[%]]`.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, with the form and an example.
    """
    return tuple(parse_gate(text) for text in texts)


def parse_gate(text: str) -> Gate:
    """Parse one gate; errors as for `parse_gates`."""
    found = _GATE.fullmatch(text)
    if not found:
        raise mlflow_error(
            f"The gate {text!r} cannot be read. Write '<figure> <operator> <number>' with one of "
            f"{', '.join(OPERATORS)}, and '@ 95 %' behind it for the confidence bound: 'recall >= 0.7 @ 95 %'."
        )
    limit = float(found["limit"]) / (100 if found["percent"] else 1)
    level = None
    if found["level"]:
        level = float(found["level"]) / (100 if found["level_percent"] else 1)
        if not 0.5 < level < 1:
            raise mlflow_error(f"The level of the gate {text!r} must lie between 50 % and 100 %.")
    return Gate(text.strip(), found["figure"], found["operator"], limit, level)


def judge(gates: Iterable[Gate], figures: Mapping[str, Figure]) -> list[Verdict]:
    """Hold the gates against the figures. A gate without a number to compare is broken, and says why."""
    return [_judged(gate, figures.get(gate.figure)) for gate in gates]


def _judged(gate: Gate, figure: Figure | None) -> Verdict:
    nan = float("nan")
    if figure is None:
        return Verdict(gate, False, nan, nan, "there is no such figure for this model and data")
    if not figure.is_defined:
        return Verdict(gate, False, nan, nan, f"{gate.figure} is undefined: {figure.undefined or 'no data'}")
    measured = figure.value
    if gate.level:
        bounds = figure.bounds(gate.level)
        if bounds is None:
            return Verdict(gate, False, nan, figure.value, f"{gate.figure} has no confidence interval")
        measured = bounds[0 if gate.operator[0] == ">" else 1]
    return Verdict(gate, bool(OPERATORS[gate.operator](measured, gate.limit)), measured, figure.value)


def _number(value: float) -> str:
    return f"{value:.4g}"
