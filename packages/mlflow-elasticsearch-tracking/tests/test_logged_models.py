"""Logged models and their metrics, beside MLflow's own store."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from mlflow.entities import LoggedModelParameter, LoggedModelStatus, LoggedModelTag, Metric
from mlflow.exceptions import MlflowException
from recorded import requests_of

from mlflow_elasticsearch_tracking import model_metrics
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS, MODEL_METRICS
from mlflow_plugkit.compat import supported_kwargs
from mlflow_plugkit_testing.stores import refused, together

ODD = ["a.b", "..", " ", "", "a..b", "*", "größe\n", ".", "a", "a.c.d", "\x01", "it's", "x" * 255, "%", "\\"]
Shown = Callable[[Any], Any]


def new_model(store: Any, experiment: str = "0", **kwargs: Any) -> str:
    """The id of a new logged model."""
    return str(store.create_logged_model(experiment, **kwargs).model_id)


def new_run(store: Any, experiment: str = "0") -> str:
    """The id of a new run."""
    return str(store.create_run(experiment, "ada", 1, [], "run").info.run_id)


def log(store: Any, run_id: str, model_id: str, *points: tuple[Any, ...]) -> None:
    """Log (key, value, timestamp, step[, dataset name, dataset digest]) for a model."""
    metrics = [Metric(*point[:4], model_id, *point[4:], run_id=run_id) for point in points]
    store.log_batch(run_id, metrics, [], [])


def shown(store: Any, model_id: str) -> list[tuple[Any, ...]]:
    """The metrics of a model."""
    metrics = store.get_logged_model(model_id).metrics or []
    return [(m.key, m.value, m.timestamp, m.step, m.dataset_name, m.dataset_digest) for m in metrics]


def same(own: Any, store: Any, call: Callable[[Any], Any]) -> Any:
    """Make the same call to both stores, compare the answers or the codes of the errors, return ours."""
    answers = []
    for one in (own, store):
        try:
            answers.append(call(one))
        except MlflowException as exc:
            answers.append(exc.error_code)
    assert answers[0] == answers[1]
    return answers[1]


def test_a_model_is_made_changed_and_read_as_by_mlflows_own_store(own: Any, store: Any) -> None:
    """Every operation on one model gives the same model, or an error of the same code, in both stores."""
    tags = [LoggedModelTag(key, str(number)) for number, key in enumerate(ODD)]
    params = [LoggedModelParameter(key, str(number)) for number, key in enumerate(ODD)]
    ids = {id(one): new_model(one, name="m", tags=tags, params=params, model_type="agent") for one in (own, store)}
    reads_deleted = supported_kwargs(own.get_logged_model, {"allow_deleted": True})

    def after(call: Callable[[Any, str], Any]) -> None:
        def both(one: Any) -> Any:
            model_id = ids[id(one)]
            call(one, model_id)  # its error is the answer
            try:
                model = one.get_logged_model(model_id, **reads_deleted)
            except MlflowException as exc:
                return exc.error_code
            return model.name, model.model_type, str(model.status), model.tags, model.params, model.source_run_id

        same(own, store, both)

    after(lambda one, model: None)
    after(lambda one, model: one.finalize_logged_model(model, LoggedModelStatus.READY))
    after(lambda one, model: one.set_logged_model_tags(model, [LoggedModelTag("a", "1"), LoggedModelTag("a", "2")]))
    after(lambda one, model: one.delete_logged_model_tag(model, "a..b"))
    after(lambda one, model: one.delete_logged_model_tag(model, "a..b"))
    after(lambda one, model: one.log_logged_model_params(model, [LoggedModelParameter("new", "x")]))
    after(lambda one, model: one.log_logged_model_params(model, [LoggedModelParameter("new", "x")]))
    after(lambda one, model: one.log_logged_model_params(model, [LoggedModelParameter("none", None)]))
    after(lambda one, model: one.delete_logged_model(model))
    after(lambda one, model: one.get_logged_model(model))
    after(lambda one, model: one.set_logged_model_tags(model, [LoggedModelTag("late", "1")]))
    assert store.get_logged_model(ids[id(store)], allow_deleted=True).tags["late"] == "1"
    if hasattr(own, "_get_deleted_logged_models"):
        assert same(own, store, lambda one: one._get_deleted_logged_models() == [ids[id(one)]])
        assert same(own, store, lambda one: one._get_deleted_logged_models(older_than=60_000)) == []
        after(lambda one, model: one._hard_delete_logged_model(model))


@pytest.mark.parametrize("what", ["tags", "params"])
def test_a_key_that_is_given_twice_is_refused(own: Any, store: Any, what: str) -> None:
    """As MLflow's own store refuses it; nothing is made."""
    kind = {"tags": LoggedModelTag, "params": LoggedModelParameter}[what]
    code = same(own, store, lambda one: one.create_logged_model("0", **{what: [kind("k", "1"), kind("k", "2")]}))
    assert code == "BAD_REQUEST"
    assert not store.search_logged_models(["0"])


