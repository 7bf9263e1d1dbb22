"""Searches find, order and refuse what MLflow's own store does: both are asked the same on the same data."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.stores import all_pages

TEXTS = ["one", "One", "ONE", "größer", "GRÖSSER", "50%", "a_b", "axb", "a*b", "a?b", "a\\b", "x.y", "", " ", "😀"]
TEXTS += ["it`s", "[a-z]+", "true", "line\nbreak"]
NAMES = ["alpha", "Alpha", "al_pha", "al%pha", "al*pha", "beta-1", "größer", "GRÖSSER", "a.b", "b\\c", "😀", "it's"]
KEYS = ["t", "T", "k.a b", "a-b_c", "mlflow.prompt.is_prompt"]
TEXT_OPS = ["=", "!=", "LIKE", "ILIKE", "like"]
PATTERNS = [
    "%",
    "_",
    "a%",
    "A%",
    "%a%",
    "al_pha",
    "al\\%",
    "%\\%",
    "a*b",
    "%ö%",
    "%Ö%",
    "",
    "%e",
    "😀",
    "_*_",
    "%%",
    "s3://%",
]
LONG = "x" * 50_000 + "end"


def fill(store: Any) -> None:
    """Models and versions whose names, tags and sources hold what is easily confused; two of them are prompts."""
    for number, name in enumerate(NAMES):
        at = time.time_ns() // 1_000_000
        while time.time_ns() // 1_000_000 == at:
            pass  # models are ordered by their milliseconds
        tags = [RegisteredModelTag(key, TEXTS[(number * 5 + i) % len(TEXTS)]) for i, key in enumerate(KEYS[:4])]
        prompt = [RegisteredModelTag(KEYS[4], "true" if number % 2 else "false")] if number % 4 < 2 else []
        store.create_registered_model(name, tags[number % 3 :] + prompt)
        for place in range(1 + number % 4):
            text = TEXTS[(number * 7 + place) % len(TEXTS)]
            tags = [ModelVersionTag(key, text if i else text * 2) for i, key in enumerate(KEYS[place:4])]
            if number in (1, 5) and place == 0:
                tags.append(ModelVersionTag(KEYS[4], "true"))
            run_id = [None, "run1", "Run1", "r%n1"][(number + place) % 4]
            store.create_model_version(name, f"s3://bucket/{text}", run_id, tags)
    store.set_model_version_tag("alpha", 1, ModelVersionTag("long", LONG))
    store.set_registered_model_tag("alpha", RegisteredModelTag("long", LONG))
    store.delete_model_version("beta-1", 1)


@pytest.fixture(scope="module")
def filled(prefixes: Any) -> Iterator[tuple[Any, Any]]:
    """MLflow's own store and ours, which hold the same."""
    from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore
    from mlflow_plugkit_testing.stores_sqlite import dispose, sqlite_registry_store

    own, store = sqlite_registry_store(), ElasticsearchRegistryStore(prefixes.fresh_uri())
    for one in (own, store):
        fill(one)
    yield own, store
    dispose(own)


def found(store: Any, search: str, filter_string: str | None, order_by: Any = None, size: int = 1000) -> Any:
    """What a search finds, page by page, or its error code."""
    try:
        pages = all_pages(lambda token: getattr(store, search)(filter_string, size, order_by, token))
    except MlflowException as exc:
        return exc.error_code
    shown = [[(m.name, getattr(m, "version", ""), dict(m._tags)) for m in page] for page in pages]
    return shown[:-1] if not shown[-1] else shown


def agree(filled: tuple[Any, Any], search: str, *asked: Any) -> None:
    """Assert that both stores answer the same."""
    expected, got = found(filled[0], search, *asked), found(filled[1], search, *asked)
    if expected in ("INTERNAL_ERROR", "BAD_REQUEST"):  # no promise: any error will do
        assert isinstance(got, str), asked
    else:
        assert got == expected, asked


def quoted(text: str) -> str:
    return f'"{text}"' if "'" in text else f"'{text}'"


def listed(items: list[str]) -> str:
    return "(" + ", ".join(quoted(i) for i in items) + ")"


