"""The import of logged models with their metrics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from mlflow.entities import LifecycleStage

from mlflow_elasticsearch_tracking.importer_base import Imports, found
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS, MODEL_METRICS
from mlflow_elasticsearch_tracking.model_documents import Point, Source, model_document, summarized
from mlflow_elasticsearch_tracking.model_metrics import MOST_POINTS, _block_document, _point
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import page_of
from mlflow_plugkit_elasticsearch.queries import term

_PAGE = 50


class ModelImports(Imports):
    """Copies the logged models of an experiment."""

    def parts(self, experiment_id: str) -> Iterator[Part]:
        """The active models; the deleted ones where the source is a database, which alone tells of them."""
        if not self.may_have("logged_models", experiment_id):
            return
        yield Part(
            f"logged models of experiment {experiment_id}",
            lambda token: self._read(experiment_id, token),
            lambda models: self._write(models, LifecycleStage.ACTIVE),
            self.counter(LOGGED_MODELS, experiment_id, term("lifecycle_stage", LifecycleStage.ACTIVE)),
            lambda model: str(model.model_id),
            self._sides,
        )
        if self.source.is_database and self._deleted_ids(experiment_id):
            yield Part(
                f"deleted logged models of experiment {experiment_id}",
                lambda token: self._read_deleted(experiment_id, token),
                lambda models: self._write(models, LifecycleStage.DELETED),
                self.counter(LOGGED_MODELS, experiment_id, term("lifecycle_stage", LifecycleStage.DELETED)),
                lambda model: str(model.model_id),
                self._sides,
            )

    def _read(self, experiment_id: str, token: str | None) -> tuple[Sequence[Any], str | None]:
        order = [{"field_name": "creation_timestamp", "ascending": True}]
        search = self.source.tracking.search_logged_models
        return page_of(lambda: search([experiment_id], max_results=_PAGE, order_by=order, page_token=token))

    def _deleted_ids(self, experiment_id: str) -> list[str]:
        where = {"experiment_id": int(experiment_id), "lifecycle_stage": LifecycleStage.DELETED}
        return [row[0] for row in self.source.rows("logged_models", ["model_id"], where, ["model_id"])]

    def _read_deleted(self, experiment_id: str, token: str | None) -> tuple[Sequence[Any], str | None]:
        start = int(token or 0)
        ids = self._deleted_ids(experiment_id)
        page = [_of(self.source.tracking, one) for one in ids[start : start + _PAGE]]
        return page, str(start + _PAGE) if start + _PAGE < len(ids) else None

    def _write(self, models: Sequence[Any], stage: str) -> None:
        for model in models:
            points = sorted(
                (_point(metric.run_id, metric) for metric in model.metrics or ()),
                key=lambda point: (point.timestamp, point.step, point.key, point.run_id),
            )
            source = _source(model, stage)
            parts = [points[start : start + MOST_POINTS] for start in range(0, len(points), MOST_POINTS)]
            source |= {"m": [list(point) for point in (parts[-1] if parts else ())], "s": summarized((), points)}
            older = [(f"{model.model_id}-{number:016x}", part) for number, part in enumerate(parts[:-1])]
            if older:
                source |= _named(older)
            actions = [
                Action("index", MODEL_METRICS, block_id, _block_document(model.model_id, block_id, part))
                for block_id, part in older
            ]
            bulk(self.docs, [*actions, Action("index", LOGGED_MODELS, model.model_id, model_document(source))])

    def _sides(self, model: Any) -> tuple[Any, Any]:
        own = found(lambda: _of(self.store, model.model_id))
        return _told(_of(self.source.tracking, model.model_id)), _told(own)


def _of(store: Any, model_id: str) -> Any:
    try:
        return store.get_logged_model(model_id, allow_deleted=True)
    except TypeError:  # a server's store, or an older MLflow's, tells of no deleted ones
        return _in_table(store, model_id) if hasattr(store, "engine") else store.get_logged_model(model_id)


def _in_table(store: Any, model_id: str) -> Any:
    from mlflow.store.tracking.dbmodels.models import SqlLoggedModel

    with store.ManagedSessionMaker() as session:
        return session.get(SqlLoggedModel, model_id).to_mlflow_entity()


def _told(model: Any) -> Any:
    told = plain(model)
    if told is not None and "metrics" in told:
        told["metrics"] = sorted(map(repr, told["metrics"]))
    return told


def _source(model: Any, stage: str) -> Source:
    return {
        "model_id": model.model_id,
        "experiment_id": str(model.experiment_id),
        "name": model.name,
        "artifact_location": model.artifact_location,
        "creation_timestamp_ms": model.creation_timestamp,
        "last_updated_timestamp_ms": model.last_updated_timestamp,
        "status": str(model.status.to_int()),
        "lifecycle_stage": stage,
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
        "status_message": model.status_message,
        "t": dict(model.tags or {}),
        "p": dict(model.params or {}),
    }


def _named(blocks: Sequence[tuple[str, Sequence[Point]]]) -> Source:
    """What a model's document says of its blocks."""
    named = []
    for block_id, points in blocks:
        times, steps = [point.timestamp for point in points], [point.step for point in points]
        named.append([block_id, len(points), min(times), max(times), min(steps), max(steps)])
    return {"blocks": named, "runs": sorted({point.run_id for _, points in blocks for point in points})}
