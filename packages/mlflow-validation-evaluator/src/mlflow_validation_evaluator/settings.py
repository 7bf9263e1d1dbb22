"""Settings: the evaluator's configuration, checked in full before anything is computed."""

from __future__ import annotations

import difflib
import json
import os
import typing
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option
from mlflow_validation_evaluator.gates import Gate, parse_gates

NAME = "validation"
#: Keys of MLflow's own evaluators, which get the same flat configuration when several run: not ours, and not mistakes.
OF_OTHERS = frozenset(
    (
        "average", "col_mapping", "explainability_algorithm", "explainability_kernel_link", "explainability_nsamples",
        "log_explainer", "log_metrics_with_dataset_info", "log_model_explainability",
        "max_classes_for_multiclass_roc_pr",
    )
)  # fmt: skip
OURS = ("slices", "fairness", "calibration", "drift", "robustness", "gates")
"""A configuration with one of these keys is meant for this evaluator, even where nobody named it."""
Label = bool | int | float | str
Columns = tuple[str | tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True)
class ValidationSettings(Settings):
    """What a team or a CI pipeline sets once, in the environment."""

    config: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_VALIDATION_CONFIG",
        help="Path of a JSON file with defaults for the configuration.",
    )
    enforce: bool = option(
        True,
        in_uri=False,
        env="MLFLOW_VALIDATION_ENFORCE",
        help="Whether a broken gate raises an error, where the configuration does not say.",
    )


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True, strict=True)


class Slices(_Part):
    """The key `slices`."""

    columns: Columns = Field((), description="Columns, or lists of columns, whose values are slices to report.")
    search: bool | tuple[str, ...] = Field(
        True, description="Search for the worst slices: in all columns, or in these."
    )
    metric: str | None = Field(
        None, description="What the search looks at: `accuracy`, `recall`, `precision`, `false_positive_rate`, "
        "`log_loss`, `brier`, `mae`. By default `accuracy` or `mae`."
    )  # fmt: skip
    depth: int = Field(2, ge=1, le=2, description="How many conditions a searched slice may combine.")
    min_rows: int = Field(30, ge=2, description="Smallest slice that is searched, or that counts for `worst_slice`.")
    bins: int = Field(4, ge=2, le=20, description="Quantile bins of a numeric or date column.")
    max_values: int = Field(30, ge=2, le=500, description="Most frequent values of a text column that are searched.")
    rate: float = Field(0.05, gt=0, lt=1, description="Largest share of false discoveries.")
    control: Literal["yekutieli", "hochberg"] = Field(
        "yekutieli", description="Benjamini-Yekutieli (any dependence) or Benjamini-Hochberg."
    )
    most: int = Field(10, ge=1, le=100, description="How many found slices at most.")


class Fairness(_Part):
    """The key `fairness`."""

    columns: Columns = Field((), description="Sensitive columns; a list of columns is their intersection.")
    metrics: tuple[str, ...] | None = Field(None, description="Metrics to compare; by default all of the model's kind.")
    min_rows: int = Field(1, ge=1, description="Smallest group that counts for gaps and ratios.")
    functions: dict[str, Any] = Field(
        {}, description="Further metrics by name, `f(labels, predictions)`, computed by fairlearn's MetricFrame."
    )

    @field_validator("functions")
    @classmethod
    def _callable(cls, given: dict[str, Any]) -> dict[str, Any]:
        for name, function in given.items():
            if not callable(function):
                raise ValueError(f"{name!r} is no function")
        return given


class Calibration(_Part):
    """The key `calibration`."""

    bins: int = Field(10, ge=2, le=1000, description="Bins of the predicted probability.")
    strategy: Literal["uniform", "quantile"] = Field("uniform", description="Bins of equal width or of equal size.")


class Drift(_Part):
    """The key `drift`."""

    reference: Any = Field(None, description="The reference: a DataFrame, or the path of a Parquet or CSV file.")
    columns: tuple[str, ...] | None = Field(None, description="Columns to compare; by default all that both have.")
    bins: int = Field(10, ge=2, le=1000, description="Quantile bins of numeric and date columns, from the reference.")
    max_values: int = Field(50, ge=2, description="Most frequent values of a text column; the rest is one bin.")
    alpha: float = Field(0.05, gt=0, lt=1, description="Significance of the tests, after correction over the columns.")

    @field_validator("reference")
    @classmethod
    def _given(cls, given: Any) -> Any:
        if not (isinstance(given, (str, os.PathLike)) or hasattr(given, "columns")):
            raise ValueError(f"give a pandas DataFrame or the path of a file, not {type(given).__name__}")
        return given


