"""Searching experiments: the same answers, in the same order, as MLflow's own store on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities import ExperimentTag, ViewType
from mlflow.exceptions import MlflowException
from twins import TEXTS

from mlflow_elasticsearch_tracking.experiments import experiment_document
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store

NAMES = [f"experiment {text}" for text in TEXTS if len(text) < 50] + ["x" * 300]
Stores = tuple[Any, Any]


@pytest.fixture(scope="module")
def stores(prefixes: Prefixes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    """MLflow's own store and ours, with the same experiments at the same times."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

    folder = tmp_path_factory.mktemp("experiments")
    sql, uri = sqlite_tracking_store(folder), prefixes.fresh_uri()
    own = ElasticsearchTrackingStore(uri, (folder / "artifacts").as_uri())
    prefixes.opened(uri, own)
    for number, name in enumerate(NAMES):
        tags = [ExperimentTag("t", TEXTS[number % 9])] if number % 3 else []
        if number == 5:
            tags.append(ExperimentTag("long", "long tag " * 500))
        assert sql.create_experiment(name, tags=tags) == own.create_experiment(name, tags=tags)
    for number in range(2, 20, 5):
        sql.delete_experiment(str(number))
        own.delete_experiment(str(number))
    for one in sql.search_experiments(ViewType.ALL):
        times = {"creation_time": one.creation_time, "last_update_time": one.last_update_time}
        own.docs.update(EXPERIMENTS, one.experiment_id, lambda old, times=times: experiment_document(old | times))
    yield sql, own
    prefixes.closed(own)
    dispose(sql)


def search(store: Any, filter_string: str, order_by: list[str], size: int, view: int) -> Any:
    """What is shown of the experiments, page by page; or the error's code."""
    pages: list[Any] = []
    token = None
    try:
        for _ in range(len(NAMES) + 1):
            page = store.search_experiments(view, size, filter_string, order_by, token)
            pages.append([(e.experiment_id, e.name, e.lifecycle_stage, e.tags, e.creation_time) for e in page])
            token = page.token
            if not token:
                return pages
    except MlflowException as exc:
        return exc.error_code
    raise AssertionError("the pages do not end")


words = st.sampled_from([*NAMES, *TEXTS[:20], "experiment%", "%É%", "%é%", "%o%", "_xperiment%", "%x%x%"])
quoted = words.map(lambda text: f'"{text}"' if "'" in text else f"'{text}'")
likes = st.sampled_from(["=", "!=", "LIKE", "ILIKE"])
clauses = st.one_of(
    st.builds("name {} {}".format, likes, quoted),
    st.builds("tags.t {} {}".format, likes, quoted),
    st.builds(
        "tags.{} {}".format, st.sampled_from(["t", "long", "`no such`"]), st.sampled_from(["IS NULL", "IS NOT NULL"])
    ),
    st.builds("experiment_id {} '{}'".format, st.sampled_from(["=", "!="]), st.integers(-1, 40)),
    st.builds("experiment_id {} ('{}', '3', '4')".format, st.sampled_from(["IN", "NOT IN"]), st.integers(0, 40)),
    st.builds("{} > {}".format, st.sampled_from(["creation_time", "last_update_time"]), st.sampled_from([0, 1 << 62])),
    st.sampled_from(
        ["tags.long LIKE 'long%'", "tags.long LIKE '%tag '", "experiment_id = 'x'", "colour = 'red'", "name > 'a'"]
    ),
)
columns = st.sampled_from(["name", "experiment_id", "creation_time", "attribute.last_update_time", "colour", "tags.t"])
orders = st.lists(st.builds("{} {}".format, columns, st.sampled_from(["ASC", "DESC", ""])), max_size=2)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    filter_string=st.lists(clauses, max_size=2).map(" AND ".join),
    order_by=orders,
    size=st.sampled_from([4, 11, 1_000]),
    view=st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL]),
)
def test_searches_find_the_same(stores: Stores, filter_string: str, order_by: list[str], size: int, view: int) -> None:
    """Filters, orders and pages, also nonsense, give the same experiments or the same error code."""
    sql, own = stores
    assert search(own, filter_string, order_by, size, view) == search(sql, filter_string, order_by, size, view)


def test_an_empty_store_has_the_default_experiment(store: Any) -> None:
    """As MLflow's own store has it."""
    assert [(one.experiment_id, one.name) for one in store.search_experiments()] == [("0", "Default")]


def test_a_new_experiment_is_found_at_once(store: Any) -> None:
    """A search sees the writes before it, and a changed tag."""
    experiment = store.create_experiment("new")
    assert [one.experiment_id for one in store.search_experiments(filter_string="name = 'new'")] == [experiment]
    store.set_experiment_tag(experiment, ExperimentTag("t", "v"))
    assert [one.experiment_id for one in store.search_experiments(filter_string="tags.t = 'v'")] == [experiment]


@pytest.mark.parametrize("size", [0, -1, 50_001, None])
def test_a_bad_size_is_refused(store: Any, size: Any) -> None:
    """A page has between 1 and 50,000 experiments."""
    with pytest.raises(MlflowException) as raised:
        store.search_experiments(max_results=size)
    assert raised.value.error_code == "INVALID_PARAMETER_VALUE"
