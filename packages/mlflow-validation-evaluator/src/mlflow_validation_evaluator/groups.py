"""Group metrics, gaps and ratios: the metrics of each value of given columns, and what lies between the groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.columns import Coded, check_groups, coded, combined
from mlflow_validation_evaluator.figures import Figure, Interval, Section, for_readers
from mlflow_validation_evaluator.intervals import contenders, largest_difference
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.reading import require_columns
from mlflow_validation_evaluator.settings import Config, nearest
from mlflow_validation_evaluator.tables import GroupTable

SMALL = 30
GAP_METHOD = "MOVER over all pairs of groups"


def fairness(outcome: Outcome, config: Config) -> Section:
    """The section on fairness: a table of groups, and gap and ratio of each metric.

    `gap.<metric>` and `ratio.<metric>` are the worst of all columns, `gap.<metric>.<column>` those of one.
    """
    wanted = config.fairness
    assert wanted
    metrics = chosen_metrics(outcome, wanted.metrics)
    section = Section("Fairness")
    tables, gaps = [], []
    for names in wanted.columns:
        groups = grouped(outcome.features, names, "key 'fairness.columns'", bins=None)
        table = outcome.table(groups.codes, groups.size)
        tables.append(frame_of(table, groups, metrics, config.confidence))
        gaps += [figure for metric in metrics for figure in between(table, groups, metric, wanted.min_rows)]
        few = int(np.sum(table.count < SMALL))
        if few:
            section.notes.append(
                f"{groups.name}: {few} of {groups.size} groups have fewer than {SMALL} rows. Their metrics are "
                "uncertain, and a gap that rests on them is too: see its interval."
            )
    if outcome.kind == "binary":
        gaps += _equalized_odds(gaps)
    if wanted.functions:
        from mlflow_validation_evaluator.frames import function_figures

        gaps += function_figures(outcome, wanted.columns, wanted.functions)
    section.figures = worst_of(gaps) + gaps
    frame = pd.concat(tables, ignore_index=True)
    section.add_table("groups", frame, "Metrics of the groups", for_readers(frame))
    gaps_frame = _gaps_frame(section.figures, config.confidence)
    widest = gaps_frame[gaps_frame["figure"].str.count(r"\.") == 1]
    section.add_table("gaps", gaps_frame, "Gaps and ratios between groups", widest)
    section.text = _sentences(section.figures, config.confidence)
    return section


def grouped(features: Any, names: str | Sequence[str], where: str, *, bins: int | None) -> Coded:
    """The groups of a column, or of the combinations of several.

    A numeric column keeps a group per value unless `bins` asks for quantile bins; one with fractions and more than
    50 distinct values is binned all the same, for its values are hardly groups.
    """
    listed = (names,) if isinstance(names, str) else tuple(names)
    require_columns(features, listed, where)
    parts = []
    for name in listed:
        series = features[name]
        fractions = pd.api.types.is_float_dtype(series.dtype) or pd.api.types.is_datetime64_any_dtype(series.dtype)
        parts.append(coded(series, bins=bins or (4 if fractions else None), most=None, bin_from=20 if bins else 50))
    found = combined(parts)
    check_groups(found.size, len(features), found.name)
    return found


def chosen_metrics(outcome: Outcome, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The metrics to compare; an unknown one is refused, naming the nearest."""
    for name in wanted or ():
        if name not in outcome.metrics:
            hint = nearest(name, outcome.metrics, "Metrics")
            raise mlflow_error(f"There is no group metric {name!r} for a {outcome.kind} model. {hint}")
    return tuple(wanted or outcome.metrics)


def frame_of(table: GroupTable, groups: Coded, metrics: Sequence[str], level: float) -> pd.DataFrame:
    """The table of groups: rows, and each metric with the ends of its interval."""
    filled = table.count > 0
    columns: dict[str, Any] = {
        "column": groups.name,
        "group": np.asarray(groups.texts, object)[filled],
        "rows": table.count[filled].astype(np.int64),
    }
    for metric in metrics:
        low, high = table.interval(metric, level)
        columns[metric] = table.value(metric)[filled]
        columns[f"{metric}.lower"], columns[f"{metric}.upper"] = low[filled], high[filled]
    return pd.DataFrame(columns)


def between(table: GroupTable, groups: Coded, metric: str, min_rows: int = 1) -> list[Figure]:
    """Gap (largest minus smallest) and ratio (smallest over largest) of a metric, over the groups that define it."""
    values = table.value(metric)
    usable = np.flatnonzero((table.count >= min_rows) & np.isfinite(values))
    gap, ratio = f"gap.{metric}.{groups.name}", f"ratio.{metric}.{groups.name}"
    if len(usable) < 2:
        why = f"{len(usable)} of {groups.size} groups of {groups.name!r} have it"
        return [Figure(name, float("nan"), undefined=why, detail=True) for name in (gap, ratio)]
    values = values[usable]
    top, bottom = int(np.argmax(values)), int(np.argmin(values))
    about = f"{groups.texts[usable[top]]} and {groups.texts[usable[bottom]]}"
    found = [
        Figure(
            gap,
            float(values[top] - values[bottom]),
            _gap_interval(table, metric, usable),
            GAP_METHOD,
            about=about,
            detail=True,
        )
    ]
    if np.all(values >= 0) and metric not in ("mean_error", "mean_prediction"):
        # fairlearn: the ratio of two zeros is 0/0, which is no disparity that could be measured.
        value = float(values[bottom] / values[top]) if values[top] > 0 else float("nan")
        why = "" if values[top] > 0 else "it is 0 in all groups"
        interval = _ratio_interval(table, metric, usable)
        found.append(Figure(ratio, value, interval, f"{GAP_METHOD}, log scale", why, about=about, detail=True))
    return found


