"""Evaluation datasets and their records, beside MLflow's own store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.indices_models import EVALUATION_RECORDS
from mlflow_plugkit_testing.stores import all_pages, refused, together
from mlflow_plugkit_testing.tracking_base import mlflow_has

ODD = {"": {" ": [1, {}]}, "weird..key": None, "big": 2**70, "half": "\ud800", "f": -0.0, "a.b": True, "\x00": "x" * 9}
FIRST: list[dict[str, Any]] = [
    {
        "inputs": {"q": 1},
        "outputs": "text",
        "expectations": {"e": [1]},
        "tags": {"mlflow.user": "eve", "t": "1"},
        "source": {"source_type": "TRACE", "source_data": {"trace_id": "tr-1"}},
    },
    {"inputs": {"q": 2}, "expectations": {"z": {"a": 1}}},
    {"inputs": {"q": 2}, "outputs": None, "tags": {"t": "2"}},
    {"inputs": ODD, "source": {"source_type": "human", "source_data": {"source_id": "s-1"}}},
    {},
]
SECOND: list[dict[str, Any]] = [
    {"inputs": {"q": 2}, "outputs": [1, 2], "expectations": {"y": 2}, "tags": {"mlflow.user": "zed"}},
    {"inputs": {"q": 1}, "expectations": {}, "source": {"source_type": "CODE"}},
    {"inputs": {"q": 3.5, "r": None}},
]


def dataset_shown(dataset: Any) -> tuple[Any, ...]:
    """A dataset without its id and clock."""
    times = dataset.created_time <= dataset.last_update_time
    people = (dataset.created_by, dataset.last_updated_by)
    return dataset.name, dataset.tags, dataset.schema, dataset.profile, people, len(dataset.digest), times


def record_shown(record: Any) -> tuple[Any, ...]:
    """A record without its id and clock."""
    source = (record.source.to_dict() if record.source else None, record.source_id, record.source_type)
    body = (record.inputs, record.outputs, record.expectations, record.tags)
    return (*body, source, record.created_by, record.last_updated_by, record.dataset_record_id[:3])


class Both:
    """MLflow's own store and ours, and the ids of the dataset of each name."""

    def __init__(self, own: Any, store: Any) -> None:
        self.stores = (own, store)
        self.ids: dict[tuple[int, str], str] = {}

    def make(self, name: str, **kwargs: Any) -> None:
        """Make a dataset in both stores."""

        def create(store: Any) -> Any:
            dataset = store.create_dataset(name, **kwargs)
            self.ids[id(store), name] = dataset.dataset_id
            return dataset_shown(dataset), dataset.experiment_ids

        self.same(create)

    def same(self, call: Callable[[Any], Any]) -> Any:
        """Make a call to both stores, compare the answers or the codes of the errors, return ours."""
        answers = []
        for store in self.stores:
            try:
                answers.append(call(store))
            except MlflowException as exc:
                answers.append(exc.error_code)
        assert answers[0] == answers[1]
        return answers[1]

    def after(self, name: str, call: Callable[[Any, str], Any]) -> Any:
        """Make a call with the dataset's id; compare what it gives, the dataset and its records."""

        def operation(store: Any) -> Any:
            dataset_id = self.ids[id(store), name]
            answer = call(store, dataset_id)
            answer = dataset_shown(answer) if hasattr(answer, "digest") else answer
            records = [record_shown(record) for record in store._load_dataset_records(dataset_id)[0]]
            records.sort(key=lambda record: json.dumps(record[0], sort_keys=True))
            return answer, dataset_shown(store.get_dataset(dataset_id)), records

        return self.same(operation)


@pytest.fixture
def both(own: Any, store: Any) -> Both:
    """The two stores."""
    return Both(own, store)


def test_records_are_merged_as_by_mlflows_own_store(both: Both) -> None:
    """Equal inputs meet in one record; counts, schema, profile and people are as in MLflow's own store."""
    both.make("d", tags={"mlflow.user": "ada"}, experiment_ids=["0"])
    both.after("d", lambda store, one: store.upsert_dataset_records(one, FIRST))
    both.after("d", lambda store, one: store.upsert_dataset_records(one, SECOND))
    both.after("d", lambda store, one: store.upsert_dataset_records(one, []))
    both.after("d", lambda store, one: store.upsert_dataset_records(one, [{"inputs": {"i": n}} for n in range(40)]))


def test_every_change_changes_the_digest(store: Any) -> None:
    """And the time of the last update."""
    dataset = store.create_dataset("d")
    time.sleep(0.002)
    store.upsert_dataset_records(dataset.dataset_id, SECOND)
    changed = store.get_dataset(dataset.dataset_id)
    assert changed.digest != dataset.digest
    assert changed.last_update_time > dataset.last_update_time


