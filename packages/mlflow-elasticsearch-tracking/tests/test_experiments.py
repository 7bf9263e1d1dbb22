"""Experiments: names and numbers without transactions, and what happens to their runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest import mock

import pytest
from mlflow.entities import ExperimentTag, Metric, Param, TraceInfo, TraceLocation, TraceState, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import MAX_EXPERIMENT_TAG_VAL_LENGTH
from recorded import around_requests

from mlflow_elasticsearch_tracking.indices import EXPERIMENTS, RUNS
from mlflow_elasticsearch_tracking.indices_genai import SCORERS
from mlflow_elasticsearch_tracking.indices_models import LOGGED_MODELS
from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_plugkit_elasticsearch import Documents
from mlflow_plugkit_elasticsearch import names as unique_names


@pytest.fixture
def stranger(new_store: Callable[..., Any], store: Any) -> Any:
    """A store on the same prefix that knows nothing of what the first one wrote: another process."""
    other = new_store(store.uri)
    other.docs = Documents(store.settings)
    return other


def refused(code: str, call: Callable[[], object]) -> None:
    with pytest.raises(MlflowException) as caught:
        call()
    assert caught.value.error_code == code


def test_ids_are_numbers_that_never_come_back(store: Any, stranger: Any) -> None:
    """Two processes count on from each other; the number of an experiment deleted for good is not given again."""
    first, second = store.create_experiment("a"), stranger.create_experiment("b")
    assert (first, second) == ("1", "2")
    store.delete_experiment(second)
    store._hard_delete_experiment(second)
    assert stranger.create_experiment("c") == "3"


def test_a_name_whose_experiment_never_came_to_be_is_free_after_a_while(store: Any) -> None:
    """The process died between the claim of the name and the experiment: the next one takes the claim over."""
    store.get_experiment("0")

    def dies(request: Any, method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        if method == "PUT" and store.docs.schema.alias(EXPERIMENTS) in path:
            raise KeyboardInterrupt
        return request(method, path, *args, **kwargs)

    with around_requests(store, dies), pytest.raises(KeyboardInterrupt):
        store.create_experiment("orphan")
    assert store.get_experiment_by_name("orphan") is None
    refused("RESOURCE_ALREADY_EXISTS", lambda: store.create_experiment("orphan"))
    with mock.patch.object(unique_names, "ABANDONED_AFTER", -1.0):
        made = store.create_experiment("orphan")
    assert store.get_experiment_by_name("orphan").experiment_id == made


def test_a_rename_that_stopped_half_way_can_be_repeated(store: Any) -> None:
    """The new name was claimed and the process died: the experiment keeps its old name, and the rename works later."""
    made = store.create_experiment("old")
    with (
        mock.patch.object(store, "_change_experiment", side_effect=KeyboardInterrupt),
        pytest.raises(KeyboardInterrupt),
    ):
        store.rename_experiment(made, "new")
    assert store.get_experiment_by_name("old").experiment_id == made
    assert store.get_experiment_by_name("new") is None
    store.rename_experiment(made, "new")
    assert store.get_experiment_by_name("new").experiment_id == made
    assert store.create_experiment("old") != made


def test_a_taken_name_is_refused_for_a_rename(store: Any) -> None:
    """And the experiment keeps its own."""
    made, other = store.create_experiment("a"), store.create_experiment("b")
    refused("RESOURCE_ALREADY_EXISTS", lambda: store.rename_experiment(made, "b"))
    store.rename_experiment(made, "a")
    assert [store.get_experiment(each).name for each in (made, other)] == ["a", "b"]


def test_an_id_that_is_no_number_is_refused(store: Any) -> None:
    """MLflow's own store says the same."""
    refused("INVALID_PARAMETER_VALUE", lambda: store.get_experiment("no number"))
    assert store.get_experiment("00").experiment_id == "0"
    assert store.get_experiment("").experiment_id == "0"


