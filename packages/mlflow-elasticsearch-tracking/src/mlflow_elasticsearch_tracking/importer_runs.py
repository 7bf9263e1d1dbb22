"""The import of runs: attributes, params, tags, latest metrics, full histories, inputs and outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby, islice
from operator import itemgetter
from typing import Any

from mlflow.entities import LifecycleStage, Run, ViewType

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.history_columns import (
    METRICS,
    MOST_SETTLED,
    Point,
    Segment,
    Tail,
    blocks_of,
    chunks_of,
)
from mlflow_elasticsearch_tracking.importer_base import Imports, found
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.indices_models import DATASETS
from mlflow_elasticsearch_tracking.inputs import dataset_source
from mlflow_elasticsearch_tracking.run_documents import json_number, new_run_source, run_document
from mlflow_elasticsearch_tracking.run_links import CONTEXT_TAG
from mlflow_elasticsearch_tracking.run_writer import RunWriter
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import all_pages, paged

_PAGE = 100
#: Points of a run that are in memory at once, and of a page of a server's history.
_POINTS_AT_ONCE, _HISTORY_PAGE = 5_000, 5_000
#: Characters of columns.
_WRITTEN_AT_ONCE = 4_000_000
_READERS, _READ_AHEAD = 4, 40


@dataclass
class _Details:
    """What a search for runs does not tell."""

    deleted: dict[str, int] = field(default_factory=dict)
    models_read: dict[str, list[str]] = field(default_factory=dict)


class RunImports(Imports):
    """Copies the runs of an experiment."""

    def parts(self, experiment_id: str) -> Iterator[Part]:
        """The runs of an experiment."""
        if self.may_have("runs", experiment_id):
            yield Part(
                f"runs of experiment {experiment_id}",
                lambda token: self._read(experiment_id, token),
                self._write,
                self.counter(RUNS, experiment_id),
                lambda run: str(run.info.run_id),
                self._sides,
            )

    def _read(self, experiment_id: str, token: str | None) -> tuple[Sequence[Run], str | None]:
        return paged(self.source.tracking._search_runs([experiment_id], "", ViewType.ALL, _PAGE, [], token))

    def _write(self, runs: Sequence[Run]) -> None:
        if not runs:
            return
        details = self._details_from_tables(runs) if self.source.is_database else self._details_from_server(runs)
        tails = self._write_histories(runs)
        self._write_datasets(runs)
        sources = [_source(run, details, tails.get(run.info.run_id)) for run in runs]
        bulk(self.docs, [Action("index", RUNS, source["run_id"], run_document(source)) for source in sources])
        for source in sources:
            RunWriter.of(self.docs).forget(source["run_id"])

    def _details_from_tables(self, runs: Sequence[Run]) -> _Details:
        details = _Details()
        deleted = [run.info.run_id for run in runs if run.info.lifecycle_stage == LifecycleStage.DELETED]
        if deleted:
            rows = self.source.rows("runs", ["run_uuid", "deleted_time"], {"run_uuid": deleted})
            details.deleted = {run_id: at for run_id, at in rows if at is not None}
        read = {
            "source_type": "RUN_INPUT",
            "source_id": [r.info.run_id for r in runs],
            "destination_type": "MODEL_INPUT",
        }
        for run_id, model_id in self.source.rows("inputs", ["source_id", "destination_id"], read):
            details.models_read.setdefault(run_id, []).append(model_id)
        return details

    def _details_from_server(self, runs: Sequence[Run]) -> _Details:
        details = _Details()
        with ThreadPoolExecutor(_READERS) as readers:
            for run in readers.map(self.source.tracking.get_run, [run.info.run_id for run in runs]):
                models = getattr(run.inputs, "model_inputs", None) or ()
                details.models_read[run.info.run_id] = [one.model_id for one in models]
        return details

    # Histories.

    def _write_histories(self, runs: Sequence[Run]) -> dict[str, Tail]:
        tails: dict[str, Tail] = {}
        waiting: list[Action] = []
        size = 0
        for run_id, points in self._histories(runs):
            for block in _blocks(run_id, points, tails):
                waiting.append(Action("index", METRICS, block["id"], block))
                size += len(block["v"])
                if size > _WRITTEN_AT_ONCE:
                    bulk(self.docs, waiting)
                    waiting, size = [], 0
        if waiting:
            bulk(self.docs, waiting)
        return tails

    def _histories(self, runs: Sequence[Run]) -> Iterator[tuple[str, Iterator[Point]]]:
        """The points of each run that has some, by key and step."""
        with_metrics = [run for run in runs if run.data.metrics]
        if not with_metrics:
            return
        if not self.source.is_database:
            yield from self._histories_of_server(with_metrics)
            return
        columns = ["run_uuid", "key", "step", "timestamp", "value", "is_nan"]
        ids = [run.info.run_id for run in with_metrics]
        rows = self.source.rows("metrics", columns, {"run_uuid": ids}, columns)
        for run_id, own in groupby(rows, itemgetter(0)):
            yield run_id, ((key, step, at, math.nan if nan else value) for _, key, step, at, value, nan in own)

    def _histories_of_server(self, runs: Sequence[Run]) -> Iterator[tuple[str, Iterator[Point]]]:
        """Histories that fit into a page are read side by side, those that do not one after the other."""
        asked = [(run.info.run_id, key) for run in runs for key in sorted(run.data.metrics)]
        with ThreadPoolExecutor(_READERS) as readers:
            for run_id, own in groupby(self._first_pages(asked, readers), lambda page: page[0][0]):
                yield (
                    run_id,
                    (
                        (metric.key, metric.step, metric.timestamp, metric.value)
                        for (_, key), (first, token) in own
                        for metric in self._history(run_id, key, first, token)
                    ),
                )

    def _first_pages(self, asked: Sequence[tuple[str, str]], readers: ThreadPoolExecutor) -> Iterator[Any]:
        for start in range(0, len(asked), _READ_AHEAD):
            some = asked[start : start + _READ_AHEAD]
            yield from zip(some, readers.map(lambda one: self._history_page(one[0], one[1], None), some), strict=True)

    def _history_page(self, run_id: str, key: str, token: str | None) -> tuple[Sequence[Any], str | None]:
        tracking = self.source.tracking
        return paged(tracking.get_metric_history(run_id, key, max_results=_HISTORY_PAGE, page_token=token))

    def _history(self, run_id: str, key: str, first: Sequence[Any], token: str | None) -> Iterator[Any]:
        yield from first
        while token:
            more, token = self._history_page(run_id, key, token)
            yield from more

    # Datasets.

    def _write_datasets(self, runs: Sequence[Run]) -> None:
        """Write the datasets that the runs read; one that is there keeps what it has, and gets further contexts."""
        new: dict[str, Source] = {}
        for run in runs:
            for one in run.inputs.dataset_inputs if run.inputs else ():
                key, source = _dataset(run, one)
                new[key] = _merged(new[key], source) if key in new else source
        if not new:
            return
        there = self.docs.get_many(DATASETS, list(new))
        merged = [_merged(there[key].source, new[key]) if key in there else new[key] for key in new]
        bulk(self.docs, [Action("index", DATASETS, source["key"], source) for source in merged])

    # Comparing.

    def _sides(self, run: Run) -> tuple[Any, Any]:
        run_id = run.info.run_id
        return self._told(self.source.tracking, run_id), found(lambda: self._told(self.store, run_id))

    def _told(self, store: Any, run_id: str) -> dict[str, Any]:
        run = store.get_run(run_id)
        told: dict[str, Any] = plain(run.info) | {"params": run.data.params, "tags": run.data.tags}
        told["metrics"] = plain(sorted(run.data._metric_objs, key=lambda metric: metric.key))
        for name in ("inputs", "outputs"):
            linked = plain(getattr(run, name, None) or {})
            told[name] = {kind: sorted(map(repr, many)) for kind, many in linked.items()}
        for key in run.data.metrics:
            points = all_pages(lambda token, key=key: _history_of(store, run_id, key, token))  # type: ignore[misc]
            told[f"history of {key}"] = [[plain(one.value), one.timestamp, one.step] for one in points]
        return told


def _history_of(store: Any, run_id: str, key: str, token: str | None) -> tuple[Sequence[Any], str | None]:
    return paged(store.get_metric_history(run_id, key, max_results=_HISTORY_PAGE, page_token=token))


def _blocks(run_id: str, points: Iterator[Point], tails: dict[str, Tail]) -> Iterator[Source]:
    """The documents of the history index, as `move` would make them in the end; then the tail that is left.

    A run with few points has them in its tail alone, as one that was logged and has ended.
    """
    few = list(islice(points, MOST_SETTLED + 1))
    if len(few) <= MOST_SETTLED:
        tails[run_id] = Tail.of({}).plus(few)
        return
    number, part = 1, few + list(islice(points, _POINTS_AT_ONCE - len(few)))
    while part:
        yield from chunks_of(run_id, [Segment(number, len(part), blocks_of(part))])
        number, part = number + 1, list(islice(points, _POINTS_AT_ONCE))
    tails[run_id] = Tail(number, [], (), now_ms())


def _source(run: Run, details: _Details, tail: Tail | None) -> Source:
    info, data = run.info, run.data
    run_id = info.run_id
    source = new_run_source(
        run_id, str(info.experiment_id), info.run_name, info.user_id, info.start_time, info.artifact_uri
    )
    source |= {"status": info.status, "lifecycle_stage": info.lifecycle_stage}
    source |= {"p": dict(data.params), "t": dict(data.tags)}
    source["m"] = {m.key: [json_number(m.value), m.timestamp, m.step] for m in data._metric_objs}
    if info.end_time is not None:
        source["end_time"] = info.end_time
    if info.lifecycle_stage == LifecycleStage.DELETED:
        source["deleted_time"] = details.deleted.get(run_id) or now_ms()
    return (tail.into(source) if tail else source) | _links(run, details.models_read.get(run_id, []))


def _links(run: Run, models_read: list[str]) -> Source:
    datasets = [
        [one.dataset.name, one.dataset.digest, {tag.key: tag.value for tag in one.tags}]
        for one in (run.inputs.dataset_inputs if run.inputs else ())
    ]
    made = getattr(getattr(run, "outputs", None), "model_outputs", None) or ()
    links: Source = {"in": {"d": datasets, "m": models_read}} if datasets or models_read else {}
    return links | ({"out": [[one.model_id, one.step] for one in made]} if made else {})


def _dataset(run: Run, given: Any) -> tuple[str, Source]:
    context = {tag.key: tag.value for tag in given.tags}.get(CONTEXT_TAG)
    source = dataset_source(str(run.info.experiment_id), given.dataset, run.info.start_time or 0, context)
    return source["key"], source


def _merged(one: Source, other: Source) -> Source:
    contexts = list(dict.fromkeys([*one["contexts"], *other["contexts"]]))
    return one | {"contexts": contexts, "created": min(one["created"], other["created"])}