def test_points_are_kept_once_and_in_order(own: Any, store: Any) -> None:
    """The same point again changes nothing; another value at its place is refused, and nothing of its batch is kept."""
    ids = {id(one): (new_run(one), new_model(one)) for one in (own, store)}

    def after(*points: tuple[Any, ...]) -> Any:
        return same(own, store, lambda one: (log(one, *ids[id(one)], *points), shown(one, ids[id(one)][1])))

    after(("acc", 0.5, 1, 0), ("acc", 0.7, 2, 1, "data", "d1"), ("loss", 0.1, 2, 1))
    after(("acc", 0.5, 1, 0), ("acc", 0.6, 1, 5))
    assert after(("acc", 9.0, 1, 0), ("other", 1.0, 1, 1)) == "BAD_REQUEST"
    assert after(("x", 1.0, 7, 7), ("x", 2.0, 7, 7)) == "BAD_REQUEST"
    _, read = after(("acc", 0.8, 2**62, -(2**62)))
    assert [point[1] for point in read] == [0.5, 0.7, 0.1, 0.6, 0.8]


def test_no_value_is_changed(store: Any) -> None:
    """NaN and the infinities of a model are read back as they were logged, and searched for as those of runs are."""
    run_id, model_id = new_run(store), new_model(store, name="m")
    log(store, run_id, model_id, ("nan", math.nan, 1, 1), ("inf", math.inf, 1, 1), ("low", -math.inf, 1, 1))
    values = [point[1] for point in shown(store, model_id)]
    assert repr(values) == "[nan, inf, -inf]"
    found = {
        one: len(store.search_logged_models(["0"], f"metrics.{one}"))
        for one in ("nan > -1e308", "nan = 0", "nan != 0", "inf > 1e308", "low < -1e308", "inf != nan", "nan = nan")
    }
    assert found == {
        "nan > -1e308": 0, "nan = 0": 0, "nan != 0": 1, "inf > 1e308": 1, "low < -1e308": 1, "inf != nan": 1,
        "nan = nan": 0,
    }  # fmt: skip


def test_numbers_of_numpy_are_numbers(store: Any) -> None:
    """Values, timestamps and steps of numpy's types are kept, and integers that only a float can hold."""
    run_id, model_id = new_run(store), new_model(store)
    numbers = [Metric("a", np.float32(0.5), np.int64(3), np.int32(4), model_id), Metric("b", 2**70, 1, 1, model_id)]
    store._log_model_metrics(run_id, [*numbers, Metric("c", np.float64(0.1), 1, 1, model_id)])
    assert [point[:4] for point in shown(store, model_id)] == [
        ("a", 0.5, 3, 4),
        ("b", 2.0**70, 1, 1),
        ("c", 0.1, 1, 1),
    ]


HALF = "\ud800"
BAD_TEXT: dict[str, Callable[[Any, str], Any]] = {
    "a name": lambda store, model: store.create_logged_model("0", HALF),
    "a tag": lambda store, model: store.set_logged_model_tags(model, [LoggedModelTag("a", HALF)]),
    "a tag's key": lambda store, model: store.set_logged_model_tags(model, [LoggedModelTag(HALF, "a")]),
    "a param": lambda store, model: store.log_logged_model_params(model, [LoggedModelParameter("a", HALF)]),
    "an id": lambda store, model: store.get_logged_model(HALF),
    "a filter": lambda store, model: store.search_logged_models(["0"], f"name = '{HALF}'"),
    "a key in a filter": lambda store, model: store.search_logged_models(["0"], f"tags.`{HALF}` ILIKE '%{HALF}'"),
    "a metric": lambda store, model: store.search_logged_models(["0"], f"metrics.`{HALF}` > 1"),
    "an order": lambda store, model: store.search_logged_models(["0"], order_by=[{"field_name": f"metrics.{HALF}"}]),
    "a dataset": lambda store, model: store.search_logged_models(["0"], datasets=[{"dataset_name": HALF}]),
    "a dataset's name": lambda store, model: store.create_dataset(HALF),
    "a dataset's tag": lambda store, model: store.search_datasets(filter_string=f"tags.a LIKE '{HALF}%'"),
}


@pytest.mark.parametrize("what", BAD_TEXT)
def test_text_that_no_database_holds_is_refused_as_such(store: Any, what: str) -> None:
    """Half a surrogate pair is `INVALID_PARAMETER_VALUE` wherever it comes in."""
    model_id = new_model(store, name="m")
    store.create_dataset("d", {"a": "b"})
    with refused("INVALID_PARAMETER_VALUE", what):
        BAD_TEXT[what](store, model_id)


@pytest.mark.parametrize("model_id", ["", "a/b?x#", "_search", "x" * 600, "m-*", "../m"])
def test_odd_ids_name_nothing(store: Any, model_id: str) -> None:
    """Whatever is asked for, no other document or endpoint is reached."""
    new_model(store)
    with refused("RESOURCE_DOES_NOT_EXIST", f"the model {model_id!r}"):
        store.get_logged_model(model_id)


