"""Registered models and their versions: renaming, numbering, deleting, also where a process dies in between."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from mlflow_elasticsearch_registry import base
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS
from mlflow_plugkit_elasticsearch import Documents, names
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL
from mlflow_plugkit_testing.stores import refused, together

CREATE = """
import sys
from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

store = ElasticsearchRegistryStore(sys.argv[1])
print(*(store.create_model_version("m", "s3://b/m").version for _ in range(int(sys.argv[2]))))
"""


class Died(BaseException):
    """The process ended here."""


def dying(monkeypatch: pytest.MonkeyPatch, store: Any, at: int) -> Callable[[], int]:
    """Let the process of this store end before its write number `at`, counted from 1; how many there were."""
    writes = 0
    request = store.docs.cluster.request

    def counted(method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        nonlocal writes
        if method in ("PUT", "DELETE") or path.endswith("/_bulk"):
            writes += 1
            if writes == at:
                raise Died
        return request(method, path, *args, **kwargs)

    monkeypatch.setattr(store.docs.cluster, "request", counted)
    return lambda: writes


def later(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let so much time pass that what a process left unfinished counts as abandoned."""
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + names.ABANDONED_AFTER + 5)


def prepared(store: Any) -> None:
    """A model with two versions, a tag and an alias."""
    store.create_registered_model("old", [RegisteredModelTag("k", "v")])
    for _ in range(2):
        store.create_model_version("old", "s3://b/m", tags=[ModelVersionTag("k", "v")])
    store.set_registered_model_alias("old", "best", 2)


def shown(store: Any, name: str) -> Any:
    model = store.get_registered_model(name)
    versions = store.search_model_versions(f"name = '{name}'", order_by=["version_number ASC"])
    return model.tags, model.aliases, [(v.name, v.version) for v in versions]


def test_versions_tags_and_aliases_follow_a_new_name(store: Any) -> None:
    """Under the new name everything is found, also by searches; under the old one nothing."""
    prepared(store)
    store.rename_registered_model("old", "new")
    assert shown(store, "new") == ({"k": "v"}, {"best": 2}, [("new", 1), ("new", 2)])
    assert store.get_model_version_by_alias("new", "best").name == "new"
    assert list(store.search_model_versions("name = 'old'")) == []
    with refused("RESOURCE_DOES_NOT_EXIST", "get_registered_model by the old name"):
        store.get_registered_model("old")
    store.create_registered_model("old")
    assert store.create_model_version("new", "s3://b/m").version == 3


def test_another_process_notices_a_renaming(store: Any, new_store: Callable[..., Any]) -> None:
    """A store that remembers the id behind a name asks anew once the name has gone to another model."""
    prepared(store)
    other = new_store(store.uri)
    assert other.get_registered_model("old").aliases == {"best": 2}
    store.rename_registered_model("old", "new")
    store.create_registered_model("old", [RegisteredModelTag("k", "second")])
    assert other.get_registered_model("old").tags == {"k": "second"}
    other.set_registered_model_tag("old", RegisteredModelTag("k", "third"))
    assert store.get_registered_model("old").tags == {"k": "third"}
    with refused("RESOURCE_DOES_NOT_EXIST", "a version of the model that now has the name"):
        other.get_model_version("old", 1)
    assert other.get_model_version("new", 1).name == "new"


def test_a_model_may_be_renamed_to_its_own_name_and_back(store: Any) -> None:
    """As in MLflow's own store; the claims of the names stay right."""
    prepared(store)
    for name, new in (("old", "old"), ("old", "new"), ("new", "old"), ("old", "new")):
        store.rename_registered_model(name, new)
    assert shown(store, "new")[2] == [("new", 1), ("new", 2)]
    store.create_registered_model("old")
    with refused("RESOURCE_ALREADY_EXISTS", "a name that is taken"):
        store.rename_registered_model("old", "new")


