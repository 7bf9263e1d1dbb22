"""Runs as documents: what is stored, what is computed from it for searches, and the entities made of it.

The source of a run has these fields beside its attributes (`run_id`, `status`, ...):

- `p`, `t`: params and tags, text by key; `m`: the latest metrics, `[value, timestamp, step]` by key, where a value
  that JSON lacks is the text "NaN", "Infinity" or "-Infinity".
- `tail`: metric points that are not in the history index yet (see `history_columns`).

Sources are shared between threads: whoever changes one puts new dictionaries in place of the nested ones.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from mlflow.entities import LifecycleStage, Metric, Param, Run, RunData, RunInfo, RunStatus, RunTag, SourceType
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NAME

from mlflow_elasticsearch_tracking.run_links import dataset_tokens, linked_models
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import field_key, key_token, point, sortable_float, token

#: MLflow's own limit of a key's length; what is longer came in unchecked and is kept, not searchable.
_LONGEST_KEY = 250
#: A column orders by the beginning of a text: with its key it must fit into one term.
_LONGEST_COLUMN = 5_000
_INFINITIES = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_field_key = lru_cache(maxsize=65_536)(field_key)


def json_number(value: float) -> float | str:
    """A float as JSON can hold it."""
    if value - value == 0.0:
        return value
    return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"


def number(value: float | str) -> float:
    """The float that `json_number` stood for."""
    return _INFINITIES[value] if isinstance(value, str) else float(value)


def new_run_source(
    run_id: str, experiment_id: str, name: str, user_id: str, start_time: int, artifact_uri: str
) -> Source:
    """The source of a run that starts now, without its tags."""
    return {
        "run_id": run_id,
        "experiment_id": experiment_id,
        "run_name": name,
        "status": RunStatus.to_string(RunStatus.RUNNING),
        "user_id": user_id,
        "start_time": start_time,
        "lifecycle_stage": LifecycleStage.ACTIVE,
        "artifact_uri": artifact_uri,
        "source_type": SourceType.to_string(SourceType.UNKNOWN),
        "p": {},
        "t": {},
        "m": {},
    }


def run_document(source: Source) -> Source:
    """The source with the fields that searches need (`indices.RUNS`)."""
    return {
        **source,
        "experiment_number": int(source["experiment_id"]),
        **_texts("param", source["p"]),
        **_texts("tag", source["t"]),
        **_metrics(source["m"]),
        "dataset_tokens": dataset_tokens(source),
        "model_ids": linked_models(source),
    }


def text_fields(kind: str, entries: Mapping[str, str | None]) -> Source:
    """Columns to sort by (`<kind>s`) and tokens to search (`<kind>_tokens`, bare keys too) of params or tags."""
    known = {key: value for key, value in entries.items() if value is not None and len(key) <= _LONGEST_KEY}
    return {
        f"{kind}s": {_field_key(key): value[:_LONGEST_COLUMN] for key, value in known.items()},
        f"{kind}_tokens": [*map(key_token, known), *(token(key, value) for key, value in known.items())],
    }


class _Remembered:
    """The search fields of the params or tags of the runs that were written last, by identity.

    A log call changes one of the three dictionaries, and the other two need no new computation.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], tuple[Mapping[str, str | None], Source]] = {}

    def __call__(self, kind: str, entries: Mapping[str, str | None]) -> Source:
        known = self._known.get((kind, id(entries)))
        if known is not None and known[0] is entries:
            return known[1]
        fields = text_fields(kind, entries)
        if len(self._known) > 512:
            self._known = {}
        self._known[kind, id(entries)] = (entries, fields)
        return fields


_texts = _Remembered()


def _metrics(latest: Mapping[str, list[Any]]) -> Source:
    columns, nans = {}, {}
    for key, (value, _, _) in latest.items():
        if value == "NaN":
            nans[_field_key(key)] = "1"
        else:
            columns[_field_key(key)] = sortable_float(number(value))
    points = [point(key, number(value)) for key, (value, _, _) in latest.items()]
    return {"metrics": columns, "nan_metrics": nans, "metric_points": points}


def run_info(source: Source) -> RunInfo:
    """The `RunInfo` of a run."""
    return RunInfo(
        run_id=source["run_id"],
        run_name=source.get("run_name") or (source.get("t") or {}).get(MLFLOW_RUN_NAME),
        experiment_id=source["experiment_id"],
        user_id=source["user_id"],
        status=source["status"],
        start_time=source["start_time"],
        end_time=source.get("end_time"),
        lifecycle_stage=source["lifecycle_stage"],
        artifact_uri=source["artifact_uri"],
    )


def run_data(source: Source) -> RunData:
    """The `RunData` of a run."""
    metrics = _metric_entities(source["m"])
    if not _PLAIN_DATA:
        params = [Param(key, value) for key, value in source["p"].items()]
        return RunData(metrics, params, [RunTag(key, value) for key, value in source["t"].items()])
    data = RunData()
    data._metric_objs, data._metrics = metrics, {metric._key: metric._value for metric in metrics}
    data._params, data._tags = dict(source["p"]), dict(source["t"])
    return data


def _metric_entities(latest: Mapping[str, list[Any]]) -> list[Metric]:
    if not _PLAIN_METRIC:
        return [Metric(key, number(value), at, step) for key, (value, at, step) in latest.items()]
    metrics = []
    new = Metric.__new__
    for key, (value, at, step) in latest.items():
        metric = new(Metric)
        metric._key, metric._timestamp, metric._step = key, at, step
        metric._value = value if type(value) is float else number(value)
        metric._model_id = metric._dataset_name = metric._dataset_digest = metric._run_id = None
        metrics.append(metric)
    return metrics


# A page of a thousand runs has twenty thousand params and tags, of which RunData keeps the dictionaries alone, and
# ten thousand metrics, whose constructor checks what was checked when they were logged.
_PLAIN_DATA = vars(RunData()).keys() == {"_metric_objs", "_metrics", "_params", "_tags"}
_PLAIN_METRIC = vars(Metric("", 0.0, 0, 0)) == {
    **dict.fromkeys(("_model_id", "_dataset_name", "_dataset_digest", "_run_id")),
    "_key": "",
    "_value": 0.0,
    "_timestamp": 0,
    "_step": 0,
}


def run_entity(source: Source, inputs: Any = None, outputs: Any = None) -> Run:
    """The `Run`; inputs and outputs are the caller's (`RunInputs`, `RunOutputs`)."""
    return Run(run_info(source), run_data(source), inputs, outputs)


def check_active(source: Source) -> None:
    """Refuse a write to a deleted run.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, as MLflow's own store has it.
    """
    stage = source["lifecycle_stage"]
    if stage != LifecycleStage.ACTIVE:
        raise mlflow_error(
            f"The run {source['run_id']} must be in the 'active' state. Current state is {stage}. Restore it first."
        )


def no_run(run_id: str) -> Exception:
    """The error for a run that is not there."""
    return mlflow_error(f"Run with id={run_id} not found.", "RESOURCE_DOES_NOT_EXIST")
