"""The import of tracking data: experiments first, then what is in each of them, then evaluation datasets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from mlflow.entities import Experiment, LifecycleStage, ViewType

from mlflow_elasticsearch_tracking.experiments import (
    DEFAULT_EXPERIMENT_ID,
    KIND,
    experiment_document,
    experiment_entity,
)
from mlflow_elasticsearch_tracking.importer_datasets import DatasetImports
from mlflow_elasticsearch_tracking.importer_genai import GenAIImports
from mlflow_elasticsearch_tracking.importer_models import ModelImports
from mlflow_elasticsearch_tracking.importer_runs import RunImports
from mlflow_elasticsearch_tracking.importer_traces import TraceImports
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS, RUNS
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS
from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Action, Documents, bulk
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.import_parts import Part, plain
from mlflow_plugkit_elasticsearch.import_source import ImportSource, all_pages, paged
from mlflow_plugkit_elasticsearch.names import KEYS, claim, raise_counter, release
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, term

_PAGE = 500


class TrackingImporter:
    """Copies what a tracking store holds.

    Args:
        source: to read from.
        target_uri: the store to fill.
        documents: of that store.
    """

    def __init__(self, source: ImportSource, target_uri: str, documents: Documents) -> None:
        self._source, self._docs = source, documents
        self._store = ElasticsearchTrackingStore(target_uri)
        self._store._has_default = True  # the source has one, or has deleted it for good
        given = (source, self._store)
        self._runs, self._models, self._traces = RunImports(*given), ModelImports(*given), TraceImports(*given)
        self._genai, self._datasets = GenAIImports(*given), DatasetImports(*given)

    def clashes(self) -> Iterator[str]:
        """Experiments of the target that have an id or a name of the source's."""
        token: str | None = None
        while True:
            experiments, token = self._read(token)
            yield from self._clashing(experiments)
            if not token:
                return

    def _clashing(self, experiments: Sequence[Experiment]) -> Iterator[str]:
        there = self._docs.get_many(EXPERIMENTS, [e.experiment_id for e in experiments])
        claims = {e.experiment_id: document_id(KIND, e.name) for e in experiments}
        owners = self._docs.get_many(KEYS, list(claims.values()))
        for one in experiments:
            found = there.get(one.experiment_id)
            if found is not None and not self._is_untouched(found.source):
                yield f"It has an experiment {one.experiment_id} ({found.source['name']!r})."
            owner = owners.get(claims[one.experiment_id])
            if owner is not None and owner.source["owner"] != one.experiment_id:
                yield f"Its experiment {owner.source['owner']} has the name {one.name!r}."

    def _is_untouched(self, source: Source) -> bool:
        """Whether it is the default experiment, which every store makes, and nobody has used it."""
        if source["experiment_id"] != DEFAULT_EXPERIMENT_ID or source["t"]:
            return False
        inside = term("experiment_id", DEFAULT_EXPERIMENT_ID)
        return not any(self._docs.count(index, inside) for index in (RUNS, TRACES, LOGGED_MODELS))

    def parts(self) -> Iterator[Part]:
        """See `Importer`."""
        yield Part(
            "experiments",
            self._read,
            self._write,
            lambda: self._docs.count(EXPERIMENTS, MATCH_ALL) - len(self._strangers),
            lambda one: str(one.experiment_id),
            lambda one: (plain(one), self._target(one.experiment_id)),
        )
        for experiment in all_pages(self._read):
            is_active = experiment.lifecycle_stage == LifecycleStage.ACTIVE
            yield from self._runs.parts(experiment.experiment_id)
            yield from self._models.parts(experiment.experiment_id)
            yield from self._traces.parts(experiment.experiment_id)
            yield from self._genai.parts(experiment.experiment_id, is_active=is_active)
        yield from self._datasets.parts()

    def notes(self) -> Iterator[str]:
        """See `Importer`."""
        yield from self._genai.notes()
        if not self._source.is_database:
            yield (
                "A server does not tell when runs were deleted, nor about deleted logged models. Import from its "
                "database to have them."
            )

    def _read(self, token: str | None) -> tuple[Sequence[Experiment], str | None]:
        return paged(
            self._source.tracking.search_experiments(
                view_type=ViewType.ALL, max_results=_PAGE, order_by=["experiment_id ASC"], page_token=token
            )
        )

    def _write(self, experiments: Sequence[Experiment]) -> None:
        if not experiments:
            return
        raise_counter(self._docs, KIND, max(int(e.experiment_id) for e in experiments))
        there = self._docs.get_many(EXPERIMENTS, [e.experiment_id for e in experiments])
        for one in experiments:
            before = there.get(one.experiment_id)
            if before is not None and before.source["name"] != one.name:
                release(self._docs, KIND, before.source["name"], one.experiment_id)
            self._claim(one)
        bulk(self._docs, [Action("index", EXPERIMENTS, e.experiment_id, _document(e)) for e in experiments])

    def _claim(self, experiment: Experiment) -> None:
        def is_live(owner: str) -> bool:
            found = self._docs.get(EXPERIMENTS, owner)
            return found is not None and found.source["name"] == experiment.name

        owner = claim(self._docs, KIND, experiment.name, experiment.experiment_id, is_live)
        if owner is not None:
            raise mlflow_error(
                f"The target's experiment {owner} has the name {experiment.name!r} of experiment "
                f"{experiment.experiment_id}. Rename it, and run the command again.",
                "RESOURCE_ALREADY_EXISTS",
            )

    @cached_property
    def _strangers(self) -> frozenset[str]:
        """The target's experiments that the source does not have."""
        own = {experiment.experiment_id for experiment in all_pages(self._read)}
        there = self._docs.scan(EXPERIMENTS, MATCH_ALL, "experiment_id", source=False)
        return frozenset(hit.id for hit in there if hit.id not in own)

    def _target(self, experiment_id: str) -> Any:
        found = self._docs.get(EXPERIMENTS, experiment_id)
        return plain(experiment_entity(found.source)) if found else None


def _document(experiment: Experiment) -> Source:
    return experiment_document(
        {
            "experiment_id": experiment.experiment_id,
            "number": int(experiment.experiment_id),
            "name": experiment.name,
            "artifact_location": experiment.artifact_location,
            "lifecycle_stage": experiment.lifecycle_stage,
            "creation_time": experiment.creation_time,
            "last_update_time": experiment.last_update_time,
            "t": dict(experiment.tags),
        }
    )