@pytest.mark.parametrize("at", range(1, 6))
def test_a_renaming_that_was_cut_off_is_finished_by_whoever_comes_next(
    store: Any, new_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """After a death before any of its writes, the model has one of the two names, and soon all of it."""
    prepared(store)
    with monkeypatch.context() as patch:
        writes = dying(patch, store, at)
        with pytest.raises(Died):
            store.rename_registered_model("old", "new")
        assert writes() == at
    later(monkeypatch)
    survivor = new_store(store.uri)
    name = "new" if at > 2 else "old"
    survivor.get_registered_model(name)
    assert shown(survivor, name) == ({"k": "v"}, {"best": 2}, [(name, 1), (name, 2)])
    free = "old" if name == "new" else "new"
    survivor.create_registered_model(free)
    assert shown(survivor, free) == ({}, {}, [])


@pytest.mark.parametrize("at", range(1, 6))
def test_a_deletion_that_was_cut_off_leaves_no_half_model(
    store: Any, new_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """After a death before any of its writes the model is there, or it is gone and its name is free."""
    prepared(store)
    with monkeypatch.context() as patch:
        dying(patch, store, at)
        if at <= 4:
            with pytest.raises(Died):
                store.delete_registered_model("old")
        else:
            store.delete_registered_model("old")
    survivor = new_store(store.uri)
    if at == 1:
        assert shown(survivor, "old")[1] == {"best": 2}
        survivor.delete_registered_model("old")
    with refused("RESOURCE_DOES_NOT_EXIST", "get_model_version of a deleted model"):
        survivor.get_model_version("old", 1)
    assert list(survivor.search_registered_models()) == []
    survivor.create_registered_model("old")
    assert survivor.create_model_version("old", "s3://b/m").version == 1
    assert [v.version for v in survivor.search_model_versions()] == [1]


@pytest.mark.parametrize("at", [1, 2])
def test_a_creation_that_was_cut_off_leaves_the_name_free(
    store: Any, new_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """A claimed name whose model never came is taken over half a minute later."""
    store.create_registered_model("other")
    with monkeypatch.context() as patch:
        dying(patch, store, at)
        with pytest.raises(Died):
            store.create_registered_model("m")
    later(monkeypatch)
    assert new_store(store.uri).create_registered_model("m").name == "m"


def test_a_version_whose_model_was_not_told_is_counted_and_shown(
    store: Any, new_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a death between the two writes of a new version, the next one gets the number behind it."""
    store.create_registered_model("m")
    store.create_model_version("m", "s3://b/1")
    with monkeypatch.context() as patch:
        dying(patch, store, 2)
        with pytest.raises(Died):
            store.create_model_version("m", "s3://b/2")
    survivor = new_store(store.uri)
    assert survivor.create_model_version("m", "s3://b/3").version == 3
    assert sorted(v.version for v in survivor.search_model_versions("name = 'm'")) == [1, 2, 3]
    assert survivor.get_latest_versions("m")[0].version == 3


def test_a_stage_that_the_model_was_not_told_is_found_on_reading(
    store: Any, new_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a death in the middle of a transition, the latest versions are those that the versions themselves say."""
    prepared(store)
    with monkeypatch.context() as patch:
        dying(patch, store, 2)
        with pytest.raises(Died):
            store.transition_model_version_stage("old", 2, "Production", False)
    survivor = new_store(store.uri)
    latest = {v.current_stage: v.version for v in survivor.get_registered_model("old").latest_versions}
    assert latest == {"None": 1, "Production": 2}


def test_an_alias_of_a_version_whose_deletion_was_cut_off_is_gone(
    store: Any, new_store: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a death between the version and the model, no alias leads to the deleted version."""
    prepared(store)
    store.set_registered_model_alias("old", "first", 1)
    with monkeypatch.context() as patch:
        dying(patch, store, 2)
        with pytest.raises(Died):
            store.delete_model_version("old", 1)
    survivor = new_store(store.uri)
    with refused("INVALID_PARAMETER_VALUE", "an alias of a deleted version"):
        survivor.get_model_version_by_alias("old", "first")
    assert survivor.get_registered_model("old").aliases == {"best": 2}


def test_processes_and_threads_share_the_numbers(store: Any) -> None:
    """Three processes and four threads create versions at once: no number is missing and none is there twice."""
    store.create_registered_model("m")
    started = [
        subprocess.Popen([sys.executable, "-c", CREATE, store.uri, "6"], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    made = together(4, lambda _: [store.create_model_version("m", "s3://b/m").version for _ in range(6)])
    numbers = [number for some in made for number in some]  # type: ignore[union-attr]
    for process in started:
        numbers += map(int, process.communicate(timeout=120)[0].split())
    assert sorted(numbers) == list(range(1, 43))
    model = store.get_registered_model("m")
    assert [v.version for v in model.latest_versions] == [42]


def test_versions_that_are_made_while_a_model_is_renamed_or_deleted_follow(store: Any) -> None:
    """Whatever comes first, in the end no version is under an old name or without a model."""
    for round_ in range(4):
        store.create_registered_model("m")

        def act(number: int, round_: int = round_) -> Any:
            if number:
                return store.create_model_version("m", "s3://b/m").version
            return store.rename_registered_model("m", "n") if round_ % 2 else store.delete_registered_model("m")

        results = together(6, act)[1:]
        errors = [r for r in results if isinstance(r, BaseException)]
        assert {getattr(e, "error_code", repr(e)) for e in errors} <= {"RESOURCE_DOES_NOT_EXIST"}
        made = [r for r in results if isinstance(r, int)]
        versions = [(v.name, v.version) for v in store.search_model_versions()]
        if round_ % 2:
            assert sorted(versions) == [("n", number) for number in sorted(made)]
            store.delete_registered_model("n")
        else:
            assert versions == []


def test_sixteen_threads_change_one_model_at_once(store: Any) -> None:
    """Tags and aliases that are set at the same moment are all there afterwards."""
    store.create_registered_model("m")
    store.create_model_version("m", "s3://b/m")

    def act(number: int) -> None:
        store.set_registered_model_tag("m", RegisteredModelTag(f"k{number}", "v"))
        store.set_registered_model_alias("m", f"a{number}", 1)
        store.set_model_version_tag("m", 1, ModelVersionTag(f"k{number}", "v"))

    assert together(16, act) == [None] * 16
    model = store.get_registered_model("m")
    assert len(model.tags) == len(model.aliases) == len(store.get_model_version("m", 1).tags) == 16


def test_nothing_is_left_of_deleted_models(store: Any) -> None:
    """Models, versions and claims of names are gone from the indices."""
    prepared(store)
    store.rename_registered_model("old", "new")
    store.delete_registered_model("new")
    docs: Documents = store.docs
    for index in (REGISTERED_MODELS, MODEL_VERSIONS, names.KEYS):
        assert docs.count(index, MATCH_ALL) == 0, index.name


def test_the_memory_of_names_is_bounded(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store forgets ids of names rather than keeping all of a large registry's."""
    monkeypatch.setattr(base, "_NAMES_AT_MOST", 3)
    for name in "abcdef":
        store.create_registered_model(name)
        store.get_registered_model(name)
    assert len(store._ids) <= 4
    assert [store.get_registered_model(name).name for name in "abcdef"] == list("abcdef")
