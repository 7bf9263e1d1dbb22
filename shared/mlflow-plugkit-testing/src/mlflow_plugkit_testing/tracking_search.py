"""Rules about `search_runs`: filters, order, pages and bad questions."""

from __future__ import annotations

import math
from typing import Any

import pytest
from mlflow.entities import RunStatus, RunTag, ViewType

from mlflow_plugkit_testing.stores import all_pages, noting, refused
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, fill, names_found, new_run
from mlflow_plugkit_testing.tracking_runs import dataset_input

ALL = {"a", "b", "c", "d"}

FILTERS: list[tuple[str, set[str]]] = [
    ("", ALL),
    ("metrics.m > 1", {"b", "c"}),
    ("metrics.m >= 1 AND metrics.m < 3", {"a", "b"}),
    ("metrics.m = 2", {"b"}),
    ("metrics.m != 2", {"a", "c"}),
    ("metrics.m <= -1", set()),
    ("metric.`a b/c` = 7", {"a"}),
    ("params.p = 'one'", {"a"}),
    ("params.p != 'one'", {"b", "c"}),
    ("param.p LIKE 'T%'", {"c"}),
    ("params.p ILIKE 'T%'", {"b", "c"}),
    ("params.p LIKE '%n%'", {"a"}),
    ("params.p LIKE 'on_'", {"a"}),
    ("params.q = 'x%y'", {"a"}),
    ('params.q = "it\'s"', {"b"}),
    ("params.q = 'größer 大'", {"c"}),
    ("tags.t = 'red' and params.p = 'one'", {"a"}),
    ("tag.`k.with-dots and blank` = '1'", {"b"}),
    ("tags.t != 'red'", {"b"}),
    ("attributes.status = 'FINISHED'", {"b"}),
    ("status != 'FINISHED'", {"a", "c", "d"}),
    ("attributes.start_time >= 2000 AND attributes.start_time < 4000", {"b", "c"}),
    ("start_time = 1000", {"a"}),
    ("end_time > 0", {"b"}),
    ("run_name LIKE '%a%'", {"a"}),
    ("attributes.`run name` = 'b'", {"b"}),
    ("attributes.user_id = 'ada'", ALL),
    ("artifact_uri LIKE '%artifacts%'", ALL),
    ("dataset.name = 'd1'", {"a"}),
    ("datasets.name LIKE 'd%'", {"a", "b"}),
    ("dataset.digest = '1f' AND dataset.context = 'test'", {"b"}),
    ("params.none = 'one'", set()),
    ("metrics.none > 0", set()),
]

ORDERS: list[tuple[list[str], list[str]]] = [
    ([], ["d", "c", "b", "a"]),
    (["start_time ASC"], ["a", "b", "c", "d"]),
    (["attributes.start_time DESC"], ["d", "c", "b", "a"]),
    (["metrics.m ASC"], ["a", "b", "c", "d"]),
    (["metrics.m DESC"], ["c", "b", "a", "d"]),
    (["params.p"], ["c", "a", "b", "d"]),
    (["params.p DESC"], ["b", "a", "c", "d"]),
    (["tags.t", "metrics.m DESC"], ["b", "c", "a", "d"]),
    (["tags.t DESC", "start_time"], ["a", "c", "b", "d"]),
    (["run_name DESC"], ["d", "c", "b", "a"]),
    (["metrics.`a b/c`"], ["a", "d", "c", "b"]),
    (["params.none", "start_time ASC"], ["a", "b", "c", "d"]),
]

BAD: list[dict[str, Any]] = [
    {"filter_string": "colour.x = 'red'"},
    {"filter_string": "attributes.colour = 'red'"},
    {"filter_string": "metrics.m > 'one'"},
    {"filter_string": "metrics.m LIKE '1'"},
    {"filter_string": "params.p = one"},
    {"filter_string": "params.p > '1'"},
    {"filter_string": "params.p = '1' OR params.p = '2'"},
    {"filter_string": "params.p ="},
    {"filter_string": "metrics.m"},
    {"filter_string": "dataset.colour = 'red'"},
    {"order_by": ["colour.x"]},
    {"order_by": ["attributes.colour"]},
    {"order_by": ["metrics.m SIDEWAYS"]},
    {"max_results": 50001},
    {"page_token": "not a token"},
]


