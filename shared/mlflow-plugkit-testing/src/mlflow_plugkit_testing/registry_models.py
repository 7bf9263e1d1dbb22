"""Rules about registered models: life, tags, aliases and searches."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities.model_registry import RegisteredModelTag

from mlflow_plugkit_testing.registry_base import ModelRegistryStoreSuite, new_version
from mlflow_plugkit_testing.stores import all_pages, noting, refused, together
from mlflow_plugkit_testing.tracking_base import now

FILTERS: list[tuple[str | None, set[str]]] = [
    (None, {"Alpha", "alpine", "beta_1"}),
    ("name = 'Alpha'", {"Alpha"}),
    ("name != 'Alpha'", {"alpine", "beta_1"}),
    ("name LIKE 'al%'", {"alpine"}),
    ("name ILIKE 'AL%'", {"Alpha", "alpine"}),
    ("tags.team = 'red'", {"Alpha"}),
    ("tags.team != 'red'", {"alpine", "beta_1"}),
    ("tags.team ILIKE 'r%' AND name LIKE '%e'", {"alpine"}),
    ("name = 'none'", set()),
]

BAD: list[dict[str, Any]] = [
    {"filter_string": "colour = 'red'"},
    {"filter_string": "name > 'a'"},
    {"filter_string": "name ="},
    {"order_by": ["colour ASC"]},
    {"max_results": 1_000_000},
    {"page_token": "not a token"},
]


class RegisteredModelRules(ModelRegistryStoreSuite):
    """Creating, reading, renaming, tagging, deleting and searching registered models."""

    def test_a_created_model_is_read_back(self, store: Any) -> None:
        """Name, description, tags and times of a new model are read back."""
        before = now()
        store.create_registered_model("Modèle 大", [RegisteredModelTag("k", "ü")], "what it is")
        model = store.get_registered_model("Modèle 大")
        read = (model.name, model.description, model.tags, model.latest_versions, model.aliases)
        assert read == ("Modèle 大", "what it is", {"k": "ü"}, [], {}), f"a registered model was read back as {read}"
        assert before <= model.creation_timestamp <= now(), "creation_timestamp must be milliseconds since the epoch"

    def test_a_taken_model_name_is_refused(self, store: Any, model: str) -> None:
        """Creating or renaming to a taken name raises `RESOURCE_ALREADY_EXISTS`."""
        with refused("RESOURCE_ALREADY_EXISTS", "creating a registered model with a taken name"):
            store.create_registered_model(model)
        store.create_registered_model("other")
        with refused("RESOURCE_ALREADY_EXISTS", "renaming a registered model to a taken name"):
            store.rename_registered_model("other", model)

    def test_of_many_threads_one_gets_the_model_name(self, store: Any) -> None:
        """When eight threads create one name at once, one succeeds and seven get `RESOURCE_ALREADY_EXISTS`."""
        results = together(8, lambda _: str(store.create_registered_model("contested").name))
        codes = [getattr(r, "error_code", repr(r)) for r in results if not isinstance(r, str)]
        assert codes == ["RESOURCE_ALREADY_EXISTS"] * 7, (
            f"of eight threads that create one registered model exactly one must win: {results}"
        )

    def test_bad_model_names_are_refused(self, store: Any, model: str) -> None:
        """An empty or missing name raises `INVALID_PARAMETER_VALUE`."""
        for name in ("", None):
            with refused("INVALID_PARAMETER_VALUE", f"a registered model named {name!r}"):
                store.create_registered_model(name)
            with refused("INVALID_PARAMETER_VALUE", f"renaming a registered model to {name!r}"):
                store.rename_registered_model(model, name)

    @pytest.mark.parametrize(
        "operation", ["get", "update", "rename", "delete", "set_tag", "set_alias", "create_version"]
    )
    def test_a_missing_model_is_named_as_such(self, store: Any, operation: str) -> None:
        """An unknown model name raises `RESOURCE_DOES_NOT_EXIST`."""
        call: Any = {
            "get": lambda: store.get_registered_model("none"),
            "update": lambda: store.update_registered_model("none", "d"),
            "rename": lambda: store.rename_registered_model("none", "new"),
            "delete": lambda: store.delete_registered_model("none"),
            "set_tag": lambda: store.set_registered_model_tag("none", RegisteredModelTag("k", "v")),
            "set_alias": lambda: store.set_registered_model_alias("none", "a", "1"),
            "create_version": lambda: store.create_model_version("none", "s3://b/m"),
        }[operation]
        with refused("RESOURCE_DOES_NOT_EXIST", f"{operation} on an unknown registered model"):
            call()

    def test_a_model_can_be_described_and_renamed(self, store: Any, model: str) -> None:
        """A renamed model takes its versions, tags and aliases along."""
        version = new_version(store, model)
        store.set_registered_model_alias(model, "best", version)
        store.set_registered_model_tag(model, RegisteredModelTag("k", "v"))
        assert store.update_registered_model(model, "new text").description == "new text", (
            "the description was not updated"
        )
        store.rename_registered_model(model, "renamed")
        with refused("RESOURCE_DOES_NOT_EXIST", "get_registered_model by the old name"):
            store.get_registered_model(model)
        found = store.get_registered_model("renamed")
        kept = (found.description, found.tags, {a: str(v) for a, v in found.aliases.items()})
        assert kept == ("new text", {"k": "v"}, {"best": version}), f"a renamed model was read back with {kept}"
        assert store.get_model_version("renamed", version).name == "renamed", "a rename must take the versions along"

    def test_a_deleted_model_is_gone_with_its_versions(self, store: Any, model: str) -> None:
        """Model, versions and aliases are gone; the name is free, and numbers start at 1 again."""
        store.set_registered_model_alias(model, "best", new_version(store, model))
        store.delete_registered_model(model)
        with refused("RESOURCE_DOES_NOT_EXIST", "get_registered_model of a deleted model"):
            store.get_registered_model(model)
        assert list(store.search_model_versions(f"name = '{model}'")) == [], (
            "the versions of a deleted model are still found"
        )
        store.create_registered_model(model)
        assert new_version(store, model) == "1", "a model made anew under a deleted name must start with version 1"
        assert store.get_registered_model(model).aliases == {}, "a model made anew has the aliases of the deleted one"

    def test_model_tags_are_set_overwritten_and_deleted(self, store: Any, model: str) -> None:
        """A tag set again has its new value; a deleted one is gone."""
        for key, value in (("a", "1"), ("b", "2"), ("a", "3 ü")):
            store.set_registered_model_tag(model, RegisteredModelTag(key, value))
        tags = store.get_registered_model(model).tags
        assert tags == {"a": "3 ü", "b": "2"}, f"tags of a registered model must be overwritten by key: {tags}"
        store.delete_registered_model_tag(model, "a")
        assert store.get_registered_model(model).tags == {"b": "2"}, "delete_registered_model_tag left the tag in place"

    def test_bad_model_tags_are_refused(self, store: Any, model: str) -> None:
        """An empty, missing or over-long (250) key raises `INVALID_PARAMETER_VALUE`."""
        for key in ("", None, "k" * 251):
            with refused("INVALID_PARAMETER_VALUE", f"a registered model tag with the key {str(key)[:9]!r}"):
                store.set_registered_model_tag(model, RegisteredModelTag(key, "v"))
        assert store.get_registered_model(model).tags == {}, "a refused tag of a registered model was kept"

    def test_an_alias_points_to_one_version(self, store: Any, model: str) -> None:
        """An alias leads to its version, moves when set again, and is shown by model and version."""
        first, second = new_version(store, model), new_version(store, model)
        store.set_registered_model_alias(model, "Best_1", first)
        store.set_registered_model_alias(model, "Best_1", second)
        found = str(store.get_model_version_by_alias(model, "Best_1").version)
        assert found == second, f"an alias set again must lead to its new version {second}, it leads to {found}"
        shown = [list(store.get_model_version(model, v).aliases) for v in (first, second)]
        assert shown == [[], ["Best_1"]], f"the alias must be shown by the second version only: {shown}"
        store.delete_registered_model_alias(model, "Best_1")
        with refused("INVALID_PARAMETER_VALUE", "get_model_version_by_alias of a deleted alias"):
            store.get_model_version_by_alias(model, "Best_1")

    def test_bad_aliases_are_refused(self, store: Any, model: str) -> None:
        """Reserved (`latest`, `v1`), empty, over-long (255) or odd aliases raise `INVALID_PARAMETER_VALUE`."""
        version = new_version(store, model)
        for alias in ("latest", "v1", "V22", "", None, "a b", "x" * 256):
            with refused("INVALID_PARAMETER_VALUE", f"the alias {str(alias)[:9]!r}"):
                store.set_registered_model_alias(model, alias, version)
        with refused("RESOURCE_DOES_NOT_EXIST", "an alias of a version that does not exist"):
            store.set_registered_model_alias(model, "a", "99")
        assert store.get_registered_model(model).aliases == {}, "a refused alias was kept"

    def test_models_are_searched(self, store: Any) -> None:
        """Filters on names and tags choose what MLflow's own store chooses, by name; LIKE minds the case."""
        for name, team in (("beta_1", "blue"), ("Alpha", "red"), ("alpine", "Red")):
            store.create_registered_model(name, [RegisteredModelTag("team", team)])
        wrong: list[str] = []
        for filter_string, wanted in FILTERS:
            with noting(wrong, str(filter_string)):
                found = [m.name for m in store.search_registered_models(filter_string)]
                assert found == sorted(wanted), f"found {found}, not {sorted(wanted)}"
        assert not wrong, "filters that chose the wrong registered models: " + "; ".join(wrong)

    def test_model_pages_cover_all_once(self, store: Any, store_uri: str) -> None:
        """Pages hold at most max_results and cover all exactly once, in order; a token serves another instance."""
        for name in "edbac":
            store.create_registered_model(name)
        other = self.make_store(store_uri, None)
        turns = [store, other]

        def fetch(token: str | None) -> Any:
            turns.reverse()
            return turns[0].search_registered_models(None, 2, ["name DESC"], token)

        names = ["".join(m.name for m in page) for page in all_pages(fetch)]
        self.close_store(other)
        assert names == ["ed", "cb", "a"], f"pages of registered models must cover all exactly once, in order: {names}"

    def test_bad_model_searches_are_refused(self, store: Any) -> None:
        """A filter, order, page size or page token that MLflow does not know raises `INVALID_PARAMETER_VALUE`."""
        for kwargs in BAD:
            with refused("INVALID_PARAMETER_VALUE", f"search_registered_models({kwargs})"):
                store.search_registered_models(**kwargs)
