"""Rules about experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import ExperimentTag, ViewType

from mlflow_plugkit_testing.stores import all_pages, noting, refused, together
from mlflow_plugkit_testing.stores_sqlite import own_tracking_store_refuses
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, is_deleted, mlflow_has, new_run, now

MISSING = "987654321"
BAD_KEYS: list[Any] = ["k" * 251, "", None]
BAD_NAMES: list[Any] = ["", None, 7, "x" * 501]

FILTERS: list[tuple[str, set[str]]] = [
    ("name = 'Alpha'", {"Alpha"}),
    ("attribute.name != 'Alpha'", {"alpine", "beta_1", "Default"}),
    ("name ILIKE 'AL%'", {"Alpha", "alpine"}),
    ("name LIKE 'al%'", {"alpine"}),
    ("tags.team = 'red'", {"Alpha"}),
    ("tags.team ILIKE 'r%' AND name LIKE '%e'", {"alpine"}),
    ("tags.`a.b c` = 'beta_1'", {"beta_1"}),
    ("creation_time > 0 AND name = 'beta_1'", {"beta_1"}),
    ("last_update_time < 1000", set()),
    ("name = 'no such'", set()),
]

ORDERS = [
    (["name"], ["Alpha", "Default", "alpine", "beta_1"]),
    (["name DESC"], ["beta_1", "alpine", "Default", "Alpha"]),
    (["experiment_id ASC"], ["Default", "Alpha", "alpine", "beta_1"]),
]

BAD: list[dict[str, Any]] = [
    {"filter_string": "colour = 'red'"},
    {"filter_string": "name > 'a'"},
    {"filter_string": "name = "},
    {"filter_string": "params.x = '1'"},
    {"order_by": ["colour"]},
    {"max_results": 0},
    {"max_results": -1},
    {"max_results": 50001},
    {"page_token": "not a token"},
]


class ExperimentRules(TrackingStoreSuite):
    """Creating, reading, renaming, deleting, restoring and searching experiments."""

    def test_the_default_experiment_exists(self, store: Any) -> None:
        """A fresh store holds the experiment "0" named Default, which MLflow's UI and client expect."""
        found = [(e.experiment_id, e.name) for e in store.search_experiments()]
        assert found == [("0", "Default")], (
            f"a fresh store must hold exactly the experiment '0' named 'Default': {found}"
        )

    def test_experiment_ids_are_numeric_strings(self, store: Any) -> None:
        """Ids are strings of digits: MLflow parses them as integers, for prompts and in the UI."""
        made = store.create_experiment("numbered")
        assert isinstance(made, str), f"an experiment id must be a string of digits, got {made!r}"
        assert made.isdigit(), f"an experiment id must be a string of digits, got {made!r}"
        assert store.get_experiment(made).experiment_id == made, f"experiment {made!r} is read back with another id"

    def test_a_created_experiment_is_read_back(self, store: Any) -> None:
        """Name, tags, stage and times of a new experiment are read back, also where they are not ASCII."""
        before = now()
        name = "Zürich / 実験 'q' \"d\" %_"
        made = store.get_experiment(
            store.create_experiment(name, tags=[ExperimentTag("k", "v ü"), ExperimentTag("n", "1")])
        )
        read = (made.name, made.tags, made.lifecycle_stage)
        assert read == (name, {"k": "v ü", "n": "1"}, "active"), f"a new experiment was read back as {read}"
        assert before <= made.creation_time <= now(), (
            "creation_time of an experiment must be milliseconds since the epoch"
        )
        assert before <= made.last_update_time <= now(), "last_update_time must be milliseconds since the epoch"

    def test_an_explicit_artifact_location_is_kept(self, store: Any) -> None:
        """The artifact_location given by the user is kept, and the runs of the experiment live below it."""
        made = store.create_experiment("placed", artifact_location="s3://bucket/place")
        location = store.get_experiment(made).artifact_location
        assert location == "s3://bucket/place", f"the explicit artifact_location was changed to {location!r}"
        artifact_uri = store.get_run(new_run(store, made)).info.artifact_uri
        assert artifact_uri.startswith("s3://bucket/place/"), f"the run's artifacts are elsewhere: {artifact_uri!r}"

    def test_an_experiment_is_found_by_its_name(self, store: Any, experiment: str) -> None:
        """`get_experiment_by_name` finds active and deleted experiments, and returns None for others."""
        assert store.get_experiment_by_name("plugkit").experiment_id == experiment, "the name finds another experiment"
        assert store.get_experiment_by_name("PLUGKIT") is None, "names of experiments must be compared exactly"
        store.delete_experiment(experiment)
        found = store.get_experiment_by_name("plugkit")
        assert found is not None, (
            "get_experiment_by_name must find a deleted experiment too (set_experiment relies on it)"
        )
        assert is_deleted(found), "the deleted experiment is shown as active"

    @pytest.mark.parametrize("operation", ["get", "delete", "restore", "rename", "set_tag", "create_run"])
    def test_a_missing_experiment_is_named_as_such(self, store: Any, operation: str) -> None:
        """An unknown experiment id raises `RESOURCE_DOES_NOT_EXIST`."""
        call: Any = {
            "get": lambda: store.get_experiment(MISSING),
            "delete": lambda: store.delete_experiment(MISSING),
            "restore": lambda: store.restore_experiment(MISSING),
            "rename": lambda: store.rename_experiment(MISSING, "new"),
            "set_tag": lambda: store.set_experiment_tag(MISSING, ExperimentTag("k", "v")),
            "create_run": lambda: new_run(store, MISSING),
        }[operation]
        with refused("RESOURCE_DOES_NOT_EXIST", f"{operation} on an unknown experiment id"):
            call()

    def test_a_taken_name_is_refused(self, store: Any, experiment: str) -> None:
        """A name that an active or a deleted experiment has raises `RESOURCE_ALREADY_EXISTS`."""
        with refused("RESOURCE_ALREADY_EXISTS", "creating an experiment with a taken name"):
            store.create_experiment("plugkit")
        store.delete_experiment(experiment)
        with refused("RESOURCE_ALREADY_EXISTS", "creating an experiment with the name of a deleted one"):
            store.create_experiment("plugkit")

    def test_of_many_threads_one_gets_the_name(self, store: Any) -> None:
        """When eight threads create one name at once, one succeeds and seven get `RESOURCE_ALREADY_EXISTS`."""
        results = together(8, lambda _: str(store.create_experiment("contested")))
        codes = [getattr(r, "error_code", repr(r)) for r in results if not isinstance(r, str)]
        assert codes == ["RESOURCE_ALREADY_EXISTS"] * 7, (
            f"of eight threads that create one experiment name exactly one must win, the others get "
            f"RESOURCE_ALREADY_EXISTS; got {results}"
        )

    def test_bad_experiment_names_are_refused(self, store: Any) -> None:
        """An empty, missing, non-string or over-long (500) name raises `INVALID_PARAMETER_VALUE`."""
        for name in BAD_NAMES:
            with refused("INVALID_PARAMETER_VALUE", f"creating an experiment named {str(name)[:20]!r}"):
                store.create_experiment(name)
        found = [e.name for e in store.search_experiments()]
        assert found == ["Default"], f"a refused experiment was kept: {found}"

    def test_bad_new_experiment_names_are_refused(self, store: Any, experiment: str, tmp_path: Path) -> None:
        """A rename to an empty, missing, non-string or over-long name raises `INVALID_PARAMETER_VALUE`."""
        if not own_tracking_store_refuses(tmp_path, lambda own: own.rename_experiment("0", "")):
            pytest.skip("this MLflow has no check of the new name in its own store")
        for name in BAD_NAMES:
            with refused("INVALID_PARAMETER_VALUE", f"renaming an experiment to {str(name)[:20]!r}"):
                store.rename_experiment(experiment, name)

    def test_an_experiment_can_be_renamed(self, store: Any, experiment: str) -> None:
        """A renamed experiment keeps its id and runs; the old name is free again."""
        run_id = new_run(store, experiment)
        store.rename_experiment(experiment, "renamed")
        assert store.get_experiment(experiment).name == "renamed", "rename_experiment did not change the name"
        assert store.get_run(run_id).info.experiment_id == experiment, "a rename moved the experiment's runs"
        assert store.get_experiment_by_name("plugkit") is None, "the old name still finds the renamed experiment"
        assert store.create_experiment("plugkit") != experiment, "the old name is not free after a rename"

    def test_a_deleted_experiment_cannot_be_renamed(self, store: Any, experiment: str) -> None:
        """Renaming a deleted experiment raises `INVALID_STATE`."""
        store.delete_experiment(experiment)
        with refused("INVALID_STATE", "renaming a deleted experiment"):
            store.rename_experiment(experiment, "new")

    def test_deletion_and_restoration_take_the_runs_along(self, store: Any, experiment: str) -> None:
        """Deleting an experiment deletes its runs; restoring it restores them."""
        run_id = new_run(store, experiment)
        store.delete_experiment(experiment)
        assert is_deleted(store.get_experiment(experiment)), "a deleted experiment must be in the stage 'deleted'"
        assert is_deleted(store.get_run(run_id).info), "the runs of a deleted experiment must be deleted too"
        store.restore_experiment(experiment)
        assert not is_deleted(store.get_experiment(experiment)), "a restored experiment must be active"
        assert not is_deleted(store.get_run(run_id).info), "the runs of a restored experiment must be active again"

    def test_stages_are_not_left_twice(self, store: Any, experiment: str) -> None:
        """Restoring an active or deleting a deleted experiment raises `RESOURCE_DOES_NOT_EXIST`."""
        with refused("RESOURCE_DOES_NOT_EXIST", "restoring an active experiment"):
            store.restore_experiment(experiment)
        store.delete_experiment(experiment)
        with refused("RESOURCE_DOES_NOT_EXIST", "deleting a deleted experiment"):
            store.delete_experiment(experiment)

    def test_a_deleted_experiment_is_read_only(self, store: Any, experiment: str) -> None:
        """New runs and tags in a deleted experiment raise `INVALID_PARAMETER_VALUE`."""
        store.delete_experiment(experiment)
        with refused("INVALID_PARAMETER_VALUE", "creating a run in a deleted experiment"):
            new_run(store, experiment)
        with refused("INVALID_PARAMETER_VALUE", "tagging a deleted experiment"):
            store.set_experiment_tag(experiment, ExperimentTag("k", "v"))

    def test_experiment_tags_are_set_and_overwritten(self, store: Any, experiment: str) -> None:
        """A tag set again has its new value; the other tags stay."""
        for key, value in (("a", "1"), ("b", "2"), ("a", "3 ü")):
            store.set_experiment_tag(experiment, ExperimentTag(key, value))
        tags = store.get_experiment(experiment).tags
        assert tags == {"a": "3 ü", "b": "2"}, f"tags of an experiment must be overwritten by key: {tags}"

    def test_experiment_tags_can_be_deleted(self, store: Any, experiment: str) -> None:
        """`delete_experiment_tag` removes one tag; an unknown key raises `RESOURCE_DOES_NOT_EXIST`."""
        mlflow_has("delete_experiment_tag", "delete_experiment_tag")
        store.set_experiment_tag(experiment, ExperimentTag("a", "1"))
        store.delete_experiment_tag(experiment, "a")
        assert store.get_experiment(experiment).tags == {}, "delete_experiment_tag left the tag in place"
        with refused("RESOURCE_DOES_NOT_EXIST", "deleting an unknown tag of an experiment"):
            store.delete_experiment_tag(experiment, "a")

    def test_bad_experiment_tags_are_refused(self, store: Any, experiment: str) -> None:
        """An over-long key (250) or an empty key raises `INVALID_PARAMETER_VALUE`, and nothing is kept."""
        for key in BAD_KEYS:
            with refused("INVALID_PARAMETER_VALUE", f"an experiment tag with the key {str(key)[:9]!r}"):
                store.set_experiment_tag(experiment, ExperimentTag(key, "v"))
        assert store.get_experiment(experiment).tags == {}, "a refused experiment tag was kept"


