"""The documents of logged models: what is stored, what is derived from it, and the entities made of it.

    t: {tag key: value}   p: {param key: value}
    m: [[metric key, value, timestamp, step, run id, dataset name, dataset digest]], in the order they were logged
    blocks: [[block id, points, first timestamp, last timestamp, least step, largest step]], older points
    s: [[metric key, dataset name, dataset digest, latest point, least value, largest value]], over all points

A value that JSON has no number for is "NaN", "Infinity" or "-Infinity". SQL stores keep a NaN of a model as 0.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from mlflow_elasticsearch_tracking.run_documents import number
from mlflow_plugkit_elasticsearch.encode import SEPARATOR, field_key, point, sortable_float, token

if TYPE_CHECKING:
    from mlflow.entities import LoggedModel, Metric

Source = dict[str, Any]


class Point(NamedTuple):
    """One value of a metric of a logged model."""

    key: str
    value: float | str
    timestamp: int
    step: int
    run_id: str
    dataset: str | None
    digest: str | None

    @property
    def place(self) -> tuple[str, str, int, int]:
        """What only one point of a model may have, as MLflow's SQL store rules."""
        return self.run_id, self.key, self.timestamp, self.step


def model_document(source: Source) -> Source:
    """The document of a logged model: its source and the fields that are searched and sorted by."""
    points, summaries = [Point(*row) for row in source.get("m", ())], source.get("s", ())
    return source | {
        "experiment_number": int(source["experiment_id"]),
        "tag_tokens": [token(key, value) for key, value in source["t"].items()],
        "param_tokens": [token(key, value) for key, value in source["p"].items()],
        "metric_datasets": _datasets(summaries),
        "metric_runs": sorted({*source.get("runs", ()), *(point.run_id for point in points)}),
        **_latest(summaries),
        **metric_points([(p.key, p.value, p.dataset, p.digest) for p in points] + _extremes(summaries)),
    }


def metric_points(values: Iterable[tuple[str, float | str, str | None, str | None]]) -> dict[str, list[str]]:
    """What filters search for: each value as such, and as a value on its dataset."""
    plain: dict[str, None] = {}
    on_datasets: dict[str, None] = {}
    for key, value, dataset, digest in values:
        plain[point(key, number(value))] = None
        if dataset is not None:
            for scope in ((dataset, None), (dataset, digest)):
                on_datasets[point(scoped(key, *scope), number(value))] = None
    return {"metric_points": list(plain), "dataset_metric_points": list(on_datasets)}


def scoped(key: str, dataset: str | None, digest: str | None) -> str:
    """A metric's key with the dataset, of any digest if it is None, that the metric was logged on."""
    return f"{key}{SEPARATOR}{_digest(dataset, digest)}"


def dataset_token(dataset: str, digest: str | None) -> str:
    """A dataset, of any digest if it is None, in `metric_datasets`."""
    return token(dataset, digest or "")


def latest_key(key: str, dataset: str | None, digest: str | None) -> str:
    """The key in `latest` to order by: of a metric's latest value, on a dataset where one is given."""
    return field_key(key) if dataset is digest is None else f"{field_key(key)}#{_digest(dataset, digest)}"


def summarized(summaries: Sequence[Sequence[Any]], points: Iterable[Point]) -> list[list[Any]]:
    """The summaries with more points taken in. To take in a point twice changes nothing."""
    by_key = {(row[0], row[1], row[2]): list(row) for row in summaries}
    for one in points:
        latest = [one.value, one.timestamp, one.step, one.run_id]
        row = by_key.setdefault((one.key, one.dataset, one.digest), [*_group(one), latest, None, None])
        row[3] = min(row[3], latest, key=_newest_first)
        value = number(one.value)
        if not math.isnan(value):
            row[4] = one.value if row[4] is None or value < number(row[4]) else row[4]
            row[5] = one.value if row[5] is None or value > number(row[5]) else row[5]
    return list(by_key.values())


def logged_model(source: Source, metrics: list[Metric] | None) -> LoggedModel:
    """The entity."""
    from mlflow.entities import LoggedModel, LoggedModelStatus

    return LoggedModel(
        experiment_id=source["experiment_id"],
        model_id=source["model_id"],
        name=source["name"],
        artifact_location=source["artifact_location"],
        creation_timestamp=source["creation_timestamp_ms"],
        last_updated_timestamp=source["last_updated_timestamp_ms"],
        model_type=source["model_type"],
        source_run_id=source["source_run_id"],
        status=LoggedModelStatus.from_int(int(source["status"])),
        status_message=source["status_message"],
        tags=source["t"],
        params=source["p"],
        metrics=metrics,
    )


def metrics_of(model_id: str, rows: Iterable[Sequence[Any]]) -> list[Metric] | None:
    """The entities of the points; None for none."""
    from mlflow.entities import Metric

    return [
        Metric(key, number(value), timestamp, step, model_id, dataset, digest, run_id)
        for key, value, timestamp, step, run_id, dataset, digest in rows
    ] or None


def _group(point: Point) -> tuple[str, str | None, str | None]:
    return point.key, point.dataset, point.digest


def _newest_first(latest: Sequence[Any]) -> tuple[int, int, str]:
    return -latest[1], -latest[2], latest[3]


def _extremes(summaries: Iterable[Sequence[Any]]) -> list[tuple[str, float | str, str | None, str | None]]:
    """The least and the largest values: they answer every comparison but equality."""
    return [
        (key, value, dataset, digest)
        for key, dataset, digest, latest, least, largest in summaries
        for value in (least, largest, latest[0])
        if value is not None
    ]


def _datasets(summaries: Iterable[Sequence[Any]]) -> list[str]:
    named = {(row[1], row[2]) for row in summaries if row[1] is not None}
    return sorted({dataset_token(*scope) for name, digest in named for scope in ((name, None), (name, digest))})


def _latest(summaries: Iterable[Sequence[Any]]) -> dict[str, dict[str, str]]:
    """The latest value of each metric to order by: over all datasets, and on each by name, digest and both."""
    newest: dict[str, Sequence[Any]] = {}
    for key, dataset, digest, latest, _, _ in summaries:
        scopes = [(None, None)]
        if dataset is not None:
            scopes += [(dataset, None), (None, digest), (dataset, digest)]
        for scope in scopes:
            name = latest_key(key, *scope)
            newest[name] = min(newest.get(name, latest), latest, key=_newest_first)
    values = {name: number(latest[0]) for name, latest in newest.items()}
    return {
        "latest": {name: sortable_float(value) for name, value in values.items() if not math.isnan(value)},
        "latest_nans": {name: "1" for name, value in values.items() if math.isnan(value)},
    }


@lru_cache(maxsize=4096)
def _digest(dataset: str | None, digest: str | None) -> str:
    return hashlib.sha256(json.dumps([dataset, digest]).encode()).hexdigest()[:20]


def all_rows(source: Mapping[str, Any], blocks: Mapping[str, Sequence[Sequence[Any]]]) -> list[Sequence[Any]]:
    """The points of a model in the order they were logged, its blocks given by their ids."""
    older = [row for block in source.get("blocks", ()) for row in blocks.get(block[0], ())]
    return [*older, *source.get("m", ())]
