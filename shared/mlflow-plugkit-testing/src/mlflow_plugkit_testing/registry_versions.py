"""Rules about model versions: numbers, stages, tags, copies and searches."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities.model_registry import ModelVersionTag

from mlflow_plugkit_testing.registry_base import ModelRegistryStoreSuite, new_version
from mlflow_plugkit_testing.stores import all_pages, errors_in, noting, refused, together

RUNS = ["a" * 32, "b" * 32]

FILTERS: list[tuple[str | None, list[str]]] = [
    ("name = 'plugkit'", ["1", "2", "3"]),
    ("name LIKE 'plug%'", ["1", "2", "3"]),
    ("name ILIKE 'PLUG%'", ["1", "2", "3"]),
    ("name LIKE 'PLUG%'", []),
    (f"run_id = '{RUNS[0]}'", ["1"]),
    (f"run_id IN ('{RUNS[0]}', '{RUNS[1]}')", ["1", "2"]),
    ("source_path = 's3://bucket/model'", ["1", "2", "3"]),
    ("version_number >= 2", ["2", "3"]),
    ("name = 'plugkit' AND version_number < 2", ["1"]),
    ("tags.t = 'red'", ["1"]),
    ("tags.t != 'red'", ["2"]),
    ("tags.`k.a b` = 'x'", ["2"]),
    ("name = 'none'", []),
]

BAD: list[dict[str, Any]] = [
    {"filter_string": "colour = 'red'"},
    {"filter_string": "run_id > 'a'"},
    {"filter_string": "name ="},
    {"order_by": ["colour ASC"]},
    {"max_results": 0},
    {"max_results": 200_001},
    {"page_token": "not a token"},
]


class ModelVersionRules(ModelRegistryStoreSuite):
    """Creating, reading, staging, tagging, copying, deleting and searching model versions."""

    def test_a_created_version_is_read_back(self, store: Any, model: str) -> None:
        """Source, run, tags and description are read back; the version is ready and in no stage."""
        made = store.create_model_version(
            model, "s3://bucket/model", RUNS[0], [ModelVersionTag("k", "ü")], run_link="http://run", description="what"
        )
        read = store.get_model_version(model, made.version)
        shown = (read.source, read.run_id, read.tags, read.run_link, read.description, read.current_stage, read.status)
        wanted = ("s3://bucket/model", RUNS[0], {"k": "ü"}, "http://run", "what", "None", "READY")
        assert shown == wanted, f"a model version was read back as {shown}"
        uri = store.get_model_version_download_uri(model, made.version)
        assert uri == "s3://bucket/model", f"get_model_version_download_uri gave {uri!r} instead of the source"

    def test_versions_are_numbered_from_one(self, store: Any, model: str) -> None:
        """Versions of each model count 1, 2, 3; a deleted number is not used again."""
        other = store.create_registered_model("other").name
        numbers = [new_version(store, model), new_version(store, model), new_version(store, other)]
        assert numbers == ["1", "2", "1"], f"versions of each model must count from 1: {numbers}"
        store.delete_model_version(model, "2")
        again = new_version(store, model)
        assert again == "3", f"the number of a deleted version must not be used again; the next one was {again}"

    def test_threads_get_different_version_numbers(self, store: Any, model: str) -> None:
        """Versions created by four threads at once have different numbers without a gap, and none fails."""
        results = together(4, lambda _: new_version(store, model))
        problems = errors_in(results)
        assert not problems, f"versions created by four threads at once must not fail: {problems}"
        numbers = sorted(str(r) for r in results)
        assert numbers == ["1", "2", "3", "4"], f"versions created by four threads at once got the numbers {numbers}"

    @pytest.mark.parametrize("operation", ["get", "update", "delete", "stage", "set_tag", "download_uri"])
    def test_a_missing_version_is_named_as_such(self, store: Any, model: str, operation: str) -> None:
        """An unknown or deleted version raises `RESOURCE_DOES_NOT_EXIST`."""
        store.delete_model_version(model, new_version(store, model))
        calls: Any = {
            "get": lambda v: store.get_model_version(model, v),
            "update": lambda v: store.update_model_version(model, v, "d"),
            "delete": lambda v: store.delete_model_version(model, v),
            "stage": lambda v: store.transition_model_version_stage(model, v, "Staging", False),
            "set_tag": lambda v: store.set_model_version_tag(model, v, ModelVersionTag("k", "v")),
            "download_uri": lambda v: store.get_model_version_download_uri(model, v),
        }
        for version in ("1", "99"):
            with refused("RESOURCE_DOES_NOT_EXIST", f"{operation} on the missing model version {version}"):
                calls[operation](version)

    def test_bad_version_numbers_are_refused(self, store: Any, model: str) -> None:
        """A version that is no integer raises `INVALID_PARAMETER_VALUE`."""
        for version in ("one", "", "1.5"):
            with refused("INVALID_PARAMETER_VALUE", f"get_model_version of version {version!r}"):
                store.get_model_version(model, version)

    def test_a_version_can_be_described(self, store: Any, model: str) -> None:
        """`update_model_version` changes the description."""
        version = new_version(store, model)
        store.update_model_version(model, version, "new ü")
        described = store.get_model_version(model, version).description
        assert described == "new ü", f"the description of a version was read back as {described!r}"

    def test_version_tags_are_set_overwritten_and_deleted(self, store: Any, model: str) -> None:
        """A tag set again has its new value; a deleted one is gone; other versions are not touched."""
        first, second = new_version(store, model), new_version(store, model)
        for key, value in (("a", "1"), ("b", "2"), ("a", "3")):
            store.set_model_version_tag(model, first, ModelVersionTag(key, value))
        tags = [store.get_model_version(model, v).tags for v in (first, second)]
        assert tags == [{"a": "3", "b": "2"}, {}], (
            f"tags of versions must be overwritten by key, each on its own: {tags}"
        )
        store.delete_model_version_tag(model, first, "a")
        assert store.get_model_version(model, first).tags == {"b": "2"}, (
            "delete_model_version_tag left the tag in place"
        )

    def test_versions_move_between_stages(self, store: Any, model: str) -> None:
        """A stage is written in any case; archive_existing_versions moves the others of that stage away."""
        first, second = new_version(store, model), new_version(store, model)
        store.transition_model_version_stage(model, first, "production", False)
        store.transition_model_version_stage(model, second, "Production", True)
        stages = [store.get_model_version(model, v).current_stage for v in (first, second)]
        assert stages == ["Archived", "Production"], f"stages after archiving the existing version: {stages}"
        with refused("INVALID_PARAMETER_VALUE", "moving a version to an unknown stage"):
            store.transition_model_version_stage(model, first, "Nowhere", False)

    def test_the_latest_versions_of_stages_are_found(self, store: Any, model: str) -> None:
        """`get_latest_versions` gives the highest version of each stage, or of the stages asked for."""
        for stage in ("None", "Staging", "Staging", "Production", "None"):
            version = new_version(store, model)
            store.transition_model_version_stage(model, version, stage, False)
        latest = {v.current_stage: str(v.version) for v in store.get_latest_versions(model)}
        assert latest == {"None": "5", "Staging": "3", "Production": "4"}, (
            f"the latest versions of all stages: {latest}"
        )
        asked = [(v.current_stage, str(v.version)) for v in store.get_latest_versions(model, ["staging"])]
        assert asked == [("Staging", "3")], f"the latest version of the stage asked for: {asked}"
        with refused("INVALID_PARAMETER_VALUE", "get_latest_versions of an unknown stage"):
            store.get_latest_versions(model, ["Nowhere"])

    def test_a_deleted_version_loses_its_aliases(self, store: Any, model: str) -> None:
        """No alias leads to a deleted version."""
        version = new_version(store, model)
        store.set_registered_model_alias(model, "best", version)
        store.delete_model_version(model, int(version))
        aliases = store.get_registered_model(model).aliases
        assert aliases == {}, f"aliases still lead to a deleted version: {aliases}"

    def test_a_version_can_be_copied(self, store: Any, model: str) -> None:
        """`copy_model_version` makes a version of another model, made if need be, that leads to the source's files."""
        version = store.create_model_version(model, "s3://bucket/model", RUNS[0], [ModelVersionTag("k", "v")])
        copy = store.copy_model_version(version, "copied")
        read = store.get_model_version("copied", copy.version)
        shown = (str(read.version), read.source, read.run_id, read.tags)
        wanted = ("1", f"models:/{model}/1", RUNS[0], {"k": "v"})
        assert shown == wanted, f"a copied version was read back as {shown}, not {wanted}"
        uri = store.get_model_version_download_uri("copied", copy.version)
        assert uri == "s3://bucket/model", f"the download URI of a copy must be that of its source, it is {uri!r}"

    def test_versions_are_searched(self, store: Any, model: str) -> None:
        """Filters on names, runs, sources, numbers and tags choose what MLflow's own store chooses."""
        new_version(store, model, run_id=RUNS[0], tags=[ModelVersionTag("t", "red")])
        new_version(store, model, run_id=RUNS[1], tags=[ModelVersionTag("t", "blue"), ModelVersionTag("k.a b", "x")])
        new_version(store, model)
        store.delete_model_version(model, new_version(store, model))
        wrong: list[str] = []
        for filter_string, wanted in FILTERS:
            with noting(wrong, str(filter_string)):
                found = sorted(str(v.version) for v in store.search_model_versions(filter_string))
                assert found == wanted, f"found {found}, not {wanted}"
        assert not wrong, "filters that chose the wrong model versions: " + "; ".join(wrong)

    def test_version_pages_cover_all_once(self, store: Any, store_uri: str, model: str) -> None:
        """Pages hold at most max_results, in order by number (10 after 9), each version once, for any instance."""
        for _ in range(11):
            new_version(store, model)
        other = self.make_store(store_uri, None)
        turns = [store, other]

        def fetch(token: str | None) -> Any:
            turns.reverse()
            return turns[0].search_model_versions(f"name = '{model}'", 4, ["version_number ASC"], token)

        numbers = [[int(v.version) for v in page] for page in all_pages(fetch)]
        self.close_store(other)
        assert numbers == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11]], (
            f"pages of model versions must cover all exactly once, in the order of numbers: {numbers}"
        )

    def test_bad_version_searches_are_refused(self, store: Any) -> None:
        """A filter, order, page size or page token that MLflow does not know raises `INVALID_PARAMETER_VALUE`."""
        for kwargs in BAD:
            with refused("INVALID_PARAMETER_VALUE", f"search_model_versions({kwargs})"):
                store.search_model_versions(**kwargs)