def test_a_point_of_an_unknown_model_is_refused(store: Any) -> None:
    """The error names the model, not a constraint of a database."""
    with refused("RESOURCE_DOES_NOT_EXIST", "a metric of an unknown model"):
        log(store, new_run(store), "m-" + "0" * 32, ("acc", 1.0, 1, 1))


def test_a_single_point_of_an_unknown_model_leaves_nothing_in_the_run(store: Any) -> None:
    """As in MLflow's own store, the model comes first."""
    run_id, metric = new_run(store), Metric("acc", 1.0, 1, 1, "m-" + "0" * 32)
    with refused("RESOURCE_DOES_NOT_EXIST", "a metric of an unknown model"):
        store.log_metric(run_id, metric)
    assert not store.get_run(run_id).data.metrics


@pytest.mark.parametrize("first", [0, 1])
def test_of_two_runs_that_log_at_once_the_lower_id_counts(store: Any, first: int) -> None:
    """The order by a metric takes the latest timestamp, then the highest step, then the lowest run id, as SQL's."""
    runs = sorted(new_run(store) for _ in range(2))
    torn, plain = new_model(store, name="torn"), new_model(store, name="plain")
    points = [(runs[0], 1.0), (runs[1], 9.0)]
    for run_id, value in (points[first], points[1 - first]):
        log(store, run_id, torn, ("acc", value, 5, 5), ("acc", 7.0, 4, 9))
    log(store, runs[0], plain, ("acc", 5.0, 1, 1))
    found = store.search_logged_models(["0"], order_by=[{"field_name": "metrics.acc"}])
    assert [model.name for model in found] == ["torn", "plain"]


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a model's document hold ten points."""
    monkeypatch.setattr(model_metrics, "MOST_POINTS", 10)


@pytest.mark.usefixtures("small_blocks")
def test_old_points_move_to_blocks_and_stay_what_they_were(store: Any) -> None:
    """All points are read in order, found by value, refused in another version; reading needs two requests."""
    run_id, model_id = new_run(store), new_model(store, name="m")
    for start in range(0, 45, 5):
        log(store, run_id, model_id, *(("acc", float(step), 1_000 + step, step) for step in range(start, start + 5)))
    source = store.docs.get(LOGGED_MODELS, model_id).source
    assert len(source["blocks"]) == 3
    assert len(source["m"]) == 0 or len(source["m"]) <= 10
    with requests_of(store) as requests:
        read = shown(store, model_id)
    assert [point[1] for point in read] == [float(step) for step in range(45)]
    assert len(requests) == 2
    log(store, run_id, model_id, ("acc", 3.0, 1_003, 3))
    with refused("BAD_REQUEST", "another value of an old point"):
        log(store, run_id, model_id, ("acc", 4.0, 1_003, 3))
    assert len(shown(store, model_id)) == 45
    for clause, found in (("= 3", 1), ("= 3.5", 0), ("< 1", 1), ("> 44", 0), ("!= 3", 1), (">= 44", 1)):
        assert len(store.search_logged_models(["0"], f"metrics.acc {clause}")) == found, clause
    [searched] = store.search_logged_models(["0"])
    assert [metric.value for metric in searched.metrics] == [point[1] for point in read]


@pytest.mark.usefixtures("small_blocks")
def test_many_threads_log_for_one_model(store: Any) -> None:
    """No point of eight threads is lost or doubled, though the document is moved to blocks under their hands."""
    run_id, model_id = new_run(store), new_model(store)

    def work(number: int) -> None:
        for step in range(10):
            log(store, run_id, model_id, (f"k{number}", float(step), step, step))

    assert together(8, work) == [None] * 8
    points = [(point[0], point[3]) for point in shown(store, model_id)]
    assert sorted(points) == [(f"k{number}", step) for number in range(8) for step in range(10)]


@pytest.mark.usefixtures("small_blocks")
def test_what_is_deleted_for_good_leaves_nothing(store: Any) -> None:
    """A run takes the points that it logged with it, a model its blocks, an experiment its models."""
    experiment = store.create_experiment("short-lived")
    kept, gone = new_run(store, experiment), new_run(store, experiment)
    model_id = new_model(store, experiment)
    for run_id in (kept, gone):
        log(store, run_id, model_id, *(("acc", float(step), step, step) for step in range(25)))
    store.delete_run(gone)
    store._hard_delete_run(gone)
    assert {metric.run_id for metric in store.get_logged_model(model_id).metrics} == {kept}
    assert len(shown(store, model_id)) == 25
    store.delete_experiment(experiment)
    store._hard_delete_experiment(experiment)
    for index in (LOGGED_MODELS, MODEL_METRICS):
        assert store.docs.count(index, {"match_all": {}}) == 0
