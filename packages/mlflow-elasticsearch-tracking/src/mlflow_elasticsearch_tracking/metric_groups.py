"""Figures by group: what `query_trace_metrics` counts, adds up and sorts, whatever Elasticsearch has done of it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Any

TIME_BUCKET = "time_bucket"
GroupKey = tuple[Any, ...]


class Group:
    """The values of one group, as far as they are known: summed up, or one by one for percentiles."""

    def __init__(self) -> None:
        self.count = 0
        self.sum: float = 0
        self.least: float = math.inf
        self.most: float = -math.inf
        self.values: Counter[float] = Counter()

    def add(self, value: float, times: int = 1) -> None:
        """Add a value, so many times."""
        self.values[value] += times
        self.add_summary(times, value * times, value, value)

    def add_summary(self, count: int, total: float, least: float, most: float) -> None:
        """Add what is known of several values."""
        self.count += count
        self.sum += total
        self.least, self.most = min(self.least, least), max(self.most, most)

    def aggregated(self, kind: str, percentile: float | None) -> float | None:
        """One figure; None where there is no value."""
        if kind == "COUNT":
            return self.count
        if not self.count:
            return None
        if kind == "PERCENTILE":
            return self._percentile(percentile or 0.0)
        return {"SUM": self.sum, "AVG": self.sum / self.count, "MIN": self.least, "MAX": self.most}[kind]

    def _percentile(self, percentile: float) -> float:
        """Between the two values next to the rank, in proportion, as PERCENTILE_CONT has it in SQL."""
        rank = percentile / 100 * (self.count - 1)
        ordered = sorted(self.values.items())
        low, high = _at(ordered, math.floor(rank)), _at(ordered, math.ceil(rank))
        return low + (high - low) * (rank - math.floor(rank))


def _at(ordered: Sequence[tuple[float, int]], position: int) -> float:
    for value, times in ordered:
        if position < times:
            return float(value)
        position -= times
    return float(ordered[-1][0])


def data_points(
    groups: dict[GroupKey, Group], names: Sequence[str], metric_name: str, aggregations: Sequence[Any], most: int
) -> list[Any]:
    """MLflow's data points in the order of their groups, at most so many.

    Args:
        groups: by the values of the dimensions.
        names: the dimensions, the time bucket (milliseconds) first where there is one.
        metric_name: what is counted.
        aggregations: MLflow's `MetricAggregation`s.
        most: how many points to return.
    """
    from mlflow.entities.trace_metrics import MetricDataPoint

    points = []
    for key in sorted(groups, key=lambda key: tuple(part.encode() if isinstance(part, str) else part for part in key)):
        figures = {str(a): groups[key].aggregated(a.aggregation_type.value, a.percentile_value) for a in aggregations}
        values = {name: value for name, value in figures.items() if value is not None}
        dimensions = dict(zip(names, key, strict=True))
        if TIME_BUCKET in dimensions:
            moment = datetime.fromtimestamp(dimensions[TIME_BUCKET] / 1000, tz=timezone.utc)
            dimensions[TIME_BUCKET] = moment.isoformat()
        if values:
            points.append(MetricDataPoint(dimensions=dimensions, metric_name=metric_name, values=values))
    return points[:most]
