"""Searching logged models: the same answers, in the same order, as MLflow's own store on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import LoggedModelParameter, LoggedModelTag, Metric
from mlflow.exceptions import MlflowException
from twins import KEYS, TEXTS

from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS
from mlflow_elasticsearch_tracking.model_documents import model_document
from mlflow_plugkit_elasticsearch import Action, bulk
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store

COUNT = 40
METRICS = ["acc", "ACC", "loss rate", "a.b", "m" * 200]
DATASETS = [(None, None), ("train", "d1"), ("train", "d2"), ("Test 'x'", "d1"), ("größe", "d3")]
NUMBERS = [0.0, 0.5, -0.5, 1.0, 1e300, -1e300, 2.0]
TEXT_FIELDS = ["name", "model_type", "source_run_id", "model_id", "status", "experiment_id", "artifact_location"]
TIMES = ["creation_time", "creation_timestamp", "last_updated_timestamp"]


@dataclass
class Pair:
    """MLflow's own store and ours, with the same logged models."""

    sql: Any
    own: Any
    experiments: list[str]

    def can_page(self) -> bool:
        """Whether MLflow's own store finds a model once only; older ones find it for each of its points that fits."""
        return len(self.sql.search_logged_models(self.experiments, "metrics.acc < 1e308", max_results=9)) == 9

    def answers(self, **search: Any) -> tuple[Any, Any]:
        """What both stores find, page by page, or the code of their errors."""
        return self._answer(self.sql, **search), self._answer(self.own, **search)

    def _answer(self, store: Any, **search: Any) -> Any:
        pages, token = [], None
        try:
            for _ in range(COUNT + 1):
                page = store.search_logged_models(self.experiments, page_token=token, **search)
                pages.append([model.model_id for model in page])
                token = page.token
                if not token:
                    return pages
        except MlflowException as exc:
            return exc.error_code
        raise AssertionError(f"the pages of {search} do not end")


