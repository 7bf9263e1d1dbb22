"""Columns as codes: values of a text column, quantile bins of a numeric or a date column, and what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from mlflow_plugkit.errors import mlflow_error

MISSING = "missing"


@dataclass(frozen=True)
class Coded:
    """A column, or a combination of columns, as codes.

    Attributes:
        name: of the column; several are joined by " & ".
        codes: of each row, below `len(texts)`.
        texts: what each code stands for: `female`, `[30, 45)`, `missing`.
        ordered: how many leading codes are neighbouring bins.
        edges: inner edges of those bins; the last bin is closed above.
        ends: smallest and largest value.
        rest: the code of "all other values", or -1.
    """

    name: str
    codes: NDArray[Any]
    texts: tuple[str, ...]
    ordered: int = 0
    edges: tuple[Any, ...] = ()
    rest: int = -1

    @property
    def size(self) -> int:
        """Number of codes."""
        return len(self.texts)


def coded(series: Any, *, bins: int | None, most: int | None, bin_from: int = 20) -> Coded:
    """A column as codes.

    Args:
        series: of any type; of nested values (lists, dictionaries) their text is taken.
        bins: quantile bins for a numeric or date column of more than `bin_from` distinct values; None for a
            code per value.
        most: the most frequent values that get a code of their own, the rest gets one together; None for all.
        bin_from: see `bins`.
    """
    name = str(series.name)
    numbers = as_numbers(series)
    if bins and numbers is not None and _has_more_than(numbers, bin_from):
        return _binned(name, numbers, quantile_edges(numbers, bins), pd.api.types.is_datetime64_any_dtype(series.dtype))
    values = hashable(series)
    codes, uniques = pd.factorize(values, sort=False)
    order = _by_value(uniques)
    rank = np.empty(len(uniques) + 1, np.int64)
    rank[order], rank[-1] = np.arange(len(uniques)), len(uniques)
    texts = [_text(uniques[i]) for i in order]
    codes = rank[codes]
    if (codes == len(uniques)).any():
        texts.append(MISSING)
    rest = -1
    if most and len(texts) > most + 1:
        codes, texts = _most_frequent(codes, texts, most)
        rest = len(texts) - 1
    return Coded(name, _small(codes, len(texts)), tuple(texts), rest=rest)


def combined(parts: Sequence[Coded]) -> Coded:
    """The combinations of several columns that occur."""
    if len(parts) == 1:
        return parts[0]
    codes = np.zeros(len(parts[0].codes), np.int64)
    for part in parts:
        codes = codes * part.size + part.codes
    uniques, inverse = np.unique(codes, return_inverse=True)
    texts = []
    for unique in uniques:
        words: list[str] = []
        for part in reversed(parts):
            unique, code = divmod(int(unique), part.size)
            words.insert(0, part.texts[code])
        texts.append(", ".join(words))
    return Coded(" & ".join(p.name for p in parts), _small(inverse.reshape(-1), len(texts)), tuple(texts))


def as_numbers(series: Any) -> Any | None:
    """A numeric, date or duration column as floats, NaN for what is missing; None for other types."""
    kinds = pd.api.types
    if kinds.is_bool_dtype(series.dtype):
        return None
    if kinds.is_datetime64_any_dtype(series.dtype) or kinds.is_timedelta64_dtype(series.dtype):
        if getattr(series.dtype, "tz", None) is not None:
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        unit = "datetime64[s]" if kinds.is_datetime64_any_dtype(series.dtype) else "timedelta64[s]"
        array = series.to_numpy().astype(unit)
        return np.where(np.isnat(array), np.nan, array.astype(np.int64).astype(float))
    if kinds.is_numeric_dtype(series.dtype) and not kinds.is_complex_dtype(series.dtype):
        return series.to_numpy(dtype=float, na_value=np.nan)
    return None


def hashable(series: Any) -> Any:
    """The column, or its values' text where they are lists, dictionaries or the like."""
    if series.dtype != object:
        return series
    try:
        pd.unique(series)
    except TypeError:
        return series.astype(str).where(series.notna())
    return series


def quantile_edges(numbers: Any, bins: int) -> Any:
    """The distinct inner edges of quantile bins; infinite values count, missing ones do not."""
    present = numbers[~np.isnan(numbers)]
    if not len(present):
        return np.array([])
    if len(present) > 200_000:
        # A sample of quantiles is exact enough for edges, and much faster than sorting everything.
        present = present[:: len(present) // 200_000 + 1]
    edges = np.unique(np.quantile(present, np.arange(1, bins) / bins, method="inverted_cdf"))
    return edges[(edges > present.min())]


def codes_of(numbers: Any, edges: Any) -> Any:
    """The bin of each number: [edge, next edge); `len(edges) + 1` for what is missing."""
    codes = np.searchsorted(edges, numbers, side="right")
    return np.where(np.isnan(numbers), len(edges) + 1, codes)


def date_text(seconds: float) -> str:
    """A date that was turned into seconds, as text again."""
    if not np.isfinite(seconds):
        return str(seconds)
    text = str(np.datetime64(int(seconds), "s")).replace("T", " ")
    return text.removesuffix(" 00:00:00")


def _binned(name: str, numbers: Any, edges: Any, is_date: bool) -> Coded:
    codes = codes_of(numbers, edges)
    shown = [date_text(e) if is_date else f"{e:.4g}" for e in edges]
    if len(set(shown)) < len(shown):
        shown = [repr(float(e)) for e in edges]
    texts = [f"< {shown[0]}"] if shown else ["any value"]
    texts += [f"[{a}, {b})" for a, b in pairwise(shown)]
    texts += [f">= {shown[-1]}"] if shown else []
    ordered = len(texts)
    if np.any(codes == ordered):
        texts.append(MISSING)
    return Coded(name, _small(codes, len(texts)), tuple(texts), ordered, tuple(shown))


def _has_more_than(numbers: Any, distinct: int) -> bool:
    few = np.unique(numbers[:10_000])
    return len(few) > distinct + 1 or len(pd.unique(numbers)) > distinct + 1


def _most_frequent(codes: Any, texts: list[str], most: int) -> tuple[Any, list[str]]:
    counts = np.bincount(codes, minlength=len(texts))
    kept = np.sort(np.argsort(-counts, kind="stable")[:most])
    new = np.full(len(texts), len(kept))
    new[kept] = np.arange(len(kept))
    return new[codes], [texts[i] for i in kept] + ["any other value"]


def _by_value(uniques: Any) -> list[int]:
    values = list(uniques)
    try:
        return sorted(range(len(values)), key=lambda i: values[i])
    except TypeError:
        return sorted(range(len(values)), key=lambda i: (type(values[i]).__name__, str(values[i])))


def _text(value: Any) -> str:
    if isinstance(value, (np.datetime64, pd.Timestamp)):
        return str(pd.Timestamp(value)).removesuffix(" 00:00:00")
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."


def _small(codes: Any, size: int) -> Any:
    return codes.astype(np.uint8 if size <= 256 else np.uint16 if size <= 65_536 else np.int64)


def check_groups(size: int, rows: int, name: str) -> None:
    """Refuse a column that has (nearly) a group for each row."""
    if size > 100_000:
        raise mlflow_error(
            f"The column {name!r} has {size} distinct values in {rows} rows: too many groups to compare. "
            "Bin it, or choose another column."
        )
