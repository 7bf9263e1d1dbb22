"""The HTML report: one file without scripts and without anything from elsewhere, for people who read no code."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

import pandas as pd

from mlflow_validation_evaluator.figures import READABLE, Figure, Section, higher_is_better
from mlflow_validation_evaluator.gates import Verdict

METRIC_WORDS = {
    "accuracy": "share of right predictions",
    "balanced_accuracy": "mean of the recalls of the classes",
    "precision": "share of true ones among the predicted positives",
    "recall": "share of the positives that are found",
    "specificity": "share of the negatives that are left alone",
    "f1": "balance of precision and recall",
    "selection_rate": "share of rows that are predicted positive",
    "false_positive_rate": "share of the negatives that are taken for positives",
    "false_negative_rate": "share of the positives that are missed",
    "roc_auc": "chance that a positive gets a higher probability than a negative",
    "log_loss": "penalty for wrong and confident probabilities",
    "brier": "mean squared error of the probabilities",
    "ece": "mean difference between predicted and observed frequency",
    "mae": "mean size of the error",
    "mse": "mean squared error",
    "rmse": "root of the mean squared error",
    "mean_error": "mean of prediction minus truth",
    "median_absolute_error": "half of the errors are smaller",
    "r2": "share of the labels' variance that is explained",
}
EXPLAINED = {
    "Interval": "The data are a sample, so the true value of a figure is not known exactly. The interval holds it with "
    "the stated confidence.",
    "Slice": "A part of the rows, such as one region or one range of ages.",
    "Worst slices": "Parts of the data in which the model is worse than elsewhere beyond chance. Thousands of parts "
    "are looked at, so that chance alone would show some: the p-values are corrected for that.",
    "Gap, ratio": "The largest value of all groups minus the smallest; the smallest divided by the largest.",
    "PSI": "Population stability index: how far a column's distribution has moved: 0 is not at all, 0.25 a lot.",
}


def render(
    facts: Mapping[str, str],
    headline: Sequence[Figure],
    sections: Sequence[Section],
    verdicts: Sequence[Verdict],
    level: float,
) -> str:
    """The report as a page.

    Args:
        facts: what was evaluated: model, data, run.
        headline: the figures of all rows.
        sections: the checks, in the order of the page.
        verdicts: the gates; without any there is no verdict.
        level: of the intervals shown.
    """
    style = resources.files("mlflow_validation_evaluator").joinpath("report.css").read_text(encoding="utf-8")
    body = [_verdict(verdicts), _facts(facts), _summary(sections), _headline(headline, level)]
    body += [_section(section) for section in sections]
    body += [_explained(headline)]
    title = f"Validation of {facts.get('Model', 'a model')}"
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{_escaped(title)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{style}</style></head><body><main><h1>{_escaped(title)}</h1>{''.join(body)}</main></body></html>\n"
    )


def _verdict(verdicts: Sequence[Verdict]) -> str:
    if not verdicts:
        return '<p class="verdict none">No gates were set: this report states what was measured.</p>'
    broken = sum(not v.passed for v in verdicts)
    word = "passes all" if not broken else "does not pass"
    count = f"{len(verdicts) - broken} of {len(verdicts)} gates hold."
    rows = "".join(_gate(verdict) for verdict in verdicts)
    return (
        f'<div class="verdict {"fail" if broken else "pass"}"><strong>The model {word}{"" if broken else " gates"}.'
        f"</strong> {count}</div><table><thead><tr><th>Gate</th><th class=text>Condition</th><th>Value</th>"
        f"<th class=text>What was compared</th></tr></thead><tbody>{rows}</tbody></table>"
    )


def _gate(verdict: Verdict) -> str:
    kind, mark = ("pass", "✓ holds") if verdict.passed else ("fail", "✗ broken")
    return (
        f'<tr class="{kind}"><td class="mark">{mark}</td>'
        f'<td class="text"><code>{_escaped(verdict.gate.text)}</code></td>'
        f'<td>{_number(verdict.value)}</td><td class="text">{_compared(verdict)}</td></tr>'
    )


def _compared(verdict: Verdict) -> str:
    if verdict.reason:
        return _escaped(verdict.reason)
    if verdict.gate.level is None:
        return "the value"
    end = "lower" if verdict.gate.operator[0] == ">" else "upper"
    return f"{end} end of the {_percent(verdict.gate.level)} interval: {_number(verdict.measured)}"


def _facts(facts: Mapping[str, str]) -> str:
    rows = "".join(f"<dt>{_escaped(k)}</dt><dd>{_escaped(v)}</dd>" for k, v in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _summary(sections: Sequence[Section]) -> str:
    sentences = [s.text[0] for s in sections if s.text]
    if not sentences:
        return ""
    return "<h2>In short</h2><ul>" + "".join(f"<li>{_escaped(s)}</li>" for s in sentences) + "</ul>"


def _headline(headline: Sequence[Figure], level: float) -> str:
    rows = []
    for figure in headline:
        bounds = figure.bounds(level)
        shown = f"{_number(bounds[0])} to {_number(bounds[1])}" if bounds else "&ndash;"
        value = (
            _number(figure.value)
            if figure.is_defined
            else f'<span class="undefined">{_escaped(figure.undefined)}</span>'
        )
        better = {True: "higher", False: "lower", None: ""}[higher_is_better(figure.name)]
        rows.append(
            f"<tr><td>{_words(figure.name)}<small>{METRIC_WORDS.get(figure.name, '')}</small></td><td>{value}</td>"
            f"<td>{shown}</td><td>{better}</td></tr>"
        )
    return (
        f"<h2>All rows</h2><table><thead><tr><th>Figure</th><th>Value</th><th>{_percent(level)} interval</th>"
        f"<th>Better</th></tr></thead><tbody>{''.join(rows)}</tbody></table>"
    )


def _section(section: Section) -> str:
    parts = [f"<h2>{_escaped(section.title)}</h2>"]
    parts += [f"<p>{_escaped(sentence)}</p>" for sentence in section.text]
    for name, plot in section.plots.items():
        data = base64.b64encode(plot).decode("ascii")
        label = f"{section.title}: {name.replace('_', ' ')}"
        parts.append(f'<img alt="{_escaped(label)}" src="data:image/png;base64,{data}">')
    for name, (heading, frame) in section.shown.items():
        parts.append(_table(frame, heading, name))
    parts += [f'<p class="note">{_escaped(note)}</p>' for note in section.notes]
    return "".join(parts)


def _table(frame: pd.DataFrame, heading: str, name: str) -> str:
    shown = frame.head(READABLE)
    ranges = [c for c in shown.columns if f"{c}.lower" in shown.columns]
    columns = [c for c in shown.columns if not str(c).endswith((".lower", ".upper"))]
    texts = [c for c in columns if not pd.api.types.is_numeric_dtype(shown[c].dtype)]
    head = "".join(f"<th{' class=text' if c in texts else ''}>{_words(str(c))}</th>" for c in columns)
    body = "".join(
        "<tr>" + "".join(_cell(row, c, c in ranges) for c in columns) + "</tr>" for row in shown.to_dict("records")
    )
    more = f"The first {READABLE} of {len(frame):,} rows; all" if len(frame) > READABLE else "All"
    note = f'<p class="note">{more} figures are in {name}.csv.</p>' if len(frame) else '<p class="note">None.</p>'
    table = "" if frame.empty else f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h3>{_escaped(heading)}</h3><div class="wide">{table}</div>{note}'


def _cell(row: Mapping[Any, Any], column: Any, has_range: bool) -> str:
    value = row[column]
    if isinstance(value, bool):
        return f'<td class="text">{"yes" if value else "no"}</td>'
    if not isinstance(value, (int, float)):
        return f'<td class="text">{_escaped(value)}</td>'
    shown = f"{value:,}" if isinstance(value, int) else _number(value)
    if has_range and not math.isnan(float(row[f"{column}.lower"])):
        shown += f"<small>{_number(row[f'{column}.lower'])} to {_number(row[f'{column}.upper'])}</small>"
    return f"<td>{shown}</td>"


def _explained(headline: Sequence[Figure]) -> str:
    rows = "".join(f"<dt>{_escaped(k)}</dt><dd>{_escaped(v)}</dd>" for k, v in EXPLAINED.items())
    methods = "; ".join(f"{_words(f.name)}: {_escaped(f.method)}" for f in headline if f.method)
    return f"<h2>How to read this</h2><dl>{rows}<dt>Intervals by</dt><dd>{methods}</dd></dl>"


def _number(value: float) -> str:
    if not math.isfinite(value):
        return "&ndash;"
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value):,}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4f}" if abs(value) >= 0.001 else f"{value:.2e}"


def _percent(level: float) -> str:
    return f"{level * 100:.4g} %"


def _words(name: str) -> str:
    return _escaped(name.replace("_", " "))


def _escaped(text: Any) -> str:
    return html.escape(str(text), quote=True)
