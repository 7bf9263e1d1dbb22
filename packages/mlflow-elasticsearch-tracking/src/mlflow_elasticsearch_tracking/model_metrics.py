"""Metrics of logged models: the last ones in the model's document, older ones in blocks that are read by id."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import StoreBase
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS, MODEL_METRICS
from mlflow_elasticsearch_tracking.model_documents import (
    Point,
    Source,
    all_rows,
    metric_points,
    metrics_of,
    model_document,
    summarized,
)
from mlflow_elasticsearch_tracking.run_documents import json_number
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_elasticsearch.queries import term

if TYPE_CHECKING:
    from mlflow.entities import Metric

#: A model's document holds so many points at most; then they become a block.
MOST_POINTS = 512


class ModelMetrics(StoreBase):
    """Log and read metrics of logged models."""

    def _log_model_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """Log the metrics of a run that have a `model_id`; a point that is there already changes nothing.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such model; `BAD_REQUEST` for another value at the
                timestamp and step of a point; `INVALID_PARAMETER_VALUE` for what MLflow takes for no metric.
        """
        from mlflow.utils.validation import _validate_metric

        points: dict[str, list[Point]] = {}
        for position, metric in enumerate(metrics):
            if metric.model_id is not None:
                path = "" if len(metrics) == 1 else f"metrics[{position}]"
                _validate_metric(metric.key, metric.value, metric.timestamp, metric.step, path=path)
                points.setdefault(metric.model_id, []).append(_point(run_id, metric))
        for model_id, some in points.items():
            self._add_points(model_id, some)

    def _add_points(self, model_id: str, points: Sequence[Point]) -> None:
        def change(source: Source) -> Source | None:
            new = self._new_points(source, points)
            if not new:
                return None
            rows = [*source.get("m", ()), *map(list, new)]
            return model_document(source | {"m": rows, "s": summarized(source.get("s", ()), new)})

        document = self.docs.update(LOGGED_MODELS, model_id, change, lambda: no_model(model_id))
        if len(document.source.get("m", ())) > MOST_POINTS:
            self._move_to_block(model_id)

    def _new_points(self, source: Source, points: Sequence[Point]) -> list[Point]:
        known = {point.place: point for point in map(_of_row, self._rows_near(source, points))}
        new = []
        for point in points:
            there = known.setdefault(point.place, point)
            if there is point:
                new.append(point)
            elif there != point:
                raise mlflow_error(
                    f"Model {source['model_id']} has another value of metric {point.key!r} at step {point.step} and "
                    f"timestamp {point.timestamp} already. Log it with another step or timestamp.",
                    "BAD_REQUEST",
                )
        return new

    def _rows_near(self, source: Source, points: Sequence[Point]) -> list[Sequence[Any]]:
        """The points of a model, without those blocks in which none of some other points can be."""
        near = [
            block[0]
            for block in source.get("blocks", ())
            if any(block[2] <= p.timestamp <= block[3] and block[4] <= p.step <= block[5] for p in points)
        ]
        return all_rows(source, self._read_blocks(near))

    def _move_to_block(self, model_id: str) -> None:
        """Write the points of a model's document to a block, then let the document name the block instead."""
        block_id = f"{model_id}-{secrets.token_hex(8)}"

        def change(source: Source) -> Source | None:
            points = [_of_row(row) for row in source.get("m", ())]
            if len(points) <= MOST_POINTS:
                return None
            self.docs.put(MODEL_METRICS, block_id, _block_document(model_id, block_id, points))
            times, steps = [point.timestamp for point in points], [point.step for point in points]
            block = [block_id, len(points), min(times), max(times), min(steps), max(steps)]
            runs = sorted({*source.get("runs", ()), *(point.run_id for point in points)})
            blocks = [*source.get("blocks", ()), block]
            return model_document(source | {"m": [], "blocks": blocks, "runs": runs})

        document = self.docs.update(LOGGED_MODELS, model_id, change, lambda: no_model(model_id))
        if block_id not in {block[0] for block in document.source.get("blocks", ())}:
            self.docs.delete(MODEL_METRICS, block_id)

    def _read_blocks(self, block_ids: Sequence[str]) -> dict[str, list[list[Any]]]:
        found = self.docs.get_many(MODEL_METRICS, block_ids) if block_ids else {}
        return {block_id: document.source["m"] for block_id, document in found.items()}

    def _metrics_of_models(self, sources: Sequence[Source]) -> list[list[Metric] | None]:
        """All metrics of each model, in the order they were logged, in one request at most; None for none."""
        blocks = self._read_blocks([block[0] for source in sources for block in source.get("blocks", ())])
        return [metrics_of(source["model_id"], all_rows(source, blocks)) for source in sources]

    def _forget_run_of_models(self, run_id: str) -> None:
        """Drop the metrics that a run logged for models: for a run that is deleted for good."""
        self.docs.refresh(LOGGED_MODELS, always=True)
        for hit in list(self.docs.scan(LOGGED_MODELS, term("metric_runs", run_id), "model_id", source=False)):
            self._forget_run_of_model(hit.id, run_id)

    def _forget_run_of_model(self, model_id: str, run_id: str) -> None:
        gone: list[str] = []

        def change(source: Source) -> Source:
            blocks = [block[0] for block in source.get("blocks", ())]
            points = [p for p in map(_of_row, all_rows(source, self._read_blocks(blocks))) if p.run_id != run_id]
            gone[:] = blocks
            rows = [list(point) for point in points]
            return model_document(source | {"m": rows, "s": summarized((), points), "blocks": [], "runs": []})

        document = self.docs.update(LOGGED_MODELS, model_id, change, lambda: no_model(model_id))
        bulk(self.docs, [Action("delete", MODEL_METRICS, block_id) for block_id in gone])
        if len(document.source["m"]) > MOST_POINTS:
            self._move_to_block(model_id)


def no_model(model_id: str) -> Exception:
    """The error for a logged model that is not there."""
    return mlflow_error(f"Logged model with ID '{model_id}' not found.", "RESOURCE_DOES_NOT_EXIST")


def _point(run_id: str, metric: Metric) -> Point:
    try:
        value = json_number(float(metric.value))
    except OverflowError:
        raise mlflow_error(f"The value of metric {metric.key!r} is too large for a float.") from None
    times = int(metric.timestamp), int(metric.step)
    return Point(metric.key, value, *times, run_id, metric.dataset_name, metric.dataset_digest)


def _of_row(row: Sequence[Any]) -> Point:
    return Point(*row)


def _block_document(model_id: str, block_id: str, points: Iterable[Point]) -> Source:
    return block_document({"block_id": block_id, "model_id": model_id, "m": [list(p) for p in points]})


def block_document(source: Source) -> Source:
    """The document of a block: the source and what is derived from it for searches."""
    points = [_of_row(row) for row in source["m"]]
    return {**source, **metric_points((p.key, p.value, p.dataset, p.digest) for p in points)}
