"""Inputs and outputs of runs: datasets and models."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import StoreBase, now_ms
from mlflow_elasticsearch_tracking.filters import experiment_numbers
from mlflow_elasticsearch_tracking.indices_models import DATASETS
from mlflow_elasticsearch_tracking.run_documents import check_active
from mlflow_elasticsearch_tracking.run_links import CONTEXT_TAG, model_inputs
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.queries import term, terms

if TYPE_CHECKING:
    from mlflow.entities import Dataset, DatasetInput, LoggedModelInput, LoggedModelOutput, RunInputs

#: As many summaries as MLflow's SQL store gives at most.
MOST_SUMMARIES = 1_000
#: Datasets never change once they are written, so a process keeps some, each of at most so many characters.
_KEPT, _KEPT_SIZE = 1_000, 20_000
Source = dict[str, Any]


class Inputs(StoreBase):
    """Log inputs and outputs of runs; search datasets."""

    if TYPE_CHECKING:  # Runs has them

        def _run(self, run_id: str) -> Document: ...

        def _change_active(self, run_id: str, change: Callable[[Source], Source]) -> Document: ...

    def __init__(self) -> None:
        super().__init__()
        self._datasets = _Kept()

    def log_inputs(
        self,
        run_id: str,
        datasets: list[DatasetInput] | None = None,
        models: list[LoggedModelInput] | None = None,
    ) -> None:
        """Link datasets and models to an active run; what is linked already stays as it is.

        The first dataset of an experiment with a name and a digest is kept for all that follow.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such run; `INVALID_PARAMETER_VALUE` for a
                deleted one or a bad dataset; `BAD_REQUEST` for an input tag that is given twice.
            TypeError: `datasets` is no list.
        """
        from mlflow.utils.validation import _validate_dataset_inputs, _validate_run_id

        _validate_run_id(run_id)
        if datasets is not None:
            if not isinstance(datasets, list):
                raise TypeError(f"Argument 'datasets' should be a list, got '{type(datasets)}'")
            _validate_dataset_inputs(datasets)
        run = self._run(run_id).source
        check_active(run)
        linked = {(name, digest) for name, digest, _ in run.get("in", {}).get("d", ())}
        given = {(one.dataset.name, one.dataset.digest): one for one in reversed(datasets or ())}
        new = [one for key, one in reversed(given.items()) if key not in linked]
        links = [(one.dataset.name, one.dataset.digest, _tags(one)) for one in new]
        for one, (_, _, tags) in zip(new, links, strict=True):
            self._keep_dataset(run["experiment_id"], one.dataset, tags.get(CONTEXT_TAG))
        models_read = [model.model_id for model in models or ()]
        if links or models_read:
            self._change_active(run_id, lambda source: _linked(source, links, models_read))

    def log_outputs(self, run_id: str, models: list[LoggedModelOutput]) -> None:
        """Link models to the active run that made them, each with a step.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such run; `INVALID_PARAMETER_VALUE` for a
                deleted one; `BAD_REQUEST` for a model that is an output of this run already.
        """

        def change(source: Source) -> Source:
            out = list(source.get("out", ()))
            known = {model_id for model_id, _ in out}
            for model in models:
                if model.model_id in known:
                    raise mlflow_error(f"Model {model.model_id} is an output of run {run_id} already.", "BAD_REQUEST")
                known.add(model.model_id)
                out.append([model.model_id, model.step])
            return source | {"out": out}

        self._change_active(run_id, change)

    def _search_datasets(self, experiment_ids: list[str]) -> list[Any]:
        """The name, digest and context of the datasets of some experiments, the oldest first; 1,000 at most.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for an id that is no number.
        """
        from mlflow.entities import _DatasetSummary

        fields = ("experiment_id", "name", "digest", "contexts")
        wanted = terms("experiment_id", [str(one) for one in experiment_numbers(experiment_ids)])
        hits = self.docs.page(DATASETS, wanted, [{"created": "asc"}, {"key": "asc"}], MOST_SUMMARIES, source=fields)
        summaries = [
            _DatasetSummary(hit.source["experiment_id"], hit.source["name"], hit.source["digest"], context)
            for hit in hits
            for context in hit.source["contexts"]
        ]
        return summaries[:MOST_SUMMARIES]

    def _run_inputs(self, sources: Sequence[Source], *, models: bool = False) -> list[RunInputs]:
        """The inputs of some runs from their documents' sources, in one request at most.

        Args:
            sources: the runs' documents; their `experiment_id` and `in` are read.
            models: with the models that the runs read; MLflow's search for runs leaves them out.
        """
        from mlflow.entities import DatasetInput, InputTag, RunInputs

        keys = {
            (source["experiment_id"], name, digest)
            for source in sources
            for name, digest, _ in source.get("in", {}).get("d", ())
        }
        found = self._find_datasets(keys) if keys else {}

        def inputs(source: Source) -> list[DatasetInput]:
            experiment_id = source["experiment_id"]
            return [
                DatasetInput(found[experiment_id, name, digest], [InputTag(*tag) for tag in tags.items()])
                for name, digest, tags in source.get("in", {}).get("d", ())
                if (experiment_id, name, digest) in found
            ]

        return [RunInputs(inputs(source), model_inputs(source) if models else []) for source in sources]

    def _hard_delete_datasets_of(self, experiment_id: str) -> None:
        """Delete the datasets of an experiment that is deleted for good."""
        self.docs.refresh(DATASETS, always=True)
        self.docs.delete_where(DATASETS, term("experiment_id", experiment_id), "key")

    def _find_datasets(self, keys: set[tuple[str, str, str]]) -> dict[tuple[str, str, str], Dataset]:
        found = {key: dataset for key in keys if (dataset := self._datasets.get(key))}
        unknown = {document_id(*key): key for key in keys - found.keys()}
        for doc_id, document in self.docs.get_many(DATASETS, list(unknown)).items() if unknown else ():
            found[unknown[doc_id]] = self._datasets.keep(unknown[doc_id], document.source)
        return found

    def _keep_dataset(self, experiment_id: str, dataset: Dataset, context: str | None) -> None:
        """Write the dataset where it is the first of its name and digest; note the context that it is used in."""
        source = dataset_source(experiment_id, dataset, now_ms(), context)
        key = source["key"]
        try:
            self.docs.create(DATASETS, key, source)
        except Conflict:
            self.docs.update(DATASETS, key, lambda old: _in_context(old, context))


class _Kept:
    """The datasets that this process has read or written last."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._datasets: OrderedDict[tuple[str, str, str], Dataset] = OrderedDict()

    def get(self, key: tuple[str, str, str]) -> Dataset | None:
        with self._lock:
            return self._datasets.get(key)

    def keep(self, key: tuple[str, str, str], source: Source) -> Dataset:
        """The dataset of a document, kept for later if it is small."""
        from mlflow.entities import Dataset

        texts = [source[field] for field in ("name", "digest", "source_type", "source", "schema", "profile")]
        dataset = Dataset(*texts)
        if sum(len(text or "") for text in texts) <= _KEPT_SIZE:
            with self._lock:
                self._datasets[key] = dataset
                if len(self._datasets) > _KEPT:
                    self._datasets.popitem(last=False)
        return dataset