@pytest.fixture(scope="module")
def pair(prefixes: Prefixes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Both stores, filled with the same."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

    folder = tmp_path_factory.mktemp("models")
    sql, uri = sqlite_tracking_store(folder), prefixes.fresh_uri()
    own = ElasticsearchTrackingStore(uri, folder.as_uri())
    prefixes.opened(uri, own)
    yield filled(sql, own)
    prefixes.closed(own)
    dispose(sql)


def filled(sql: Any, own: Any) -> Pair:
    """Make models in MLflow's store, and copy them: the ids decide the order where all else is equal."""
    experiments = ["0", sql.create_experiment("second")]
    assert own.create_experiment("second") == experiments[1]
    runs = sorted(sql.create_run(one, "ada", 1, [], "r").info.run_id for one in experiments)
    for number in range(COUNT):
        make_model(sql, experiments[number % 2], runs[number % 2], number)
    models = sql.search_logged_models(experiments, max_results=COUNT)
    documents = [model_document(source_of(model)) for model in models]
    bulk(own.docs, [Action("create", LOGGED_MODELS, source["model_id"], source) for source in documents])
    for model in models:
        for metric in model.metrics or ():
            own._log_model_metrics(metric.run_id, [metric])
    return Pair(sql, own, experiments)


def make_model(sql: Any, experiment: str, run: str, number: int) -> None:
    """A model whose tags, params and metrics hold what is easily confused."""
    places = list(enumerate(KEYS))
    model_id = sql.create_logged_model(
        experiment,
        ["alpha", "Alpha", "beta_1", "é", "a%b".replace("%", "-")][number % 5],
        run if number % 3 else None,
        [LoggedModelTag(key, TEXTS[(number * 7 + at) % len(TEXTS)]) for at, key in places if (number + at) % 3],
        [LoggedModelParameter(key, TEXTS[(number * 5 + at) % len(TEXTS)]) for at, key in places if (number + at) % 4],
        [None, "agent", "Agent", ""][number % 4],
    ).model_id
    for place, key in enumerate(METRICS):
        if (number + place) % 4 == 0:
            continue
        points = [
            Metric(
                key, NUMBERS[(number + 3 * place + step) % len(NUMBERS)], 5 - step, step % 2, model_id, *dataset, run
            )
            for step, dataset in enumerate(DATASETS[: number % 6])
        ]
        sql._log_model_metrics(run, points, experiment_id=experiment)


def source_of(model: Any) -> dict[str, Any]:
    """The source of the document that the store itself would keep, without its metrics."""
    names = ("model_id", "experiment_id", "name", "artifact_location", "model_type", "source_run_id", "status_message")
    return {name: getattr(model, name) for name in names} | {
        "creation_timestamp_ms": model.creation_timestamp,
        "last_updated_timestamp_ms": model.last_updated_timestamp,
        "status": str(model.status.to_int()),
        "lifecycle_stage": "active",
        "t": model.tags,
        "p": model.params,
    }


words = st.sampled_from([text for text in TEXTS if "'" not in text]) | st.sampled_from(["alpha", "agent", "1", "d1"])
patterns = st.builds(lambda text, at, wild: text[:at] + wild, words, st.integers(0, 5), st.sampled_from(["%", "_"]))
values = (words | patterns).map("'{}'".format)
comparisons = st.builds("{} {}".format, st.sampled_from(["=", "!=", "LIKE", "ILIKE", "like"]), values)
lists = st.lists(words.map("'{}'".format), min_size=2, max_size=3).map(", ".join)
memberships = st.builds("{} ({})".format, st.sampled_from(["IN", "NOT IN"]), lists)
operators = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
numbers = st.sampled_from([*map(repr, NUMBERS), "0.25", "1e400", "-3"])
clauses = st.one_of(
    st.builds("{} {}".format, st.sampled_from(TEXT_FIELDS), comparisons | memberships),
    st.builds(
        "{}.`{}` {}".format, st.sampled_from(["tags", "params"]), st.sampled_from(KEYS), comparisons | memberships
    ),
    st.builds("metrics.`{}` {} {}".format, st.sampled_from(METRICS), operators, numbers),
    st.builds("{} {} {}".format, st.sampled_from(TIMES), operators, st.sampled_from(["5", "1e15", "2.5", "-1"])),
)
filters = st.lists(clauses, max_size=2).map(" AND ".join).map(lambda text: text or None)
fields = st.sampled_from([*TEXT_FIELDS, *TIMES, *(f"metrics.{key}" for key in METRICS), "metrics.absent", "tags.p"])
orders = st.lists(
    st.builds(
        lambda field, ascending, dataset: {
            "field_name": field,
            "ascending": ascending,
            "dataset_name": dataset[0],
            "dataset_digest": dataset[1],
        },
        fields,
        st.booleans(),
        st.sampled_from([*DATASETS, ("train", None), (None, "d1")]),
    ),
    max_size=2,
    unique_by=lambda one: one["field_name"],
)
scopes = st.lists(
    st.sampled_from(
        [
            {"dataset_name": "train"},
            {"dataset_name": "train", "dataset_digest": "d2"},
            {"dataset_name": "Test 'x'"},
            {"dataset_name": "none"},
        ]
    ),
    max_size=2,
)


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(filter_string=filters, order_by=orders, datasets=scopes, size=st.sampled_from([7, 10_000]))
def test_models_are_found_as_by_mlflows_own_store(
    pair: Pair, filter_string: str | None, order_by: list[Any], datasets: list[Any], size: int
) -> None:
    """Any filter, order, datasets and page size: the same models on the same pages, or an error of the same code.

    Where MLflow's own store breaks down with a code that is no promise, ours may say what is wrong.
    """
    size = size if pair.can_page() else 10_000
    expected, got = pair.answers(
        filter_string=filter_string, order_by=order_by or None, datasets=datasets or None, max_results=size
    )
    assert got == expected or expected in ("INTERNAL_ERROR", "BAD_REQUEST")


def test_a_page_needs_one_search(pair: Pair) -> None:
    """A page of models comes with tags, params and metrics in one request."""
    from recorded import requests_of

    with requests_of(pair.own) as requests:
        page = pair.own.search_logged_models(pair.experiments, "metrics.acc > 0", max_results=COUNT)
    assert len(page) > 5
    assert all(model.metrics for model in page)
    assert [request.rpartition("/")[2] for request in requests] == ["_search"]


@pytest.mark.parametrize("digest", [None, ""])
def test_a_dataset_without_a_digest_means_any(pair: Pair, digest: str | None) -> None:
    """MLflow's server passes None where the client gave no digest; that searches all digests of the name."""
    found, wanted = (
        {model.model_id for model in pair.own.search_logged_models(pair.experiments, datasets=[dataset])}
        for dataset in ({"dataset_name": "train", "dataset_digest": digest}, {"dataset_name": "train"})
    )
    assert found == wanted != set()


def test_a_token_of_another_search_is_refused(pair: Pair) -> None:
    """A page token goes with the filter, the order and the experiments that it was made for."""
    token = pair.own.search_logged_models(pair.experiments, max_results=1).token
    others: list[dict[str, Any]] = [
        {"experiment_ids": ["0"]},
        {"filter_string": "name = 'alpha'"},
        {"order_by": [{"field_name": "name"}]},
        {"page_token": token + "x"},
    ]
    for other in others:
        with pytest.raises(MlflowException, match="page token"):
            pair.own.search_logged_models(**{"experiment_ids": pair.experiments, "page_token": token, **other})
