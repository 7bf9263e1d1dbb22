"""Inputs and outputs of runs, beside MLflow's own store."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, LoggedModelInput, LoggedModelOutput, ViewType
from mlflow.exceptions import MlflowException
from recorded import requests_of

from mlflow_plugkit_testing.stores import refused, together


def dataset(name: str = "data", digest: str = "d1", source: str = "{}", **tags: str) -> DatasetInput:
    """A dataset with input tags."""
    return DatasetInput(
        Dataset(name, digest, "local", source, "schema", "profile"), [InputTag(*tag) for tag in tags.items()]
    )


def in_context(context: str, name: str = "data", digest: str = "d1") -> DatasetInput:
    """A dataset that is used for something."""
    return dataset(name, digest, **{"mlflow.data.context": context})


def new_run(store: Any, experiment: str = "0") -> str:
    """The id of a new run."""
    return str(store.create_run(experiment, "ada", 1, [], "run").info.run_id)


def linked(store: Any, run_id: str) -> Any:
    """The inputs and outputs of a run; models by their ids, since SQL promises no order of them."""
    run = store.get_run(run_id)
    datasets = [
        (one.dataset.to_dictionary(), {tag.key: tag.value for tag in one.tags}) for one in run.inputs.dataset_inputs
    ]
    models = sorted(model.model_id for model in run.inputs.model_inputs)
    return datasets, models, sorted((model.model_id, model.step) for model in run.outputs.model_outputs)


@pytest.fixture
def both(own: Any, store: Any) -> Callable[[Callable[[Any, list[str]], Any]], Any]:
    """Make the same call to both stores, each with the ids of two runs of its own; compare the answers."""
    runs = {id(one): [new_run(one), new_run(one)] for one in (own, store)}

    def call(function: Callable[[Any, list[str]], Any]) -> Any:
        answers = []
        for one in (own, store):
            try:
                result = function(one, runs[id(one)])
            except MlflowException as exc:
                result = exc.error_code
            answers.append((result, [linked(one, run_id) for run_id in runs[id(one)]]))
        assert answers[0] == answers[1]
        return answers[1][0]

    return call


def test_inputs_are_linked_as_by_mlflows_own_store(both: Any) -> None:
    """Each dataset once a run with its first tags, and with the content that its experiment knew first."""
    both(lambda store, runs: store.log_inputs(runs[0], [dataset(a="1", b="2"), dataset("größe 'x'")]))
    both(lambda store, runs: store.log_inputs(runs[0], [dataset(a="9"), dataset("new"), dataset("new", c="3")]))
    both(lambda store, runs: store.log_inputs(runs[1], [dataset(source="another"), dataset("data", "d2")]))
    both(lambda store, runs: store.log_inputs(runs[1], models=[LoggedModelInput("m-1"), LoggedModelInput("m-2")]))
    both(lambda store, runs: store.log_inputs(runs[1], [dataset("x")], [LoggedModelInput("m-1")]))
    both(lambda store, runs: store.log_inputs(runs[0]))
    both(lambda store, runs: store.log_inputs(runs[0], [], []))


def test_outputs_are_linked_as_by_mlflows_own_store(both: Any) -> None:
    """A model is an output of a run once."""
    both(lambda store, runs: store.log_outputs(runs[0], [LoggedModelOutput("m-2", 2**40), LoggedModelOutput("m-1", 0)]))
    assert both(lambda store, runs: store.log_outputs(runs[0], [LoggedModelOutput("m-2", 7)])) == "BAD_REQUEST"
    both(lambda store, runs: store.log_outputs(runs[1], [LoggedModelOutput("m-2", 7)]))


def test_models_are_read_in_the_order_of_their_logging(store: Any) -> None:
    """Inputs and outputs alike."""
    run_id, ids = new_run(store), ["m-2", "m-3", "m-1"]
    store.log_inputs(run_id, models=[LoggedModelInput(one) for one in ids])
    store.log_outputs(run_id, [LoggedModelOutput(one, 0) for one in ids])
    run = store.get_run(run_id)
    assert [model.model_id for model in run.inputs.model_inputs] == ids
    assert [model.model_id for model in run.outputs.model_outputs] == ids


def test_bad_inputs_are_refused_as_by_mlflows_own_store(both: Any) -> None:
    """Whatever is too long, missing or given twice; nothing of it is kept."""
    bad = [
        [dataset(name="x" * 501)],
        [dataset(digest="x" * 37)],
        [dataset(source="x" * 65_536)],
        [dataset(a="x" * 501)],
        [DatasetInput(Dataset("n", "d", "t", None), [])],
        [DatasetInput(None, [])],
    ]
    codes = [both(lambda store, runs, one=one: store.log_inputs(runs[0], one)) for one in bad]
    assert codes == ["INVALID_PARAMETER_VALUE"] * len(bad)
    twice = DatasetInput(dataset().dataset, [InputTag("a", "1"), InputTag("a", "2")])
    assert both(lambda store, runs: store.log_inputs(runs[0], [twice])) == "BAD_REQUEST"
    assert both(lambda store, runs: store.log_inputs("not-there", [dataset()])) == "RESOURCE_DOES_NOT_EXIST"
    assert both(lambda store, runs: store.log_outputs("not-there", [])) == "RESOURCE_DOES_NOT_EXIST"
    assert both(lambda store, runs: store.log_inputs("bad/id", [dataset()])) == "INVALID_PARAMETER_VALUE"


def test_a_list_is_wanted(own: Any, store: Any) -> None:
    """Anything but a list of datasets is a TypeError."""
    for one in (own, store):
        with pytest.raises(TypeError, match="should be a list"):
            one.log_inputs(new_run(one), dataset())


def test_a_deleted_run_takes_no_inputs(both: Any) -> None:
    """Neither inputs nor outputs."""
    both(lambda store, runs: store.delete_run(runs[0]))
    for call in (
        lambda store, runs: store.log_inputs(runs[0], [dataset()]),
        lambda store, runs: store.log_outputs(runs[0], [LoggedModelOutput("m-1", 0)]),
    ):
        assert both(call) == "INVALID_PARAMETER_VALUE"


def test_datasets_are_summarized_by_context(own: Any, store: Any) -> None:
    """Each name, digest and context of an experiment once, also after its run is gone; other experiments stay out."""

    def summaries(one: Any) -> list[tuple[Any, ...]]:
        first, second = one.create_experiment("first"), one.create_experiment("second")
        runs = [new_run(one, experiment) for experiment in (first, first, first, second)]
        one.log_inputs(runs[0], [in_context("train"), dataset("plain"), in_context("train", "data", "d2")])
        one.log_inputs(runs[1], [in_context("eval"), dataset("plain")])
        one.log_inputs(runs[2], [in_context("train")])
        one.log_inputs(runs[3], [in_context("other", "elsewhere")])
        one.delete_run(runs[1])
        one._hard_delete_run(runs[1])
        found = one._search_datasets([first])
        assert not one._search_datasets([])
        assert len(one._search_datasets([first, second])) == len(found) + 1
        return sorted((s.experiment_id, s.name, s.digest, s.context or "") for s in found)

    assert summaries(own) == summaries(store)
    with refused("INVALID_PARAMETER_VALUE", "an experiment id that is no number"):
        store._search_datasets(["x"])


def test_an_experiment_takes_its_datasets_with_it(store: Any) -> None:
    """What `mlflow gc` deletes leaves no dataset."""
    experiment = store.create_experiment("short-lived")
    store.log_inputs(new_run(store, experiment), [dataset()])
    store.delete_experiment(experiment)
    store._hard_delete_experiment(experiment)
    assert not store._search_datasets([experiment])


def test_large_profiles_do_not_burden_the_run(store: Any) -> None:
    """Runs share their datasets' content: a change of a run does not send it again, and it is read back whole."""
    from mlflow_elasticsearch_tracking.indices import RUNS

    run_id, profile = new_run(store), '{"x": "' + "p" * 2_000_000 + '"}'
    store.log_inputs(run_id, [DatasetInput(Dataset("big", "d", "local", "{}", "{}", profile), [])])
    assert len(repr(store.docs.get(RUNS, run_id).source)) < 10_000
    assert store.get_run(run_id).inputs.dataset_inputs[0].dataset.profile == profile


