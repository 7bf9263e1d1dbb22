"""The section on drift: how the data, the labels and the predictions differ from a reference."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pandas as pd
from scipy import special, stats

from mlflow_plugkit.errors import mlflow_error
from mlflow_validation_evaluator.columns import MISSING, as_numbers, codes_of, hashable, quantile_edges
from mlflow_validation_evaluator.figures import Figure, Section
from mlflow_validation_evaluator.outcome import Outcome
from mlflow_validation_evaluator.reading import require_columns
from mlflow_validation_evaluator.search import adjusted_p_values
from mlflow_validation_evaluator.settings import Config, Drift

FLOOR = 1e-4
"""Smallest share of a bin in the PSI, where an empty bin would make it infinite."""


def drift(outcome: Outcome, config: Config, targets: str | None = None) -> Section:
    """The section on drift against the reference.

    Args:
        outcome: the data to check.
        config: with the key `drift`.
        targets: the name of the labels, which are compared if the reference has them.
    """
    wanted = config.drift
    assert wanted
    reference = read_reference(wanted.reference)
    section = Section("Drift")
    pairs = dict(_pairs(outcome, wanted, reference, section.notes))
    if targets is not None and targets in reference.columns:
        truth = outcome.truth if outcome.kind == "regression" else np.array(outcome.classes, object)[outcome.truth]
        pairs["label"] = (reference[targets], pd.Series(truth).infer_objects())
    if outcome.predict is not None and not set(outcome.takes) - set(reference.columns):
        before = outcome.predict(reference[list(outcome.takes)])
        pairs["prediction"] = (pd.Series(before.labels), pd.Series(outcome.guess))
        if before.scores is not None and before.scores.ndim == 1 and outcome.scores is not None:
            pairs["probability"] = (pd.Series(before.scores), pd.Series(outcome.scores))
    rows = [{"column": name} | compare(*pair, wanted.bins, wanted.max_values) for name, pair in pairs.items()]
    table = pd.DataFrame(rows)
    tested = table["p_value"].notna()
    table["adjusted_p_value"] = np.nan
    table.loc[tested, "adjusted_p_value"] = adjusted_p_values(table.loc[tested, "p_value"].to_numpy(), dependent=False)
    table["drifted"] = table["adjusted_p_value"] < wanted.alpha
    table = table.sort_values("psi", ascending=False, kind="stable").reset_index(drop=True)
    section.figures = _figures(table)
    section.add_table("drift", table, "Columns, the most changed first")
    section.text = _sentences(table)
    return section


def read_reference(given: Any, what: str = "reference") -> pd.DataFrame:
    """The reference data set, or the other one, which `what` calls by its name.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` if it is neither a DataFrame nor a readable Parquet or CSV file,
            or has no rows.
    """
    frame = given
    if isinstance(given, (str, os.PathLike)):
        path = os.path.expanduser(os.fspath(given))
        read = pd.read_parquet if path.endswith((".parquet", ".pq")) else pd.read_csv
        try:
            frame = read(path)
        except (OSError, ValueError) as exc:
            raise mlflow_error(f"The {what} {given!r} cannot be read as a Parquet or CSV file: {exc}.") from exc
    if not isinstance(frame, pd.DataFrame):
        raise mlflow_error(f"The {what} is a {type(frame).__name__}; give a pandas DataFrame or the path of a file.")
    if frame.empty:
        raise mlflow_error(f"The {what} has no rows.")
    return frame


def compare(reference: Any, current: Any, bins: int = 10, max_values: int = 50) -> dict[str, Any]:
    """Compare two samples of one column.

    Numbers and dates are compared in quantile bins of the reference (PSI, Jensen-Shannon distance to the base 2) and by
    the two-sample Kolmogorov-Smirnov test; other columns by value, and by the chi-square test. What is missing is a
    bin of its own.

    Returns:
        `kind`, `psi`, `js`, `ks` or `chi_square` (NaN for the other kind), `p_value`, and the shares that are missing.
    """
    before, after = as_numbers(reference), as_numbers(current)
    numeric = before is not None and after is not None
    found: dict[str, Any] = {"kind": "number" if numeric else "category", "ks": np.nan, "chi_square": np.nan}
    if before is not None and after is not None:
        edges = quantile_edges(before, bins)
        if len(np.unique(before[:10_000])) <= bins:
            edges = np.unique(before[~np.isnan(before)])[1:]
        size = len(edges) + 2
        shares = [np.bincount(codes_of(v, edges), minlength=size) for v in (before, after)]
        found["ks"], found["p_value"] = kolmogorov_smirnov(before, after)
    else:
        shares = list(category_counts(reference, current, max_values))
        found["chi_square"], found["p_value"] = chi_square(*shares)
    found["psi"], found["js"] = psi_of(*shares), jensen_shannon(*shares)
    found["missing_before"], found["missing"] = float(reference.isna().mean()), float(current.isna().mean())
    order = ("kind", "psi", "js", "ks", "chi_square", "p_value", "missing_before", "missing")
    return {key: found[key] for key in order}


def psi_of(before: Any, after: Any) -> float:
    """The population stability index of two arrays of counts; bins that are empty in both do not count."""
    filled = (before + after) > 0
    p = np.maximum(before[filled] / before.sum(), FLOOR)
    q = np.maximum(after[filled] / after.sum(), FLOOR)
    return float(np.sum((q - p) * np.log(q / p)))


def jensen_shannon(before: Any, after: Any) -> float:
    """The Jensen-Shannon distance of two arrays of counts, to the base 2: 0 for equal shares, 1 for disjoint ones."""
    p, q = before / before.sum(), after / after.sum()
    m = (p + q) / 2
    divergence = (special.rel_entr(p, m).sum() + special.rel_entr(q, m).sum()) / 2 / np.log(2)
    return float(np.sqrt(max(divergence, 0.0)))


def kolmogorov_smirnov(before: Any, after: Any) -> tuple[float, float]:
    """Statistic and asymptotic p-value of the two-sample test; what is missing is left out."""
    x, y = np.sort(before[~np.isnan(before)]), np.sort(after[~np.isnan(after)])
    if not len(x) or not len(y):
        return float("nan"), float("nan")
    points = np.concatenate([x, y])
    gap = np.searchsorted(x, points, side="right") / len(x) - np.searchsorted(y, points, side="right") / len(y)
    statistic = float(np.max(np.abs(gap)))
    n = len(x) * len(y) / (len(x) + len(y))
    return statistic, float(np.clip(stats.kstwo.sf(statistic, np.round(n)), 0, 1))


def chi_square(before: Any, after: Any) -> tuple[float, float]:
    """Pearson's statistic and p-value of the table of two arrays of counts; NaN for a single value."""
    table = np.stack([before, after]).astype(float)
    table = table[:, table.sum(axis=0) > 0]
    if table.shape[1] < 2:
        return float("nan"), float("nan")
    expected = table.sum(axis=1, keepdims=True) * table.sum(axis=0, keepdims=True) / table.sum()
    statistic = float(np.sum((table - expected) ** 2 / expected))
    return statistic, float(special.chdtrc(table.shape[1] - 1, statistic))


def category_counts(reference: Any, current: Any, max_values: int) -> tuple[Any, Any]:
    """Counts of each value in both; of many values, the most frequent ones of the reference and the rest together."""
    before, after = (_counts_by_text(s) for s in (reference, current))
    kept = before.index[:max_values]
    counts = [s.reindex(kept, fill_value=0).to_numpy() for s in (before, after)]
    rest = [s.sum() - c.sum() for s, c in zip((before, after), counts, strict=True)]
    new = after.index.difference(before.index)
    # Values that the reference lacks are a bin of their own: mixed into the rest they would be lost.
    unknown = int(after.reindex(new).sum()) if len(new) else 0
    return np.append(counts[0], [rest[0], 0]), np.append(counts[1], [rest[1] - unknown, unknown])


def _counts_by_text(series: Any) -> pd.Series:
    """How often each value occurs, the most frequent first; values are compared by their text, 1 and True are equal."""
    codes, uniques = pd.factorize(hashable(series), use_na_sentinel=True)
    counts = np.bincount(codes + 1, minlength=len(uniques) + 1)
    texts = [MISSING] + [str(int(v)) if isinstance(v, (bool, np.bool_)) else str(v) for v in uniques]
    found = pd.Series(counts, index=texts).groupby(level=0).sum()
    return found[found > 0].sort_values(ascending=False, kind="stable")


def _pairs(outcome: Outcome, wanted: Drift, reference: Any, notes: list[str]) -> list[tuple[str, tuple[Any, Any]]]:
    if wanted.columns:
        require_columns(outcome.features, wanted.columns, "key 'drift.columns'")
        require_columns(reference, wanted.columns, "key 'drift.columns', for the reference,")
    names = wanted.columns or [c for c in outcome.features.columns if c in reference.columns]
    if not len(names):
        raise mlflow_error("The reference and the data have no column in common.")
    lacking = [str(c) for c in outcome.features.columns if c not in reference.columns]
    if lacking and not wanted.columns:
        notes.append(f"Not in the reference, and so not compared: {', '.join(lacking[:20])}.")
    return [(str(name), (reference[name], outcome.features[name])) for name in names]


def _figures(table: pd.DataFrame) -> list[Figure]:
    top = table.iloc[0]
    found = [
        Figure("psi.max", float(top["psi"]), about=str(top["column"])),
        Figure("psi.mean", float(table["psi"].mean())),
        Figure("js.max", float(table["js"].max()), about=str(table.loc[table["js"].idxmax(), "column"])),
        Figure("drift.columns", float(table["drifted"].sum())),
        Figure("drift.share", float(table["drifted"].mean())),
    ]
    if table["ks"].notna().any():
        at = table["ks"].idxmax()
        found.append(Figure("ks.max", float(table.loc[at, "ks"]), about=str(table.loc[at, "column"])))
    for row in table.itertuples():
        found.append(Figure(f"psi.{row.column}", float(row.psi), detail=True))
    return found


def _sentences(table: pd.DataFrame) -> list[str]:
    top, count = table.iloc[0], int(table["drifted"].sum())
    size = "hardly" if top["psi"] < 0.1 else "somewhat" if top["psi"] < 0.25 else "strongly"
    changed = f"The most changed column is {top['column']}, which differs {size} (PSI {top['psi']:.3g}; "
    return [
        f"{count} of {len(table)} columns differ from the reference beyond chance.",
        changed + "below 0.1 is commonly taken as stable, above 0.25 as a large change).",
    ]