class RunSearchRules(TrackingStoreSuite):
    """`search_runs` answers like MLflow's own store."""

    @pytest.fixture
    def runs(self, store: Any, experiment: str) -> str:
        """An experiment with the runs a, b, c (with metrics, params and tags) and d (bare)."""
        a = new_run(store, experiment, "a", 1000, t="red")
        b = new_run(store, experiment, "b", 2000, t="blue")
        c = new_run(store, experiment, "c", 3000, t="red")
        new_run(store, experiment, "d", 4000)
        fill(store, a, {"m": 1.0, "a b/c": 7.0}, p="one", q="x%y")
        fill(store, b, {"m": 2.0}, p="two", q="it's")
        fill(store, c, {"m": 3.0}, p="Three", q="größer 大")
        store.set_tag(b, RunTag("k.with-dots and blank", "1"))
        store.update_run_info(b, RunStatus.FINISHED, 2500, None)
        store.log_inputs(a, datasets=[dataset_input("d1")])
        store.log_inputs(b, datasets=[dataset_input("d2", context="test")])
        return experiment

    def test_run_filters(self, store: Any, runs: str) -> None:
        """Filters choose what MLflow's own store chooses; LIKE minds the case, ILIKE does not."""
        wrong: list[str] = []
        for filter_string, wanted in FILTERS:
            with noting(wrong, filter_string):
                found = sorted(names_found(store, [runs], filter_string))
                assert found == sorted(wanted), f"found {found}, not {sorted(wanted)}"
        assert not wrong, "run filters that chose the wrong runs: " + "; ".join(wrong)

    def test_run_ids_are_filtered(self, store: Any, runs: str) -> None:
        """`run_id =` and `run_id IN` choose runs by their ids."""
        ids = {r.info.run_name: r.info.run_id for r in store.search_runs([runs], "", ViewType.ALL)}
        found = names_found(store, [runs], f"attributes.run_id = '{ids['b']}'")
        assert found == ["b"], f"the filter run_id = found {found}"
        found = names_found(store, [runs], f"run_id IN ('{ids['b']}', '{ids['c']}')")
        assert found == ["c", "b"], f"the filter run_id IN found {found}"

    def test_run_order(self, store: Any, runs: str) -> None:
        """Runs without the value come last in both directions; ties go by start time, latest first."""
        wrong: list[str] = []
        for order_by, wanted in ORDERS:
            with noting(wrong, str(order_by)):
                found = names_found(store, [runs], order_by=order_by)
                assert found == wanted, f"came as {found}, not {wanted}"
        assert not wrong, "runs that came in the wrong order: " + "; ".join(wrong)

    @pytest.mark.parametrize(("direction", "wanted"), [("ASC", "lhnx"), ("DESC", "hlnx")])
    def test_nan_is_ordered_after_numbers(self, store: Any, experiment: str, direction: str, wanted: str) -> None:
        """Ordered by a metric, NaN comes after every number and before runs without the metric, in both directions."""
        for i, (name, value) in enumerate({"n": math.nan, "h": 5.0, "x": None, "l": -math.inf}.items()):
            run_id = new_run(store, experiment, name, i)
            fill(store, run_id, {} if value is None else {"m": value})
        found = "".join(names_found(store, [experiment], order_by=[f"metrics.m {direction}"]))
        assert found == wanted, (
            f"metrics.m {direction} over NaN (n), 5 (h), none (x), -inf (l) came as {found}, not {wanted}"
        )

    def test_the_order_is_global_over_experiments(self, store: Any, experiment: str) -> None:
        """With several experiments the order and the pages run over all of their runs together."""
        other = store.create_experiment("other")
        for i in range(6):
            fill(store, new_run(store, (experiment, other)[i % 2], f"r{i}", i), {"m": float(i)})
        found = names_found(store, [other, experiment], order_by=["metrics.m"])
        assert found == [f"r{i}" for i in range(6)], f"the order of runs must be global over the experiments: {found}"
        first = names_found(store, [other, experiment], order_by=["metrics.m DESC"], max_results=3)
        assert first == ["r5", "r4", "r3"], f"the first page must hold the first runs of all experiments: {first}"

    def test_only_the_named_experiments_are_searched(self, store: Any, runs: str) -> None:
        """Runs of other experiments are not found; no experiment finds nothing."""
        new_run(store, store.create_experiment("other"), "elsewhere")
        assert "elsewhere" not in names_found(store, [runs]), "search_runs found a run of another experiment"
        assert names_found(store, []) == [], "search_runs over no experiment must find nothing"

    @pytest.mark.parametrize(
        ("view", "wanted"), [(ViewType.ACTIVE_ONLY, "dca"), (ViewType.DELETED_ONLY, "b"), (ViewType.ALL, "dcba")]
    )
    def test_run_search_obeys_the_view(self, store: Any, runs: str, view: Any, wanted: str) -> None:
        """The view type chooses active, deleted or all runs."""
        deleted = next(r for r in store.search_runs([runs], "", ViewType.ALL) if r.info.run_name == "b")
        store.delete_run(deleted.info.run_id)
        found = "".join(names_found(store, [runs], run_view_type=view))
        assert found == wanted, f"search_runs with view type {view} found {found}, not {wanted}"

    def test_found_runs_are_whole(self, store: Any, runs: str) -> None:
        """A run that search finds equals the run that get_run reads."""
        for found in store.search_runs([runs], "", ViewType.ALL):
            read = store.get_run(found.info.run_id)
            assert found.to_dictionary() == read.to_dictionary(), (
                "a run found by search_runs must equal the run that get_run reads"
            )

    def test_run_pages_cover_all_once(self, store: Any, experiment: str, store_uri: str, artifact_root: str) -> None:
        """Pages hold at most max_results runs and cover all exactly once; a token serves another store instance."""
        for i in range(8):
            new_run(store, experiment, f"r{i}", start_time=i // 2)
        other = self.make_store(store_uri, artifact_root)
        turns = [store, other]

        def fetch(token: str | None) -> Any:
            turns.reverse()
            return turns[0].search_runs([experiment], "", ViewType.ALL, size, ["start_time"], token)

        for size in (1, 3, 4, 9):
            pages = all_pages(fetch)
            sizes = [len(page) for page in pages if page]
            wanted = [min(size, 8 - i) for i in range(0, 8, size)]
            ids = [run.info.run_id for page in pages for run in page]
            starts = [run.info.start_time for page in pages for run in page]
            assert sizes == wanted, f"pages of {size} runs must have the sizes {wanted}, they have {sizes}"
            assert len(set(ids)) == 8, f"pages of {size} runs must cover all 8 exactly once, they hold {len(set(ids))}"
            assert starts == sorted(starts), f"runs came out of order over the pages of {size}: {starts}"
        self.close_store(other)

    def test_bad_run_searches_are_refused(self, store: Any, runs: str) -> None:
        """A filter, order, page size or page token that MLflow does not know raises `INVALID_PARAMETER_VALUE`."""
        for kwargs in BAD:
            arguments: dict[str, Any] = {"filter_string": "", "run_view_type": ViewType.ALL} | kwargs
            with refused("INVALID_PARAMETER_VALUE", f"search_runs({kwargs})"):
                store.search_runs([runs], **arguments)

    def test_a_run_is_found_as_soon_as_it_is_written(self, store: Any, experiment: str) -> None:
        """A search right after a write sees it: clients create a run and look for it at once."""
        for i in range(5):
            run_id = new_run(store, experiment, f"r{i}")
            fill(store, run_id, {"m": float(i)})
            found = names_found(store, [experiment], f"metrics.m = {i}")
            assert found == [f"r{i}"], f"run r{i} was not found right after it was written: {found}"
