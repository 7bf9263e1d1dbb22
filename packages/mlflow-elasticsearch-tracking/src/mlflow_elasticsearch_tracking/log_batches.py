"""What a log call changes in a run's document: metrics, params and tags, after MLflow's own checks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from mlflow.entities import Metric, Param, RunStatus, RunTag
from mlflow.utils import validation
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from mlflow_elasticsearch_tracking.history_columns import NEW_POINTS, Point
from mlflow_elasticsearch_tracking.run_documents import json_number
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source

_LOWEST, _HIGHEST = -(2**63), 2**63 - 1
#: Keys that passed MLflow's check in this process.
_checked_keys: set[str] = set()
_MOST_CHECKED_KEYS = 100_000


def points_of(metrics: Sequence[Metric], *, single: bool = False) -> list[Point]:
    """Metrics as points, after MLflow's own checks.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a bad key, value, timestamp or step, or one that does not fit
            into 64 bits.
    """
    points = []
    for position, metric in enumerate(metrics):
        key, value, timestamp, step = metric.key, metric.value, metric.timestamp, metric.step
        plain = key in _checked_keys and type(value) is float and type(timestamp) is int and type(step) is int
        if not (plain and 0 <= timestamp <= _HIGHEST and _LOWEST <= step <= _HIGHEST):
            value, timestamp, step = _checked(metric, "" if single else f"metrics[{position}]")
        points.append((key, step, timestamp, value))
    return points


def _checked(metric: Metric, path: str) -> tuple[float, int, int]:
    validation._validate_metric(metric.key, metric.value, metric.timestamp, metric.step, path=path)
    try:
        value, timestamp, step = float(metric.value), int(metric.timestamp), int(metric.step)
    except (OverflowError, TypeError, ValueError):
        value, timestamp, step = 0.0, _HIGHEST + 1, 0
    if timestamp > _HIGHEST or not _LOWEST <= step <= _HIGHEST:
        raise mlflow_error(
            f"Metric {metric.key!r} has a value, timestamp or step that does not fit into 64 bits: "
            f"{metric.value!r}, {metric.timestamp!r}, {metric.step!r}."
        )
    if len(_checked_keys) >= _MOST_CHECKED_KEYS:
        _checked_keys.clear()
    _checked_keys.add(metric.key)
    return value, timestamp, step


def with_points(source: Source, points: Sequence[Point]) -> Source:
    """The run with further points; the latest of a key has the highest (step, timestamp, value), where NaN counts 0."""
    latest = dict(source["m"])
    highest: dict[str, tuple[int, int, float]] = {}
    for key, step, timestamp, value in points:
        rank = (step, timestamp, 0.0 if value != value else value)
        known = highest.get(key) or _rank(latest.get(key))
        if known is None or rank > known:
            highest[key] = rank
            latest[key] = [json_number(value), timestamp, step]
        elif key not in highest:
            highest[key] = known
    return {**source, "m": latest, NEW_POINTS: [*source.get(NEW_POINTS, ()), *points]}


def _rank(entry: list[Any] | None) -> tuple[int, int, float] | None:
    if entry is None:
        return None
    value, timestamp, step = entry
    return step, timestamp, 0.0 if value == "NaN" else float(value)


def with_params(source: Source, params: Iterable[Param], *, single: bool = False) -> Source:
    """The run with further params.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a param that the run has with another value; `BAD_REQUEST`
            for one without a value.
    """
    values: list[tuple[str, Any]] = [(param.key, param.value) for param in params]
    without = next((key for key, value in values if value is None), None)
    if without is not None:
        raise mlflow_error(f"The param {without!r} has no value.", "BAD_REQUEST")
    before = source["p"]
    new = {param.key: param.value for param in params if param.key not in before}
    changed = [
        {"key": param.key, "old_value": before[param.key], "new_value": param.value}
        for param in params
        if before.get(param.key, param.value) != param.value
    ]
    if changed:
        run_id = source["run_id"]
        one = changed[0]
        what = (
            f"Param with key='{one['key']}' was already logged with value='{one['old_value']}' for run ID='{run_id}'. "
            f"Attempted logging new value '{one['new_value']}'."
            if single
            else f"Params were already logged='{changed}' for run ID='{run_id}'."
        )
        raise mlflow_error(f"Changing param values is not allowed. {what}")
    return {**source, "p": {**before, **new}} if new else source


def with_tags(source: Source, tags: Iterable[RunTag]) -> Source:
    """The run with tags set; the tag that names a run renames it, unless it is empty."""
    for tag in tags:
        if tag.key != MLFLOW_RUN_NAME:
            source = {**source, "t": {**source["t"], tag.key: tag.value}}
        elif tag.value:
            source = renamed(source, tag.value)
    return source


def renamed(source: Source, name: str) -> Source:
    """The run with another name, which is also a tag."""
    return {**source, "run_name": name, "t": {**source["t"], MLFLOW_RUN_NAME: name}}


def with_info(source: Source, status: int | None, end_time: int | None, name: str | None) -> Source:
    """The run with another status, end time and name; None, and an empty name, leave each as it is."""
    if status is not None:
        source = {**source, "status": RunStatus.to_string(status)}
    if end_time is not None:
        source = {**source, "end_time": end_time}
    return renamed(source, name) if name else source