def test_a_page_of_runs_asks_for_its_datasets_once(store: Any) -> None:
    """One request for the datasets of all runs of a page, and none for those that this process has read before."""
    for number in range(6):
        store.log_inputs(new_run(store), [dataset(f"data {number % 3}")])
    store.search_runs(["0"], "", ViewType.ALL)  # refreshes
    store._datasets = type(store._datasets)()
    for wanted in (["_search", "_mget"], ["_search"]):
        with requests_of(store) as requests:
            runs = store.search_runs(["0"], "", ViewType.ALL)
        assert [request.rpartition("/")[2] for request in requests] == wanted
        assert [len(run.inputs.dataset_inputs) for run in runs] == [1] * 6


def test_runs_are_found_by_their_datasets(own: Any, store: Any) -> None:
    """By name, digest and context, as MLflow's own store finds them."""
    for one in (own, store):
        for number, inputs in enumerate([[in_context("train"), dataset("x", "d9")], [in_context("eval")], [dataset()]]):
            run_id = one.create_run("0", "ada", number, [], f"run {number}").info.run_id
            one.log_inputs(run_id, inputs)
    for clause in ("name = 'x'", "name != 'x'", "digest LIKE 'd%'", "context = 'train'", "context != 'train'"):
        found = [
            sorted(run.info.run_name for run in one.search_runs(["0"], f"dataset.{clause}", ViewType.ALL))
            for one in (own, store)
        ]
        assert found[0] == found[1] != [], clause


def test_many_threads_link_to_one_run(store: Any) -> None:
    """Sixteen threads log the same dataset, a dataset each, and a model each: all of them are there, none twice."""
    run_id = new_run(store)

    def work(number: int) -> None:
        store.log_inputs(
            run_id, [in_context(f"c{number % 4}"), dataset(f"own {number}")], [LoggedModelInput(f"m-{number}")]
        )
        store.log_outputs(run_id, [LoggedModelOutput(f"o-{number}", number)])

    assert together(16, work) == [None] * 16
    datasets, models, outputs = linked(store, run_id)
    assert sorted(one[0]["name"] for one in datasets) == sorted(["data", *(f"own {n}" for n in range(16))])
    assert len(set(models)) == len(models) == len(set(outputs)) == len(outputs) == 16
    contexts = {one.context for one in store._search_datasets(["0"]) if one.name == "data"}
    assert contexts <= {f"c{n}" for n in range(4)}
    assert contexts