def _tags(dataset_input: DatasetInput) -> dict[str, str]:
    tags = {tag.key: tag.value for tag in dataset_input.tags}
    if len(tags) < len(dataset_input.tags):
        raise mlflow_error(f"Dataset {dataset_input.dataset.name!r} has an input tag twice.", "BAD_REQUEST")
    return tags


def _linked(source: Source, links: Sequence[Sequence[Any]], models: Sequence[str]) -> Source:
    before = source.get("in", {})
    datasets = list(before.get("d", ()))
    known = {(name, digest) for name, digest, _ in datasets}
    datasets += [link for link in links if (link[0], link[1]) not in known]
    return source | {"in": {"d": datasets, "m": list(dict.fromkeys([*before.get("m", ()), *models]))}}


def _in_context(dataset: Source, context: str | None) -> Source | None:
    contexts = dataset["contexts"]
    return None if context in contexts else dataset | {"contexts": [*contexts, context]}


def dataset_source(experiment_id: str, dataset: Any, created: int, context: str | None) -> Source:
    """The source of a dataset's document, as its first run in the experiment makes it."""
    return {
        "key": document_id(experiment_id, dataset.name, dataset.digest),
        "experiment_id": experiment_id,
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
        "schema": dataset.schema,
        "profile": dataset.profile,
        "created": created,
        "contexts": [context],
    }