def _gap_interval(table: GroupTable, metric: str, usable: Any) -> Any:
    def interval(level: float) -> Interval:
        parts = _at(table, metric, usable, level)
        if np.isnan(parts[1]).any():
            return float("nan"), float("nan")
        low, high = _difference(table, metric, usable, level, np.asarray)
        return max(low, 0.0), high

    return interval


def _ratio_interval(table: GroupTable, metric: str, usable: Any) -> Any:
    def interval(level: float) -> Interval:
        values, low, high = _at(table, metric, usable, level)
        if np.isnan(low).any():
            return float("nan"), float("nan")
        if values.min() <= 0:
            return 0.0, float(min(1.0, high[np.argmin(values)] / max(low[np.argmax(values)], 1e-300)))
        with np.errstate(divide="ignore"):
            below, above = _difference(table, metric, usable, level, np.log)
        return float(np.exp(-above)), float(min(1.0, np.exp(-below)))

    return interval


def _difference(table: GroupTable, metric: str, usable: Any, level: float, scale: Any) -> Interval:
    """Both bounds of `max - min` on a scale: the upper one of all pairs, the lower one, corrected, of the largest."""
    values, low, high = (scale(v) for v in _at(table, metric, usable, level))
    upper = largest_difference(values, low, high)[0]
    pairs = contenders(values, low, high)
    values, low, high = (scale(v) for v in _at(table, metric, usable, 1 - (1 - level) / pairs))
    top, bottom = int(np.argmax(values)), int(np.argmin(values))
    half = np.hypot(values[top] - low[top], high[bottom] - values[bottom])
    return float(values[top] - values[bottom] - half), float(upper)


def _at(table: GroupTable, metric: str, usable: Any, level: float) -> tuple[Any, Any, Any]:
    low, high = table.interval(metric, level)
    values = table.value(metric)
    # Where a value without rows is set by `zero_division`, nothing is known of it.
    low, high = (
        np.where(np.isnan(low) & ~np.isnan(values), 0.0, low),
        np.where(np.isnan(high) & ~np.isnan(values), 1.0, high),
    )
    return values[usable], low[usable], high[usable]


def worst_of(figures: Sequence[Figure]) -> list[Figure]:
    """`gap.<metric>` and `ratio.<metric>`: the worst of all columns."""
    families: dict[str, list[Figure]] = {}
    for figure in figures:
        kind, _, rest = figure.name.partition(".")
        families.setdefault(f"{kind}.{rest.partition('.')[0]}", []).append(figure)
    found = []
    for name, members in families.items():
        defined = [m for m in members if m.is_defined]
        if not defined:
            found.append(Figure(name, float("nan"), undefined=members[0].undefined))
            continue
        worst = (max if name.startswith("gap.") else min)(defined, key=lambda m: m.value)
        column = worst.name.removeprefix(f"{name}.")
        about = f"{column}: {worst.about}"
        interval = _joint(defined, largest=name.startswith("gap."))
        found.append(Figure(name, worst.value, interval, worst.method, about=about))
    return found


def _joint(members: Sequence[Figure], *, largest: bool) -> Any:
    """The interval of the worst of several figures; both ends are the worst of theirs."""

    def interval(level: float) -> Interval:
        bounds = [b for m in members if (b := m.bounds(level)) is not None]
        if not bounds:
            return float("nan"), float("nan")
        pick = max if largest else min
        return pick(b[0] for b in bounds), pick(b[1] for b in bounds)

    return interval


def _equalized_odds(figures: Sequence[Figure]) -> list[Figure]:
    """`gap.equalized_odds.<column>`: the larger of the gaps of recall and of the false positive rate."""
    by_name, found = {f.name: f for f in figures}, []
    for name, figure in by_name.items():
        column = name.removeprefix("gap.recall.")
        other = by_name.get(f"gap.false_positive_rate.{column}")
        if column == name or other is None:
            continue
        both = [f for f in (figure, other) if f.is_defined]
        if len(both) < 2:
            why = figure.undefined or other.undefined
            found.append(Figure(f"gap.equalized_odds.{column}", float("nan"), undefined=why, detail=True))
            continue
        worst = max(both, key=lambda f: f.value)
        interval = _joint(both, largest=True)
        name = f"gap.equalized_odds.{column}"
        found.append(Figure(name, worst.value, interval, GAP_METHOD, about=worst.about, detail=True))
    return found


def _gaps_frame(figures: Sequence[Figure], level: float) -> pd.DataFrame:
    rows = []
    for figure in figures:
        low, high = figure.bounds(level) or (float("nan"), float("nan"))
        rows.append({"figure": figure.name, "value": figure.value, "lower": low, "upper": high,
                     "between": figure.about or figure.undefined})  # fmt: skip
    return pd.DataFrame(rows)


def _sentences(figures: Sequence[Figure], level: float) -> list[str]:
    """What a reader without statistics takes home: the largest gaps."""
    by_name = {f.name: f for f in figures if f.is_defined}
    wanted = ("selection_rate", "recall", "false_positive_rate", "accuracy", "mae", "mean_error")
    said: list[str] = []
    for metric in wanted:
        figure = by_name.get(f"gap.{metric}")
        if figure and len(said) < 3:
            name = metric.upper() if metric == "mae" else metric.replace("_", " ").capitalize()
            bounds = figure.bounds(level)
            sure = f" ({level * 100:.4g} % interval {bounds[0]:.3g} to {bounds[1]:.3g})" if bounds else ""
            said.append(f"{name} differs by {figure.value:.3g}{sure} between {figure.about.replace(': ', ' ', 1)}.")
    return said