@pytest.mark.parametrize(
    "record",
    [
        {"inputs": None},
        {"inputs": [1]},
        {"inputs": {"a": object()}},
        {"inputs": {}, "expectations": [1]},
        {"inputs": {}, "source": {"source_type": "nonsense"}},
    ],
)
def test_bad_records_are_refused_before_anything_is_written(own: Any, store: Any, record: dict[str, Any]) -> None:
    """`INVALID_PARAMETER_VALUE`, where MLflow's own store also fails."""
    for one in (own, store):
        dataset_id = one.create_dataset("d").dataset_id
        with pytest.raises(MlflowException) as caught:
            one.upsert_dataset_records(dataset_id, [{"inputs": {"good": 1}}, record])
        assert one._load_dataset_records(dataset_id) == ([], None)
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"


def test_records_are_deleted_as_by_mlflows_own_store(both: Both) -> None:
    """The profile counts what is left; unknown ids count for nothing."""
    mlflow_has("delete_dataset_records", "deletion of records")

    def delete(store: Any, dataset_id: str, count: int) -> int:
        records, _ = store._load_dataset_records(dataset_id, count)
        return int(
            store.delete_dataset_records(dataset_id, [record.dataset_record_id for record in records] + ["dr-x"])
        )

    both.make("d")
    both.after("d", lambda store, one: store.upsert_dataset_records(one, [{"inputs": {"same": 1}}]))
    both.after("d", lambda store, one: delete(store, one, 0))
    both.after("d", lambda store, one: delete(store, one, 5))
    both.after("d", lambda store, one: store.upsert_dataset_records(one, SECOND))
    assert both.same(lambda store: store.delete_dataset_records("d-unknown", ["dr-x"])) == 0


@pytest.mark.parametrize("size", [1, 7, 23, 24, None])
def test_pages_of_records_cover_all_once(store: Any, size: int | None) -> None:
    """In the order of their making; the token of the last page is None."""
    dataset_id = store.create_dataset("d").dataset_id
    for start in (0, 12):
        store.upsert_dataset_records(dataset_id, [{"inputs": {"i": start + n}} for n in range(12)])
        time.sleep(0.002)
    pages = all_pages(lambda token: store._load_dataset_records(dataset_id, size, token))
    assert [len(page) for page in pages[:-1]] == [size] * (len(pages) - 1)
    numbers = [record.inputs["i"] for page in pages for record in page]
    assert set(numbers[:12]) == set(range(12))
    assert sorted(numbers) == list(range(24))
    with refused("INVALID_PARAMETER_VALUE", "a damaged token"):
        store._load_dataset_records(dataset_id, 5, "garbage")


def test_tags_and_experiments_are_kept_as_by_mlflows_own_store(both: Both) -> None:
    """Set, merge and delete; add and remove, more than once."""
    extra = [both.same(lambda store, name=name: store.create_experiment(name)) for name in ("x", "y")]
    both.make("d", tags={"a": "1"}, experiment_ids=[extra[0]])
    both.after("d", lambda store, one: store.set_dataset_tags(one, {"b": 2, "none": None, "a": "new"}))
    both.after("d", lambda store, one: store.delete_dataset_tag(one, "b"))
    both.after("d", lambda store, one: store.delete_dataset_tag(one, "unknown"))
    both.after("d", lambda store, one: store.add_dataset_to_experiments(one, [extra[1], extra[0], 0]))
    both.after("d", lambda store, one: set(store.get_dataset_experiment_ids(one)))
    both.after("d", lambda store, one: store.add_dataset_to_experiments(one, ["99"]))
    both.after("d", lambda store, one: store.remove_dataset_from_experiments(one, [extra[0], "77"]))
    both.after("d", lambda store, one: set(store.get_dataset_experiment_ids(one)))


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.get_dataset("d-x"),
        lambda store: store.delete_dataset("d-x"),
        lambda store: store.set_dataset_tags("d-x", {"a": "1"}),
        lambda store: store.delete_dataset_tag("d-x", "a"),
        lambda store: store.get_dataset_experiment_ids("d-x"),
        lambda store: store.add_dataset_to_experiments("d-x", ["0"]),
        lambda store: store.remove_dataset_from_experiments("d-x", ["0"]),
        lambda store: store._load_dataset_records("d-x"),
    ],
)
def test_a_dataset_that_is_not_there(both: Both, call: Callable[[Any], Any]) -> None:
    """Every operation answers as MLflow's own store does."""
    both.same(call)


