"""Searching runs: the same answers, in the same order, as MLflow's own store on SQLite."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from twins import FAILED, KEYS, METRICS, NAN_METRIC, TEXTS, VALUES, Twins, make_twins

from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes
from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_tracking_store

COMPARES = ["=", "!=", "<", "<=", ">", ">="]
NUMBERS = [*map(repr, VALUES), "1e400", "-7", "1.5"]


@pytest.fixture(scope="module")
def twins(prefixes: Prefixes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Twins]:
    """Both stores, filled with the same."""
    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

    folder = tmp_path_factory.mktemp("twins")
    sql = sqlite_tracking_store(folder)
    uri = prefixes.fresh_uri()
    own = ElasticsearchTrackingStore(uri, folder.as_uri())
    prefixes.opened(uri, own)
    yield make_twins(sql, own)
    prefixes.closed(own)
    dispose(sql)


def quoted(text: str) -> str:
    """The text between quotes that it does not hold."""
    return f'"{text}"' if "'" in text else f"'{text}'"


def pattern(text: str, wild: str, place: int) -> str:
    """The text with some of it replaced by a wildcard."""
    cut = place % (len(text) + 1)
    return text[:cut] + wild + text[cut + (wild == "_") :]


words = st.sampled_from(TEXTS) | st.text(st.sampled_from("oneONE%_\\*?.[] é"), max_size=6)
patterns = st.builds(pattern, words, st.sampled_from(["%", "_", "", "%%"]), st.integers(0, 9)) | words
keys = st.sampled_from([*KEYS, "absent"]).map("`{}`".format)
likes = st.sampled_from(["LIKE", "ILIKE", "like", "=", "!="])
texts = st.builds("{} {}".format, likes, patterns.map(quoted))
nulls = st.sampled_from(["IS NULL", "IS NOT NULL"])
names = st.sampled_from(["run_name", "`Run name`", "user_id", "status", "artifact_uri", "attributes.run_id"])
lists = st.lists(st.sampled_from(["train", "Test", "d0", "d1", "data one", "x" * 2_000]), min_size=1, max_size=3)
clauses = st.one_of(
    st.builds("{}.{} {}".format, st.sampled_from(["params", "tags"]), keys, texts | nulls),
    st.builds("{} {}".format, names, texts | patterns.map("ILIKE {!r}".format)),
    st.builds(
        "metrics.{} {} {}".format,
        st.sampled_from([*METRICS, NAN_METRIC, "absent"]).map("`{}`".format),
        st.sampled_from(COMPARES),
        st.sampled_from(NUMBERS),
    ),
    st.builds(
        "{} {} {}".format,
        st.sampled_from(["start_time", "end_time", "Created"]),
        st.sampled_from(COMPARES),
        st.sampled_from(["1001", "1002.5", "2003", "0", "-1", "9223372036854775807", "1e30"]),
    ),
    st.builds("dataset.{} {}".format, st.sampled_from(["name", "digest", "context"]), texts),
    st.builds(
        "dataset.{} {} {}".format,
        st.sampled_from(["name", "digest", "context"]),
        st.sampled_from(["IN", "NOT IN"]),
        lists.map(lambda given: f"({', '.join(map(quoted, given))})"),
    ),
    st.sampled_from(
        ["colour.x = '1'", "params.p > '1'", "metrics.m = 'x'", "status IN ('a')", "a", "metrics.m LIKE 1"]
    ),
)
filters = st.lists(clauses, max_size=3).map(" AND ".join)
columns = st.one_of(
    st.builds("{}.{}".format, st.sampled_from(["params", "tags"]), keys),
    st.sampled_from([*METRICS, NAN_METRIC, "absent"]).map("metrics.`{}`".format),
    st.sampled_from(["start_time", "end_time", "run_name", "status", "user_id", "artifact_uri", "run_id", "Created"]),
)
orders = st.lists(st.builds("{} {}".format, columns, st.sampled_from(["ASC", "DESC", ""])), max_size=3)


class TestLikeMlflowsOwnStore:
    """One search in both stores."""

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(filter_string=filters, view=st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL]))
    def test_filters_choose_the_same_runs(self, twins: Twins, filter_string: str, view: int) -> None:
        """Comparisons of all kinds, also nonsense, give the same runs or the same error code."""
        assume(twins.reads_nan or NAN_METRIC not in filter_string)
        wanted = twins.search(twins.sql, filter_string, [], view=view, size=100)
        assume(wanted != FAILED)  # of older MLflows, with a dataset and something else in one filter
        assert twins.search(twins.own, filter_string, [], view=view, size=100) == wanted

    @settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(order_by=orders, size=st.sampled_from([3, 7, 50]))
    def test_orders_are_the_same(self, twins: Twins, order_by: list[str], size: int) -> None:
        """Values of all kinds, NaN and what is missing come in the same order, page by page, over both experiments."""
        wanted = twins.search(twins.sql, "", order_by, size=size)
        assert twins.search(twins.own, "", order_by, size=size) == wanted

    def test_runs_are_whole(self, twins: Twins) -> None:
        """A run that was found has all that MLflow's own has: as entity, as dictionary and as message."""
        ours, _ = twins.own._search_runs(twins.experiments, "", ViewType.ALL, 1_000, [], None)
        theirs, _ = twins.sql._search_runs(twins.experiments, "", ViewType.ALL, 1_000, [], None)
        assert len(ours) == len(twins.run_ids)
        for own, other in zip(ours, theirs, strict=True):
            assert repr(own.info) == repr(other.info)
            assert repr(sorted(own.data.metrics.items())) == repr(sorted(other.data.metrics.items()))
            assert (own.data.params, own.data.tags) == (other.data.params, other.data.tags)
            assert own.to_dictionary().keys() == other.to_dictionary().keys()
            assert own.to_proto().info == other.to_proto().info
            assert sorted(map(str, own.to_proto().data.metrics)) == sorted(map(str, other.to_proto().data.metrics))


