"""The section on robustness: what noise, missing values and permuted columns do to the predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_validation_evaluator.figures import Figure, Section, higher_is_better
from mlflow_validation_evaluator.outcome import Outcome, table_of
from mlflow_validation_evaluator.reading import require_columns
from mlflow_validation_evaluator.settings import Config

_logger = get_logger("mlflow_validation_evaluator")
NAMES = {"noise": "Noise", "missing": "Missing values", "permutation": "Permutation"}


def robustness(outcome: Outcome, config: Config) -> Section:
    """The section on robustness.

    For each check `robustness.<check>.<metric>` is the metric on the perturbed rows, `.drop` how much worse it is than
    on the same rows unperturbed, and `.changed` the share of predictions that change (classifiers). Permutation
    takes one column at a time: its figures are those of the column that does most.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` without a model.
    """
    wanted = config.robustness
    assert wanted
    if outcome.predict is None:
        raise mlflow_error("Robustness is tested by asking the model: give `model`, not predictions alone.")
    rng = np.random.default_rng(config.seed)
    rows = np.sort(rng.choice(outcome.rows, min(wanted.rows, outcome.rows), replace=False))
    frame = outcome.features.iloc[rows]
    require_columns(frame, wanted.columns or (), "key 'robustness.columns'")
    columns = list(wanted.columns or outcome.takes)
    trial = _Trial(outcome, rows)
    section, table = Section("Robustness"), []
    for check in wanted.checks:
        for name, changed in _perturbed(check, frame, columns, wanted.noise, wanted.missing, rng):
            found = trial.run(changed)
            if isinstance(found, str):
                section.notes.append(f"{NAMES[check]}{f' of {name}' if name else ''}: the model refuses it: {found}")
                continue
            table.append({"check": check, "column": name or "all", "rows": len(rows), **found})
    result = pd.DataFrame(table, columns=["check", "column", "rows", trial.metric, "drop", "changed"])
    section.figures = _figures(result, trial.metric, wanted.checks, section.notes)
    section.add_table("robustness", result.sort_values(["check", "drop"], ascending=[True, False]), "Perturbations")
    section.text = _sentences(result, trial)
    return section


class _Trial:
    """The metric on some rows, as they are and perturbed."""

    def __init__(self, outcome: Outcome, rows: Any) -> None:
        self.metric = "mae" if outcome.kind == "regression" else "accuracy"
        self._outcome, self._rows = outcome, rows
        self.before = self._value(outcome.guess[rows])

    def run(self, changed: pd.DataFrame) -> dict[str, float] | str:
        """Metric, drop and share of changed predictions; or why the model refused the rows."""
        assert self._outcome.predict
        try:
            guess = self._outcome.predict(changed).labels
        except Exception as exc:  # a model may raise anything at rows it cannot take: that is the answer
            _logger.debug("The model refused perturbed rows", exc_info=True)
            return f"{type(exc).__name__}: {str(exc).splitlines()[0][:300] if str(exc) else ''}"
        value = self._value(guess)
        drop = self.before - value if higher_is_better(self.metric) else value - self.before
        regression = self._outcome.kind == "regression"
        changes = float("nan") if regression else float(np.mean(guess != self._outcome.guess[self._rows]))
        return {self.metric: value, "drop": drop, "changed": changes}

    def _value(self, guess: Any) -> float:
        truth, size = self._outcome.truth[self._rows], len(self._outcome.classes)
        zeros = np.zeros(len(truth), np.int8)
        return float(table_of(self._outcome.kind, truth, guess, zeros, 1, size, None).value(self.metric)[0])


def _perturbed(check: str, frame: Any, columns: list[Any], noise: float, missing: float, rng: Any) -> Any:
    if check == "noise":
        numeric = [c for c in columns if _is_number(frame[c])]
        if numeric:
            yield "", frame.assign(**{c: _noisy(frame[c], noise, rng) for c in numeric})
    elif check == "missing":
        yield "", frame.assign(**{c: frame[c].mask(rng.random(len(frame)) < missing) for c in columns})
    else:
        for column in columns:
            if frame[column].nunique(dropna=False) > 1:
                shuffled = frame[column].iloc[rng.permutation(len(frame))].set_axis(frame.index)
                yield str(column), frame.assign(**{column: shuffled})


def _is_number(series: Any) -> bool:
    kinds = pd.api.types
    return bool(kinds.is_numeric_dtype(series.dtype) and not kinds.is_bool_dtype(series.dtype))


def _noisy(series: Any, noise: float, rng: Any) -> Any:
    deviation = float(series.std())
    added = rng.standard_normal(len(series)) * noise * (deviation if deviation == deviation else 0.0)
    if pd.api.types.is_integer_dtype(series.dtype):
        # A model's schema may take whole numbers only.
        bounds = np.iinfo(series.dtype.name.lower())
        return (series + np.clip(np.round(added), bounds.min // 4, bounds.max // 4).astype(np.int64)).astype(
            series.dtype
        )
    return (series + added).astype(series.dtype)


def _figures(table: pd.DataFrame, metric: str, checks: Any, notes: list[str]) -> list[Figure]:
    found = []
    for check in checks:
        part = table[table["check"] == check]
        if part.empty:
            why = next((n for n in notes if n.startswith(NAMES[check])), "there is no column that it applies to")
            found += [Figure(f"robustness.{check}.{k}", float("nan"), undefined=why) for k in (metric, "drop")]
            continue
        worst = part.loc[part["drop"].idxmax()]
        about = "" if worst["column"] == "all" else str(worst["column"])
        for key in (metric, "drop", "changed"):
            if np.isfinite(worst[key]):
                found.append(Figure(f"robustness.{check}.{key}", float(worst[key]), about=about))
    return found


def _sentences(table: pd.DataFrame, trial: _Trial) -> list[str]:
    said = []
    for check, words in (("noise", "With noise in the numbers"), ("missing", "With values missing")):
        part = table[table["check"] == check]
        if len(part):
            said.append(f"{words}, {trial.metric} goes from {trial.before:.3g} to {part.iloc[0][trial.metric]:.3g}.")
    part = table[table["check"] == "permutation"]
    if len(part):
        top = part.loc[part["drop"].idxmax()]
        said.append(f"The model leans most on {top['column']}: shuffled, {trial.metric} is {top[trial.metric]:.3g}.")
    return said