def test_records_need_a_dataset(store: Any) -> None:
    """The error names the dataset, and no record stays behind."""
    with refused("RESOURCE_DOES_NOT_EXIST", "records for an unknown dataset"):
        store.upsert_dataset_records("d-x", SECOND)
    assert store.docs.count(EVALUATION_RECORDS, {"match_all": {}}) == 0


def test_a_deleted_dataset_leaves_nothing(both: Both, store: Any) -> None:
    """Neither the dataset nor its records."""
    both.make("d")
    both.make("kept")
    for name in ("d", "kept"):
        both.after(name, lambda store, one: store.upsert_dataset_records(one, SECOND))
    both.same(lambda store: store.delete_dataset(both.ids[id(store), "d"]))
    assert both.after("d", lambda store, one: None) == "RESOURCE_DOES_NOT_EXIST"
    assert store.docs.count(EVALUATION_RECORDS, {"match_all": {}}) == len(SECOND)


def test_many_threads_write_the_same_records(store: Any) -> None:
    """Each of the inputs is one record with the tags of all writers, and is counted as inserted once."""
    dataset_id = store.create_dataset("d").dataset_id

    def work(number: int) -> Any:
        records = [{"inputs": {"i": i}, "tags": {f"t{number}": "x"}} for i in range(20)]
        return store.upsert_dataset_records(dataset_id, records)

    counts = together(8, work)
    assert all(isinstance(count, dict) for count in counts), counts
    assert sum(count["inserted"] for count in counts) == 20  # type: ignore[index, misc]
    records, _ = store._load_dataset_records(dataset_id)
    assert len(records) == 20
    assert all(set(record.tags) == {f"t{n}" for n in range(8)} for record in records)
    assert json.loads(store.get_dataset(dataset_id).profile) == {"num_records": 20}


FILTERS = [
    *("name = 'a'", "name != 'a'", "name LIKE 'b%'", "name ILIKE 'B%'", "name IN ('a', 'b')", "name > 'a'"),
    *(
        "created_by = 'ada'",
        "created_by != 'ada'",
        "last_updated_by LIKE 'a__'",
        "created_time > 5",
        "created_time = 5",
    ),
    *("created_time != 5", "last_update_time >= 1", "tags.x = '1'"),
    *("tags.x != '1'", "tags.x LIKE '%'", "tags.`k.a b` = 'v%_'", "name = 'a' AND tags.x = '1'", "name NOT IN ('a')"),
    *("created_time > 'x'", "tags.x > '1'", "colour = 'x'", "params.x = '1'", "name", ""),
    *("name = 'a' OR name = 'b'", "created_by IN ('a')", "created_time LIKE '5'"),
    *("name RLIKE 'b'", "created_by RLIKE '^a.a$'"),
]
ORDERS = [
    *(["name"], ["name DESC"], ["created_time ASC"], ["last_update_time DESC"], ["name ASC", "created_time DESC"]),
    *(["created_by"], ["tags.x"], ["colour"]),
]


@pytest.fixture
def filled(both: Both) -> Both:
    """Five datasets in both stores."""
    people = ({"mlflow.user": "ada", "x": "1"}, None, {"x": "2"}, {"mlflow.user": "bob", "k.a b": "v%_"}, {"x": "1"})
    for number, (name, tags) in enumerate(zip(("a", "B", "b", "größe 'q'", "a"), people, strict=True)):
        both.make(name if number < 4 else "a2", tags=tags, experiment_ids=["0"] if number % 2 else None)
        time.sleep(0.002)
    return both


def test_datasets_are_found_as_by_mlflows_own_store(filled: Both) -> None:
    """By filter, order and experiment, on pages of any size; errors have the same code."""

    def found(store: Any, size: int, **search: Any) -> Any:
        return [
            [one.name for one in page]
            for page in all_pages(lambda token: store.search_datasets(max_results=size, page_token=token, **search))
        ]

    for filter_string in FILTERS:
        filled.same(lambda store, text=filter_string: found(store, 2, filter_string=text))
    for order_by in ORDERS:
        filled.same(lambda store, order=order_by: found(store, 3, order_by=order))
    for experiments in (["0"], ["1"], ["0", "1"], [], None):
        filled.same(lambda store, ids=experiments: found(store, 1, experiment_ids=ids))
    for size in (0, -1, None, 50_000, 50_001):
        filled.same(lambda store, size=size: found(store, size))
    with refused("INVALID_PARAMETER_VALUE", "a time with a fraction, which newer MLflows refuse"):
        filled.stores[1].search_datasets(filter_string="created_time > 5.5")
    assert filled.same(lambda store: store.search_datasets(page_token="garbage")) == "INVALID_PARAMETER_VALUE"