class Robustness(_Part):
    """The key `robustness`. Needs a model."""

    checks: tuple[Literal["noise", "missing", "permutation"], ...] = Field(
        ("noise", "missing", "permutation"), description="Which perturbations to try."
    )
    noise: float = Field(
        0.1, gt=0, description="Standard deviation of the noise, in standard deviations of the column."
    )
    missing: float = Field(0.1, gt=0, le=1, description="Share of the values that are taken away.")
    rows: int = Field(5000, ge=10, description="Rows that are tried, drawn at random.")
    columns: tuple[str, ...] | None = Field(
        None, description="Columns to perturb; by default all that the model takes."
    )


class Config(_Part):
    """The configuration of one evaluation."""

    pos_label: Label | None = Field(
        None, description="The positive class; by default the last of `label_list`, or in sorted order."
    )
    label_list: tuple[Label, ...] | None = Field(
        None, description="All classes, where the data may lack some, in the order of unnamed columns of probabilities."
    )
    threshold: float = Field(0.5, gt=0, lt=1, description="From which probability on the positive class is predicted.")
    scores: str | tuple[str, ...] | None = Field(
        None, description="Column with the probability of the positive class; one for each class otherwise."
    )
    model_columns: tuple[str, ...] | None = Field(
        None, description="Columns that the model is given; by default those that it says it takes, or all."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of the confidence intervals.")
    resamples: int = Field(2000, ge=200, le=100_000, description="Bootstrap samples.")
    seed: int = Field(0, ge=0, description="Of everything random: the same data give the same figures.")
    zero_division: float | None = Field(
        None, description="Value of a ratio without rows, such as the recall of a group without positives; "
        "undefined by default, 0 as in scikit-learn."
    )  # fmt: skip
    metric_prefix: str = Field("", description="Put before each metric's key.")
    slices: Slices | None = Field(Slices.model_validate({}), description="Slices: see below. `false` leaves them out.")
    fairness: Fairness | None = Field(None, description="Group metrics, gaps and ratios: see below.")
    calibration: Calibration | None = Field(
        Calibration.model_validate({}), description="Calibration, where there are probabilities."
    )
    drift: Drift | None = Field(None, description="Drift against a reference data set: see below.")
    robustness: Robustness | None = Field(None, description="Noise, missing values, permutation: see below.")
    gates: tuple[str, ...] = Field((), description="What must hold: see below.")
    enforce: bool | None = Field(None, description="Whether a broken gate raises an error; true by default.")
    plots: bool = Field(True, description="Whether to draw plots.")
    report: bool = Field(True, description="Whether to write the HTML report.")

    @field_validator("slices", "fairness", "calibration", "drift", "robustness", mode="before")
    @classmethod
    def _switch(cls, given: Any, info: Any) -> Any:
        if given is True:
            return {}
        return None if given is False else given

    @field_validator("gates", mode="before")
    @classmethod
    def _one_gate(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given

    @property
    def parsed_gates(self) -> tuple[Gate, ...]:
        """The gates, parsed."""
        return parse_gates(self.gates)


PARTS: dict[str, type[_Part]] = {
    "slices": Slices, "fairness": Fairness, "calibration": Calibration, "drift": Drift, "robustness": Robustness,
}  # fmt: skip
NEEDS = {
    "worst_slice.": "slices", "slices.": "slices", "gap.": "fairness", "ratio.": "fairness", "psi.": "drift",
    "ks.": "drift", "js.": "drift", "drift.": "drift", "robustness.": "robustness",
}  # fmt: skip


def read_config(given: Mapping[str, Any] | None, environ: Mapping[str, str] | None = None) -> Config:
    """The checked configuration; what `given` leaves out comes from the file in MLFLOW_VALIDATION_CONFIG.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an unknown key (naming the nearest known one), a malformed
            value, a gate that cannot be read, or a gate on a section that is not configured.
    """
    settings = ValidationSettings.from_env(environ)
    mine = dict(given or {})
    if set(mine) == {NAME} and isinstance(mine[NAME], Mapping):
        mine = dict(mine[NAME])
    values = _from_file(settings.config) | {k: v for k, v in mine.items() if k not in OF_OTHERS}
    if values.get("sample_weights") is not None:
        raise mlflow_error("Sample weights are not supported: leave 'sample_weights' out.", "NOT_IMPLEMENTED")
    values.pop("sample_weights", None)
    _refuse_unknown(values, Config, "")
    for name, part in PARTS.items():
        if isinstance(values.get(name), Mapping):
            _refuse_unknown(values[name], part, f"{name}.")
    try:
        config = Config.model_validate(_tuples({"enforce": settings.enforce} | values))
    except ValidationError as exc:
        error = exc.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("function-", "tuple[")))
        raise mlflow_error(
            f"The configuration's {place!r} is wrong: {error['msg'].replace('valid tuple', 'list')}."
        ) from None
    _check_together(config)
    return config