class TestPages:
    """Pages and their tokens."""

    def test_a_page_may_be_as_long_as_all_runs(self, twins: Twins) -> None:
        """A page that holds the last run has no token, even if it is full."""
        active = sum(map(len, twins.search(twins.sql, "", [])))
        runs, token = twins.own._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, active, [], None)
        assert (len(runs), token) == (active, None)

    def test_a_token_outlives_its_store(self, twins: Twins) -> None:
        """Another instance goes on where the first one ended."""
        from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

        first, token = twins.own._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, 10, ["metrics.m"], None)
        other = ElasticsearchTrackingStore(twins.own.settings.location)
        second, _ = other._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, 10, ["metrics.m"], token)
        wanted = twins.search(twins.sql, "", ["metrics.m"], size=20)[0]
        assert [run.info.run_id for run in first + second] == wanted

    @pytest.mark.parametrize("token", ["nonsense", "bm9uc2Vuc2U=", "eyJvZmZzZXQiOiA1fQ==", "😀"])
    def test_a_bad_token_is_refused(self, twins: Twins, token: str) -> None:
        """A damaged token, or one of MLflow's own store, is `INVALID_PARAMETER_VALUE`."""
        with pytest.raises(MlflowException) as raised:
            twins.own._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, 10, [], token)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"

    def test_a_token_belongs_to_its_search(self, twins: Twins) -> None:
        """With another order, a token would mean nothing: it is refused."""
        _, token = twins.own._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, 10, ["metrics.m"], None)
        with pytest.raises(MlflowException, match="another search"):
            twins.own._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, 10, ["metrics.M"], token)

    @pytest.mark.parametrize("size", [0, -1, 50_001])
    def test_a_bad_size_is_refused(self, twins: Twins, size: int) -> None:
        """A page has between 1 and 50,000 runs."""
        with pytest.raises(MlflowException) as raised:
            twins.own._search_runs(twins.experiments, "", ViewType.ACTIVE_ONLY, size, [], None)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"


class TestExperimentIds:
    """Which experiments are searched."""

    def test_no_experiment_has_no_runs(self, twins: Twins) -> None:
        """As in MLflow's own store."""
        assert twins.own._search_runs([], "", ViewType.ALL, 10, [], None) == ([], None)

    @pytest.mark.parametrize("wrong", ["one", "1.5", "", None, "1 OR 1"])
    def test_an_id_that_is_no_number_is_refused(self, twins: Twins, wrong: Any) -> None:
        """MLflow's experiment ids are integers."""
        with pytest.raises(MlflowException) as raised:
            twins.own._search_runs(["1", wrong], "", ViewType.ALL, 10, [], None)
        assert raised.value.error_code == "INVALID_PARAMETER_VALUE"

    def test_tens_of_thousands_of_experiments_are_one_request(self, twins: Twins) -> None:
        """Neighbours become ranges, so that a list of all experiments is a short query; gaps in it are no matter."""
        ids = [str(number) for number in range(150_000) if number % 1_000 != 999]
        ids += [str(number) for number in range(200_000, 340_000, 2)]
        runs, _ = twins.own._search_runs(ids, "tags.p = 'one'", ViewType.ALL, 100, [], None)
        wanted = twins.search(twins.sql, "tags.p = 'one'", [], view=ViewType.ALL, size=100)[0]
        assert [run.info.run_id for run in runs] == wanted


def test_what_this_process_wrote_is_found_at_once(store: Any) -> None:
    """A search sees the writes before it."""
    experiment = store.create_experiment("at once")
    for number in range(3):
        run = store.create_run(experiment, "ada", number, [], f"run {number}")
        found, _ = store._search_runs([experiment], "", ViewType.ACTIVE_ONLY, 10, [], None)
        assert found[0].info.run_id == run.info.run_id
        assert len(found) == number + 1