NUMBERS = st.sampled_from([0, 1, 2, 3, -1, 2**31, 2**62])
TEXT_COMPARISON = st.one_of(
    st.builds(lambda o, v: f"{o} {quoted(v)}", st.sampled_from(TEXT_OPS), st.sampled_from(PATTERNS + NAMES + TEXTS)),
    st.builds(
        lambda o, v: f"{o} {listed(v)}",
        st.sampled_from(["IN", "NOT IN"]),
        st.lists(st.sampled_from([*NAMES, "run1", "none"]), min_size=1, max_size=3),
    ),
)
TAG = st.builds(
    lambda k, o, v: f"tags.`{k}` {o} {quoted(v)}",
    st.sampled_from(KEYS),
    st.sampled_from(TEXT_OPS),
    st.sampled_from([*PATTERNS, *TEXTS, "true", "TRUE", "false"]),
)
VERSION_CLAUSE = st.one_of(
    st.builds(lambda a, c: f"{a} {c}", st.sampled_from(["name", "run_id", "source_path"]), TEXT_COMPARISON),
    st.builds(lambda o, n: f"version_number {o} {n}", st.sampled_from([">", ">=", "<", "<=", "=", "!="]), NUMBERS),
    TAG,
)
MODEL_CLAUSE = st.one_of(st.builds(lambda c: f"name {c}", TEXT_COMPARISON), TAG)
MODEL_ORDER = st.lists(st.sampled_from(["name", "name DESC", "timestamp", "last_updated_timestamp DESC"]), max_size=1)
VERSION_ORDER = st.lists(
    st.sampled_from(
        ["name", "name DESC", "version_number", "version_number DESC", "creation_timestamp", "last_updated_timestamp"]
    ),
    max_size=3,
    unique_by=lambda clause: clause.split()[0],
)
THOROUGH = settings(
    max_examples=150, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@THOROUGH
@given(clauses=st.lists(MODEL_CLAUSE, max_size=2), order_by=MODEL_ORDER, size=st.sampled_from([3, 1000]))
def test_registered_models_are_found_as_in_mlflows_own_store(
    filled: tuple[Any, Any], clauses: list[str], order_by: list[str], size: int
) -> None:
    """Random filters, orders and pages of registered models have one answer."""
    agree(filled, "search_registered_models", " AND ".join(clauses), order_by, size)


@THOROUGH
@given(clauses=st.lists(VERSION_CLAUSE, max_size=2), order_by=VERSION_ORDER, size=st.sampled_from([3, 1000]))
def test_versions_are_found_as_in_mlflows_own_store(
    filled: tuple[Any, Any], clauses: list[str], order_by: list[str], size: int
) -> None:
    """Random filters, orders and pages of versions have one answer."""
    agree(filled, "search_model_versions", " AND ".join(clauses), order_by, size)


@pytest.mark.parametrize(
    "filter_string",
    [
        "tags.long LIKE '%end'",
        "tags.long LIKE '%enx'",
        "tags.long ILIKE 'X%END'",
        f"tags.long = '{LONG}'",
        f"tags.long != '{LONG}'",
        f"tags.long != '{LONG}x'",
        f"tags.long LIKE '{'x' * 2000}%'",
    ],
)
@pytest.mark.parametrize("search", ["search_registered_models", "search_model_versions"])
def test_a_tag_longer_than_a_term_is_compared_to_its_end(
    filled: tuple[Any, Any], search: str, filter_string: str
) -> None:
    """A value of 50,003 characters equals itself alone, and patterns see its end."""
    agree(filled, search, filter_string)


@pytest.mark.parametrize(
    "filter_string",
    [
        "version_number > 1.5",
        "version_number = 'x'",
        "version_number = '1'",
        "tags.t IN ('a')",
        "name > 'a'",
        "t = 'a'",
        "name = 'a' OR name = 'b'",
        "name = a",
        "source_path IN ('a')",
        "version_number LIKE '1'",
        "params.x = '1'",
        "version_number < 99999999999999999999999",
        "version_number != -99999999999999999999999",
        "name IN ()",
    ],
)
@pytest.mark.parametrize("search", ["search_registered_models", "search_model_versions"])
def test_odd_filters_end_as_in_mlflows_own_store(filled: tuple[Any, Any], search: str, filter_string: str) -> None:
    """What the grammar does not take is refused with the same code; what it takes has the same answer."""
    expected = found(filled[0], search, filter_string)
    if expected in ("BAD_REQUEST", "INTERNAL_ERROR") or "99999" in filter_string:  # SQLite's integers end earlier
        assert found(filled[1], search, filter_string) is not None
        return
    if filter_string in ("version_number > 1.5", "version_number = 'x'"):  # MLflow 3.14 and older compared these
        expected = "INVALID_PARAMETER_VALUE"
    assert found(filled[1], search, filter_string) == expected


@pytest.mark.parametrize(
    "order_by", [["name", "name DESC"], ["nothing"], ["name UP"], ["timestamp", "timestamp"], [""]]
)
@pytest.mark.parametrize("search", ["search_registered_models", "search_model_versions"])
def test_a_bad_order_is_refused(filled: tuple[Any, Any], search: str, order_by: list[str]) -> None:
    """An unknown key, one that stands twice and an unknown direction are refused, as by MLflow's own store."""
    agree(filled, search, None, order_by)
    assert found(filled[1], search, None, order_by) == "INVALID_PARAMETER_VALUE"


def test_a_page_token_belongs_to_its_search(store: Any) -> None:
    """A token of another filter, order or kind of search is refused, and so is a damaged one."""
    for name in "abc":
        store.create_registered_model(name)
    token = store.search_registered_models("name LIKE '%'", 1).token
    assert [m.name for m in store.search_registered_models("name LIKE '%'", 5, None, token)] == ["b", "c"]
    for call in (
        lambda: store.search_registered_models(None, 1, None, token),
        lambda: store.search_registered_models("name LIKE '%'", 1, ["name DESC"], token),
        lambda: store.search_model_versions("name LIKE '%'", 1, None, token),
        lambda: store.search_registered_models("name LIKE '%'", 1, None, token[:-6]),
    ):
        with pytest.raises(MlflowException) as refused:
            call()
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"


def test_a_listing_takes_two_searches_however_many_models_it_has(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and their latest versions come by one search and one read of many documents."""
    for number in range(12):
        store.create_registered_model(f"m{number:02}")
        store.create_model_version(f"m{number:02}", "s3://b/m")
    store.search_registered_models()
    asked: list[str] = []
    request = store.docs.cluster.request

    def noted(method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        asked.append(path.rpartition("/")[2])
        return request(method, path, *args, **kwargs)

    monkeypatch.setattr(store.docs.cluster, "request", noted)
    models = store.search_registered_models(max_results=10)
    assert [len(m.latest_versions) for m in models] == [1] * 10
    assert asked == ["_search", "_mget"]