def test_runs_go_with_their_experiment(store: Any, stranger: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs that another process has just made, and more than one request takes, are deleted and restored with it."""
    monkeypatch.setattr("mlflow_elasticsearch_tracking.runs._MOVED_AT_ONCE", 4)
    made = store.create_experiment("x")
    runs = [(store, stranger)[n % 2].create_run(made, "ada", n, [], f"r{n}").info.run_id for n in range(11)]
    kept = store.create_run("0", "ada", 1, [], "kept").info.run_id
    store.log_metric(runs[0], Metric("m", 1.0, 1, 1))
    stranger.delete_experiment(made)
    assert {store.get_run(run_id).info.lifecycle_stage for run_id in runs} == {"deleted"}
    assert store.get_run(kept).info.lifecycle_stage == "active"
    assert sorted(store._get_deleted_runs()) == sorted(runs)
    refused("INVALID_PARAMETER_VALUE", lambda: store.log_metric(runs[0], Metric("m", 2.0, 2, 2)))
    store.restore_experiment(made)
    assert {stranger.get_run(run_id).info.lifecycle_stage for run_id in runs} == {"active"}
    assert store.get_run(runs[0]).data.metrics == {"m": 1.0}
    assert store._get_deleted_runs() == []


def test_an_experiment_is_deleted_for_good_with_all_that_it_holds(store: Any) -> None:
    """Nothing of it stays, its name is free, and an active one is not deleted."""
    made = store.create_experiment("x", tags=[ExperimentTag("k", "v")])
    run_id = store.create_run(made, "ada", 1, [], "r").info.run_id
    model_id = store.create_logged_model(made, "m").model_id
    location = TraceLocation.from_experiment_id(made)
    store.start_trace(TraceInfo(f"tr-{run_id}", location, 1, TraceState.OK))
    store.register_scorer(made, "s", "{}")
    refused("RESOURCE_DOES_NOT_EXIST", lambda: store._hard_delete_experiment(made))
    store.delete_experiment(made)
    store._hard_delete_experiment(made)
    refused("RESOURCE_DOES_NOT_EXIST", lambda: store.get_experiment(made))
    refused("RESOURCE_DOES_NOT_EXIST", lambda: store.get_run(run_id))
    assert store.docs.get(RUNS, run_id) is None
    refused("RESOURCE_DOES_NOT_EXIST", lambda: store.get_logged_model(model_id))
    refused("RESOURCE_DOES_NOT_EXIST", lambda: store.get_trace_info(f"tr-{run_id}"))
    for index in (LOGGED_MODELS, TRACES, SCORERS):
        assert store.docs.count(index, {"match_all": {}}) == 0
    assert store.create_experiment("x") != made


def test_the_default_experiment_comes_back_where_it_was_deleted_for_good(store: Any, new_store: Any) -> None:
    """As MLflow's own store makes it again when it starts."""
    store.delete_experiment("0")
    store._hard_delete_experiment("0")
    assert new_store(store.uri).get_experiment("0").name == "Default"


def test_long_tags_are_kept_and_found(store: Any, own: Any) -> None:
    """A tag of 20,000 characters of four bytes (5,000 in older MLflows) is beyond what a term of the index holds."""
    text = "𝄞" * MAX_EXPERIMENT_TAG_VAL_LENGTH
    for each in (store, own):
        made = each.create_experiment("long", tags=[ExperimentTag("k" * 250, text)])
        each.set_experiment_tag(made, ExperimentTag("größer / b", text[:-1]))
        assert each.get_experiment(made).tags == {"k" * 250: text, "größer / b": text[:-1]}
        found = each.search_experiments(ViewType.ALL, 10, f"tags.`größer / b` = '{text[:-1]}'")
        assert [one.experiment_id for one in found] == [made]


@pytest.mark.parametrize("which", ["ours", "own"])
def test_tags_are_set_and_deleted_as_in_mlflows_own_store(store: Any, own: Any, which: str) -> None:
    """Errors included."""
    each = store if which == "ours" else own
    made = each.create_experiment("x")

    def tag(key: str, value: str) -> None:
        each.set_experiment_tag(made, ExperimentTag(key, value))

    tag("a", "1")
    tag("a", "2")
    assert each.get_experiment(made).tags == {"a": "2"}
    refused("INVALID_PARAMETER_VALUE", lambda: tag("b", "x" * (MAX_EXPERIMENT_TAG_VAL_LENGTH + 1)))
    each.delete_experiment(made)
    refused("INVALID_PARAMETER_VALUE", lambda: tag("a", "3"))
    each.restore_experiment(made)
    if not hasattr(own, "delete_experiment_tag"):
        pytest.skip("this MLflow deletes no tags of experiments")
    each.delete_experiment_tag(made, "a")
    refused("RESOURCE_DOES_NOT_EXIST", lambda: each.delete_experiment_tag(made, "a"))
    assert each.get_experiment(made).tags == {}


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_id_is_not_taken_for_the_default_experiment_by_what_changes_something(store: Any, empty: Any) -> None:
    """`get_experiment` alone reads it so, as MLflow's SQL store does."""
    assert store.get_experiment("").experiment_id == "0"
    for call in (
        lambda: store.delete_experiment(empty),
        lambda: store.create_run(empty, "ada", 1, [], "r"),
        lambda: store.set_experiment_tag(empty, ExperimentTag("a", "1")),
        lambda: store.delete_experiment_tag(empty, "a"),
    ):
        refused("INVALID_PARAMETER_VALUE", call)
    assert store.get_experiment("0").lifecycle_stage == "active"
    assert not store.search_runs(["0"], None, ViewType.ALL, 10)


def test_bad_arguments_change_nothing_and_have_a_code(store: Any) -> None:
    for user, start in ((None, 0), ("ada", None)):
        refused("INVALID_PARAMETER_VALUE", lambda user=user, start=start: store.create_run("0", user, start, [], "x"))
    assert not store.search_runs(["0"], None, ViewType.ALL, 10)
    run_id = store.create_run("0", "ada", 1, [], "r").info.run_id
    refused("BAD_REQUEST", lambda: store.log_param(run_id, Param("p", None)))
    store.log_param(run_id, Param("p", "v"))
    tags = [ExperimentTag("a", "1"), ExperimentTag("a", "2")]
    refused("BAD_REQUEST", lambda: store.create_experiment("twice", tags=tags))
    assert store.get_experiment_by_name("twice") is None
    assert store.get_experiment_by_name(None) is None
    for wrong in ("--5", "+-5", "9" * 5_000):
        refused("INVALID_PARAMETER_VALUE", lambda wrong=wrong: store.search_runs([wrong], None, ViewType.ALL, 5))
    for condition in ("run_id IN (x)", "run_id = (x)"):
        refused("INVALID_PARAMETER_VALUE", lambda condition=condition: store.search_runs(["0"], condition, 1, 5))
    assert not store.search_runs(["0"], None, 0, 5)
    assert not store.search_experiments(view_type=0)
    for most, words in ((0, "supplied. It must be a positive integer"), (50_001, "supplied. It must be at most 50000")):
        with pytest.raises(MlflowException, match=words):
            store.search_runs(["0"], None, ViewType.ALL, most)
