"""Plots as PNG. matplotlib is imported on first use, and without pyplot: no global state, no window."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from mlflow_validation_evaluator.figures import Figure, Section, higher_is_better
from mlflow_validation_evaluator.outcome import Outcome

SMALL = 30
"""Groups with fewer rows are drawn where there are not enough others."""
BLUE, ORANGE, GREY, RED, LIGHT = "#1f5fa8", "#c2570c", "#6b7280", "#b42318", "#e5e7eb"
MOST = 20
"""Bars or points in one plot."""


def draw(sections: Sequence[Section], outcome: Outcome, headline: Sequence[Figure], level: float) -> None:
    """Add each section's plots to it."""
    metric = "mae" if outcome.kind == "regression" else "accuracy"
    for section in sections:
        tables = section.tables
        if "found_slices" in tables and len(tables["found_slices"]):
            section.plots["worst_slices"] = _slices(tables["found_slices"], metric, _value(headline, metric))
        if "slices" in tables:
            section.plots["slices_plot"] = _groups(tables["slices"], metric, _value(headline, metric))
        if "groups" in tables:
            shown = _first_metric(tables["groups"], ("selection_rate", metric))
            if shown:
                section.plots["groups_plot"] = _groups(tables["groups"], shown, _value(headline, shown))
        if "reliability" in tables:
            section.plots["reliability_plot"] = _reliability(tables["reliability"], outcome.kind)
        if "drift" in tables:
            section.plots["drift_plot"] = _drift(tables["drift"])
        if "robustness" in tables and len(tables["robustness"]):
            section.plots["robustness_plot"] = _robustness(tables["robustness"], metric)


def _value(figures: Sequence[Figure], name: str) -> float:
    return next((f.value for f in figures if f.name == name), float("nan"))


def _first_metric(frame: pd.DataFrame, preferred: Sequence[str]) -> str | None:
    there = [c.removesuffix(".lower") for c in frame.columns if c.endswith(".lower")]
    return next((name for name in (*preferred, *there) if name in there), None)


def _slices(frame: pd.DataFrame, metric: str, overall: float) -> bytes:
    part = frame.head(MOST)
    labels = [f"{text}  ({rows:,} rows)" for text, rows in zip(part["slice"], part["rows"], strict=True)]
    return _points(labels, part, metric, overall, ORANGE)


