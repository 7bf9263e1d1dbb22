"""The same experiments and runs in MLflow's own store on SQLite and in Elasticsearch, with the same ids."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlflow.entities import Dataset, DatasetInput, ExperimentTag, InputTag, Metric, Param, RunStatus, RunTag, ViewType

from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.run_documents import json_number, run_document
from mlflow_plugkit_elasticsearch import Action, bulk

#: What patterns and terms could be confused by, and letters whose case SQLite and Python see differently.
TEXTS = [
    *(
        "one",
        "One",
        "ONE",
        "on",
        "o%e",
        "o_e",
        "50%",
        "a\\b",
        "a*b",
        "a?b",
        "*",
        "?",
        "\\",
        "größer",
        "GRÖSSER",
        "é",
        "É",
    ),
    *(
        "x y",
        "line\nbreak",
        "it's",
        'say "hi"',
        "[a-z]+",
        "(a|b)",
        "a.b",
        "{1}",
        "~@#&<>",
        "😀",
        "大",
        "0",
        "",
        " ",
        "K",
        "İ",
    ),
    "long " * 200,
]
#: What a search ends with that MLflow's own store cannot put to its database.
FAILED = "its database refused the query"
KEYS = ["p", "P", "q r", "a.b", "a/b", "größe", "k" * 250, "x-y_z"]
VALUES = [0.0, -0.0, 1.0, -1.5, 0.1, 1e300, -1e300, 5e-324, 2.0, 3.14, 1e10]
METRICS = ["m", "M", "acc.val/1", "loss rate"]
#: Some of its values are NaN.
NAN_METRIC = "nan.at times"


@dataclass
class Twins:
    """Two stores that hold the same.

    Attributes:
        sql: MLflow's own.
        own: ours.
        reads_nan: whether filters of MLflow's own heed NaN; older ones take it for 0.
        experiments: the ids of the experiments, the same in both.
        run_ids: the ids of the runs, the same in both.
    """

    sql: Any
    own: Any
    reads_nan: bool
    experiments: list[str]
    run_ids: list[str]

    def search(
        self, store: Any, filter_string: str, order_by: Sequence[str], *, size: int = 7, view: Any = None
    ) -> Any:
        """The ids of the runs that a search finds, page by page; or the error's code."""
        from mlflow.exceptions import MlflowException
        from sqlalchemy.exc import SQLAlchemyError

        pages, token = [], None
        try:
            for _ in range(len(self.run_ids)):
                runs, token = store._search_runs(
                    self.experiments, filter_string, view or ViewType.ACTIVE_ONLY, size, list(order_by), token
                )
                pages.append([run.info.run_id for run in runs])
                if not token:  # older MLflows give one after a full last page, too
                    return pages[:-1] if len(pages) > 1 and not pages[-1] else pages
        except MlflowException as exc:
            return FAILED if isinstance(exc.__cause__, SQLAlchemyError) else exc.error_code
        raise AssertionError(f"the pages of {filter_string!r} by {order_by} do not end")


def make_twins(sql: Any, own: Any, count: int = 60) -> Twins:
    """Fill both stores with runs whose params, tags and metrics hold what is easily confused.

    The runs are made in MLflow's store and copied as documents: the ids decide the order where all else is equal.
    """
    experiments = []
    for name in ("first", "second"):
        tags = [ExperimentTag("t", name)]
        experiments.append(own.create_experiment(name, tags=tags))
        assert sql.create_experiment(name, tags=tags) == experiments[-1]
    for number in range(count):
        _make_run(sql, experiments[number % 2], number)
    runs, _ = sql._search_runs(experiments, "", ViewType.ALL, 1_000, [], None)
    documents = [run_document(_source(run)) for run in runs]
    bulk(own.docs, [Action("create", RUNS, source["run_id"], source) for source in documents])
    zeros, _ = sql._search_runs(experiments, f"metrics.`{NAN_METRIC}` = 0", ViewType.ALL, 1_000, [], None)
    reads_nan = not any(math.isnan(run.data.metrics[NAN_METRIC]) for run in zeros)
    return Twins(sql, own, reads_nan, experiments, [run.info.run_id for run in runs])


def _make_run(sql: Any, experiment: str, number: int) -> None:
    user, start = TEXTS[number % 5], 1_000 + number % 4
    run_id = sql.create_run(experiment, user, start, [], f"name {TEXTS[number % 7]}").info.run_id
    params = {key: TEXTS[(number * 7 + place) % len(TEXTS)] for place, key in enumerate(KEYS) if (number + place) % 3}
    tags = {key: TEXTS[(number * 5 + place) % len(TEXTS)] for place, key in enumerate(KEYS) if (number + place) % 4}
    values = {
        key: VALUES[(number + 3 * place) % len(VALUES)] for place, key in enumerate(METRICS) if (number + place) % 5
    }
    if number % 4:
        values[NAN_METRIC] = math.nan if number % 3 else VALUES[number % len(VALUES)]
    sql.log_batch(
        run_id,
        [Metric(key, value, number, place) for place, (key, value) in enumerate(values.items())],
        [Param(key, value) for key, value in params.items()],
        [RunTag(key, value) for key, value in tags.items()],
    )
    if number % 3:
        status = [RunStatus.FINISHED, RunStatus.FAILED, RunStatus.KILLED][number % 3]
        sql.update_run_info(run_id, status, 2_000 + number % 6, None)
    if number % 4 == 0:
        sql.log_inputs(run_id, datasets=[_dataset(number, place) for place in range(1 + number % 3)])
    if number % 11 == 0:
        sql.delete_run(run_id)


def _dataset(number: int, place: int) -> DatasetInput:
    name = f"data {TEXTS[(number + place) % 9]}"
    tags = [InputTag("mlflow.data.context", ["train", "Test", "50%"][place])] if (number + place) % 3 else []
    return DatasetInput(Dataset(name, f"d{number % 5}", "local", "{}"), tags)


def _source(run: Any) -> dict[str, Any]:
    """The source of the document that the store itself would keep for the run."""
    info = run.info
    names = ("run_id", "experiment_id", "run_name", "user_id", "status", "start_time", "end_time", "lifecycle_stage")
    source = {name: getattr(info, name) for name in (*names, "artifact_uri") if getattr(info, name) is not None}
    inputs = [
        [one.dataset.name, one.dataset.digest, {tag.key: tag.value for tag in one.tags}]
        for one in run.inputs.dataset_inputs
    ]
    return source | {
        "p": dict(run.data.params),
        "t": dict(run.data.tags),
        "m": {m.key: [json_number(m.value), m.timestamp, m.step] for m in run.data._metric_objs},
        "in": {"d": inputs, "m": []},
    }