def is_configured(given: Mapping[str, Any] | None) -> bool:
    """Whether a configuration that may be for all evaluators is meant for this one."""
    return bool(given) and any(key in OURS for key in given or ())


def nearest(name: str, known: Iterable[str], what: str = "Known") -> str:
    """A sentence that names the nearest known name, or all of them."""
    names = [str(k) for k in known]
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if near:
        return f"Did you mean {near[0]!r}?"
    shown = ", ".join(names[:30]) + (", ..." if len(names) > 30 else "")
    return f"{what}: {shown or 'none'}."


def keys_table(part: type[BaseModel]) -> str:
    """The Markdown table of a configuration class, as the README shows it."""
    lines = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, declared in part.model_fields.items():
        cells = (f"`{name}`", _kind(declared.annotation), _default(declared.default), declared.description or "")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _refuse_unknown(values: Mapping[str, Any], part: type[BaseModel], prefix: str) -> None:
    for name in values:
        if name not in part.model_fields:
            hint = nearest(str(name), part.model_fields, "Known keys")
            raise mlflow_error(f"Unknown key '{prefix}{name}' in the configuration of the evaluator. {hint}")


def _check_together(config: Config) -> None:
    if config.drift and config.drift.reference is None:
        raise mlflow_error("The configuration's 'drift' has no 'reference': give a DataFrame or the path of a file.")
    if config.fairness and not config.fairness.columns:
        raise mlflow_error("The configuration's 'fairness' has no 'columns': name the sensitive columns.")
    for gate in config.parsed_gates:
        needed = next((part for prefix, part in NEEDS.items() if gate.figure.startswith(prefix)), None)
        if needed and getattr(config, needed) is None:
            raise mlflow_error(f"The gate {gate.text!r} needs the key {needed!r} in the configuration.")
        if gate.level and gate.level > 1 - 20 / config.resamples:
            enough = int(20 / (1 - gate.level)) + 1
            raise mlflow_error(f"The gate {gate.text!r} needs 'resamples' of at least {enough}.")
    if config.confidence > 1 - 20 / config.resamples:
        raise mlflow_error(
            f"A confidence of {config.confidence} needs 'resamples' of {int(20 / (1 - config.confidence)) + 1}."
        )


def _from_file(file: str | None) -> dict[str, Any]:
    if not file:
        return {}
    try:
        read = json.loads(Path(os.path.expanduser(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise mlflow_error(f"The file {file!r} cannot be read as JSON: {exc}.") from exc
    if not isinstance(read, dict):
        raise mlflow_error(f"The file {file!r} holds no JSON object.")
    return read


def _tuples(value: Any) -> Any:
    """Lists as tuples (a frozen configuration has no lists), and NumPy's scalars as Python's."""
    if isinstance(value, (list, tuple)):
        return tuple(_tuples(v) for v in value)
    if isinstance(value, Mapping):
        return {k: (v if k in ("reference", "functions") else _tuples(v)) for k, v in value.items()}
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return value


def _kind(hint: Any) -> str:
    names = {str: "text", int: "whole number", float: "number", bool: "true or false", Any: "DataFrame or text"}
    origin, members = typing.get_origin(hint), [m for m in typing.get_args(hint) if m is not type(None)]
    if hint in names:
        return names[hint]
    if origin is None and isinstance(hint, type) and issubclass(hint, BaseModel):
        return "object"
    if origin is dict:
        return "object"
    if origin is tuple:
        return "list"
    if origin is Literal:
        return " or ".join(f"`{m}`" for m in members)
    if set(members) == {bool, int, float, str}:
        return "label"
    return " or ".join(dict.fromkeys(_kind(m) for m in members))


def _default(value: Any) -> str:
    if isinstance(value, BaseModel):
        return "on"
    if value is None or value in ((), "", {}):
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"`{v}`" for v in value)
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"