class ExperimentSearchRules(TrackingStoreSuite):
    """`search_experiments`: filters, order and pages."""

    @pytest.fixture
    def experiments(self, store: Any) -> dict[str, str]:
        """Four experiments: name to id; "gone" is deleted."""
        made = {}
        for name, team in (("Alpha", "red"), ("alpine", "Red"), ("beta_1", "blue"), ("gone", "red")):
            made[name] = store.create_experiment(name, tags=[ExperimentTag("team", team), ExperimentTag("a.b c", name)])
        store.delete_experiment(made["gone"])
        return made

    @pytest.mark.parametrize(
        ("view", "wanted"),
        [
            (ViewType.ACTIVE_ONLY, {"Alpha", "alpine", "beta_1", "Default"}),
            (ViewType.DELETED_ONLY, {"gone"}),
            (ViewType.ALL, {"Alpha", "alpine", "beta_1", "gone", "Default"}),
        ],
        ids=["active", "deleted", "all"],
    )
    def test_experiment_search_obeys_the_view(
        self, store: Any, experiments: dict[str, str], view: Any, wanted: set[str]
    ) -> None:
        """The view type chooses active, deleted or all experiments."""
        found = {e.name for e in store.search_experiments(view_type=view)}
        assert found == wanted, f"search_experiments with view type {view} found {found}, not {wanted}"

    def test_experiment_filters(self, store: Any, experiments: dict[str, str]) -> None:
        """Filters on name, times and tags choose what MLflow's own store chooses; LIKE minds the case."""
        wrong: list[str] = []
        for filter_string, wanted in FILTERS:
            with noting(wrong, filter_string):
                found = sorted(e.name for e in store.search_experiments(filter_string=filter_string))
                assert found == sorted(wanted), f"found {found}, not {sorted(wanted)}"
        assert not wrong, "experiment filters that chose the wrong experiments: " + "; ".join(wrong)

    def test_experiment_order(self, store: Any, experiments: dict[str, str]) -> None:
        """`order_by` sorts experiments by attributes, in both directions."""
        wrong: list[str] = []
        for order_by, wanted in ORDERS:
            with noting(wrong, str(order_by)):
                found = [e.name for e in store.search_experiments(order_by=order_by)]
                assert found == wanted, f"came as {found}, not {wanted}"
        assert not wrong, "experiments that came in the wrong order: " + "; ".join(wrong)

    def test_experiment_pages_cover_all_once(self, store: Any, store_uri: str, artifact_root: str) -> None:
        """Pages hold at most max_results, and together every experiment once, also for a second store."""
        for i in range(6):
            store.create_experiment(f"e{i}")
        other = self.make_store(store_uri, artifact_root)
        turns = [store, other]

        def fetch(token: str | None) -> Any:
            turns.reverse()
            return turns[0].search_experiments(max_results=3, order_by=["name"], page_token=token)

        pages = all_pages(fetch)
        self.close_store(other)
        names = [[e.name for e in page] for page in pages]
        assert names == [["Default", "e0", "e1"], ["e2", "e3", "e4"], ["e5"]], (
            f"pages of experiments must hold max_results each and cover all exactly once: {names}"
        )

    def test_bad_experiment_searches_are_refused(self, store: Any) -> None:
        """A filter, order, page size or page token that MLflow does not know raises `INVALID_PARAMETER_VALUE`."""
        for kwargs in BAD:
            with refused("INVALID_PARAMETER_VALUE", f"search_experiments({kwargs})"):
                store.search_experiments(**kwargs)