def _groups(frame: pd.DataFrame, metric: str, overall: float) -> bytes:
    part = frame[frame[metric].notna()]
    if len(part) > MOST:
        # Of the larger ones the best and the worst: the rest lies between them.
        large = part[part["rows"] >= SMALL]
        part = large if len(large) >= MOST else part.nlargest(MOST, "rows")
        ordered = part.sort_values(metric)
        part = pd.concat([ordered.head(MOST // 2), ordered.tail(MOST // 2)])
    several = part["column"].nunique() > 1
    labels = [
        f"{f'{column}: ' if several else ''}{group}  ({rows:,})"
        for column, group, rows in zip(part["column"], part["group"], part["rows"], strict=True)
    ]
    return _points(labels, part, metric, overall, BLUE)


def _points(labels: Sequence[str], frame: pd.DataFrame, metric: str, overall: float, colour: str) -> bytes:
    figure, axes = _axes(max(1.9, 0.34 * len(labels) + 1.1))
    at = np.arange(len(labels))[::-1]
    values = frame[metric].to_numpy(float)
    low, high = frame[f"{metric}.lower"].to_numpy(float), frame[f"{metric}.upper"].to_numpy(float)
    errors = np.vstack([values - low, high - values])
    errors = np.where(np.isfinite(errors), errors, 0)
    axes.errorbar(values, at, xerr=np.maximum(errors, 0), fmt="o", color=colour, ecolor=colour, capsize=3, markersize=5)
    if np.isfinite(overall):
        axes.axvline(overall, color=GREY, linestyle="--", linewidth=1)
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points"}
        axes.annotate(f"all rows: {overall:.3g}", (overall, 1), (3, 2), color=GREY, fontsize=8, **place)
    # An interval of a tiny group may be so wide that nothing else could be told apart.
    reach = 2 * max(np.ptp(values), abs(values).max() * 0.1)
    left, right = axes.get_xlim()
    axes.set_xlim(max(left, values.min() - reach), min(right, values.max() + reach))
    axes.set_yticks(at, [_shortened(label) for label in labels])
    axes.set_ylim(-0.7, len(labels) - 0.3)
    better = higher_is_better(metric)
    hint = "" if better is None else f" ({'higher' if better else 'lower'} is better)"
    axes.set_xlabel(f"{_words(metric)}{hint}")
    return _png(figure)


def _reliability(frame: pd.DataFrame, kind: str) -> bytes:
    figure, axes = _axes(4.6, width=5.4)
    axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfect")
    x, y = frame["predicted"].to_numpy(), frame["observed"].to_numpy()
    errors = np.maximum(np.vstack([y - frame["observed.lower"], frame["observed.upper"] - y]), 0)
    axes.errorbar(x, y, yerr=errors, fmt="o-", color=BLUE, capsize=3, markersize=5, linewidth=1.5, label="model")
    share = frame["rows"].to_numpy(float) / frame["rows"].sum()
    axes.bar(x, share, width=0.03, color=LIGHT, edgecolor="#9ca3af", linewidth=0.5, zorder=0, label="share of rows")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(-0.02, 1.05)
    what = "the positive class" if kind == "binary" else "the predicted class"
    axes.set_xlabel(f"predicted probability of {what}")
    axes.set_ylabel("observed frequency")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
    return _png(figure)


def _drift(frame: pd.DataFrame) -> bytes:
    part = frame.head(MOST)
    figure, axes = _axes(max(1.9, 0.3 * len(part) + 1.1))
    at = np.arange(len(part))[::-1]
    colours = [RED if v >= 0.25 else ORANGE if v >= 0.1 else BLUE for v in part["psi"]]
    axes.barh(at, part["psi"], color=colours, height=0.65)
    for limit in (0.1, 0.25):
        if part["psi"].max() > limit * 0.6:
            axes.axvline(limit, color=GREY, linestyle=":", linewidth=1)
    axes.set_yticks(at, [_shortened(str(name)) for name in part["column"]])
    axes.set_ylim(-0.7, len(part) - 0.3)
    axes.set_xlim(left=0)
    axes.set_xlabel("population stability index")
    return _png(figure)


def _robustness(frame: pd.DataFrame, metric: str) -> bytes:
    part = frame.sort_values("drop", ascending=False).head(MOST)
    names = {"noise": "noise in all columns", "missing": "missing values", "permutation": "shuffled: "}
    labels = [
        names[check] + (str(column) if check == "permutation" else "")
        for check, column in zip(part["check"], part["column"], strict=True)
    ]
    figure, axes = _axes(max(1.9, 0.3 * len(part) + 1.1))
    at = np.arange(len(part))[::-1]
    axes.barh(at, part["drop"], color=[BLUE if c == "permutation" else ORANGE for c in part["check"]], height=0.65)
    axes.axvline(0, color=GREY, linewidth=0.8)
    axes.set_yticks(at, [_shortened(label) for label in labels])
    axes.set_ylim(-0.7, len(part) - 0.3)
    axes.set_xlabel(f"{'loss of ' if higher_is_better(metric) else 'increase of '}{_words(metric)}")
    return _png(figure)


def _axes(height: float, width: float = 7.2) -> tuple[Any, Any]:
    from matplotlib.figure import Figure as Canvas

    figure = Canvas(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(axis="x", color=LIGHT, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    axes.xaxis.label.set_fontsize(9)
    axes.yaxis.label.set_fontsize(9)
    return figure, axes


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    held = io.BytesIO()
    FigureCanvasAgg(figure).print_figure(held, format="png", dpi=144, metadata={"Software": None})
    return held.getvalue()


def _shortened(text: str) -> str:
    # A dollar sign would start mathematics, and a column's name may hold one.
    text = text.replace("$", r"\$")
    # The end tells slices of one column apart.
    return text if len(text) <= 60 else f"{text[:28]} ... {text[-28:]}"


def _words(metric: str) -> str:
    return metric.replace("_", " ")
