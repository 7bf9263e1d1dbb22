"""The section on slices: those of given columns, those that the search finds, and the worst of all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.columns import coded
from mlflow_validation_evaluator.figures import Figure, Interval, Section, for_readers, higher_is_better
from mlflow_validation_evaluator.groups import frame_of, grouped
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.reading import require_columns
from mlflow_validation_evaluator.search import Found, SliceSearch
from mlflow_validation_evaluator.settings import Config, Slices, nearest
from mlflow_validation_evaluator.tables import GroupTable

#: A table of slices, what its slices are called, and the rows that a slice needs to count.
Part = tuple[GroupTable, Sequence[str], int]


def slices(outcome: Outcome, config: Config) -> Section:
    """The section on slices.

    `worst_slice.<metric>` is the worst value among all rows, the slices of the given columns and the found ones; of
    those, the slices where the metric rests on at least `min_rows` rows. `slices.found` counts the found ones.
    """
    wanted = config.slices
    assert wanted
    section = Section("Slices")
    parts: list[Part] = [(outcome.whole(), ["all rows"], 0)]
    frames = []
    for names in wanted.columns:
        groups = grouped(outcome.features, names, "key 'slices.columns'", bins=wanted.bins)
        table = outcome.table(groups.codes, groups.size)
        parts.append((table, [f"{groups.name} = {text}" for text in groups.texts], wanted.min_rows))
        frames.append(frame_of(table, groups, outcome.metrics, config.confidence))
    found = search(outcome, wanted, section.notes) if wanted.search is not False else []
    found_parts: list[Part] = [(outcome.part(f.mask()), [str(f)], wanted.min_rows) for f in found]
    section.figures = [
        worst_slice(metric, parts + found_parts) for metric in outcome.metrics if higher_is_better(metric) is not None
    ]
    section.figures.append(Figure("slices.found", float(len(found))))
    if wanted.search is not False:
        frame = found_frame(outcome, found, [p[0] for p in found_parts], config.confidence)
        section.add_table("found_slices", frame, "Slices that the search found", for_readers(frame))
    if frames:
        frame = pd.concat(frames, ignore_index=True)
        section.add_table("slices", frame, "Slices of the given columns", for_readers(frame))
    section.text = _sentences(found, found_parts, outcome)
    return section


def worst_slice(metric: str, parts: Sequence[Part]) -> Figure:
    """The worst value of a metric among slices.

    The interval's ends are the worst of the slices' own: for each slice separately, the level holds for the end that
    a gate compares, so it holds for the worst, too.
    """
    name, up = f"worst_slice.{metric}", bool(higher_is_better(metric))
    best, about = None, ""
    for table, texts, least in parts:
        values = _counting(table, metric, least, table.value(metric))
        if np.isnan(values).all():
            continue
        at = int(np.nanargmin(values) if up else np.nanargmax(values))
        if best is None or (values[at] < best if up else values[at] > best):
            best, about = float(values[at]), str(texts[at])
    if best is None:
        return Figure(name, float("nan"), undefined=parts[0][0].why_undefined(metric))

    def interval(level: float) -> Interval:
        pick = np.nanmin if up else np.nanmax
        ends = [
            [_counting(table, metric, least, end) for end in table.interval(metric, level)] for table, _, least in parts
        ]
        low, high = (np.concatenate([e[i] for e in ends]) for i in (0, 1))
        return float(pick(low)), float(pick(high))

    return Figure(name, best, interval, "worst of the slices' intervals", about=about)


def _counting(table: GroupTable, metric: str, least: int, values: Any) -> Any:
    return np.where(table.support(metric) >= least, values, np.nan)


def search(outcome: Outcome, wanted: Slices, notes: list[str]) -> list[Found]:
    """What the search finds."""
    if isinstance(wanted.search, tuple):
        require_columns(outcome.features, wanted.search, "key 'slices.search'")
    names = wanted.search if isinstance(wanted.search, tuple) else list(outcome.features.columns)
    columns = []
    for name in names:
        column = coded(outcome.features[name], bins=wanted.bins, most=wanted.max_values)
        if column.rest >= 0 and np.sum(column.codes == column.rest) > 0.5 * outcome.rows:
            notes.append(f"{name} has so many values that the search leaves most of them out.")
        columns.append(column)
    metric = _searched_metric(outcome, wanted)
    loss, counted = outcome.loss(metric)
    kept = columns if counted is None else [_only(c, counted) for c in columns]
    loss = loss if counted is None else loss[counted]
    if len(loss) < 2 * wanted.min_rows:
        notes.append(f"There are too few rows to search for slices by {metric}.")
        return []
    finder = SliceSearch(
        kept, loss, min_rows=wanted.min_rows, depth=wanted.depth, rate=wanted.rate,
        dependent=wanted.control == "yekutieli",
    )  # fmt: skip
    # The slices are found among the rows that count, and reported for all rows.
    return [f if counted is None else f.of(columns) for f in finder.run(metric, wanted.most)]


def _only(column: Any, counted: Any) -> Any:
    return replace(column, codes=column.codes[counted])


def _searched_metric(outcome: Outcome, wanted: Slices) -> str:
    if wanted.metric and wanted.metric not in outcome.searched:
        hint = nearest(wanted.metric, outcome.searched, "Metrics")
        raise mlflow_error(f"Slices of a {outcome.kind} model cannot be searched by {wanted.metric!r}. {hint}")
    return wanted.metric or ("mae" if outcome.kind == "regression" else "accuracy")


def found_frame(outcome: Outcome, found: Sequence[Found], tables: Sequence[GroupTable], level: float) -> pd.DataFrame:
    """The table of the slices that were found."""
    rows = []
    for slice_, table in zip(found, tables, strict=True):
        row: dict[str, Any] = {"slice": str(slice_), "rows": int(table.count[0]), "found by": slice_.metric}
        for metric in outcome.metrics:
            low, high = table.interval(metric, level)
            row |= {metric: table.value(metric)[0], f"{metric}.lower": low[0], f"{metric}.upper": high[0]}
        rows.append(row | {"p_value": slice_.p_value, "adjusted_p_value": slice_.adjusted, "tested": slice_.tested})
    columns = ["slice", "rows", "found by"]
    for metric in outcome.metrics:
        columns += [metric, f"{metric}.lower", f"{metric}.upper"]
    return pd.DataFrame(rows, columns=[*columns, "p_value", "adjusted_p_value", "tested"])


def _sentences(found: Sequence[Found], parts: Sequence[Part], outcome: Outcome) -> list[str]:
    if not found:
        return ["The search found no slice that is worse than the rest beyond chance."]
    metric = "mae" if outcome.kind == "regression" else "accuracy"
    whole = outcome.whole().value(metric)[0]
    said = []
    for slice_, (table, _, _) in list(zip(found, parts, strict=True))[:3]:
        by = slice_.metric if slice_.metric in outcome.metrics else metric
        value = table.value(by)[0]
        overall = outcome.whole().value(by)[0] if by != metric else whole
        said.append(
            f"Where {slice_} ({int(table.count[0]):,} rows), {by.replace('_', ' ')} is {value:.3g}; "
            f"over all rows it is {overall:.3g}."
        )
    return said
