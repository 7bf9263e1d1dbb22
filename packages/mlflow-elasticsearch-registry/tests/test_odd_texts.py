"""No text that a user gives becomes a part of a query, a field or the name of an index."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag
from mlflow.exceptions import MlflowException
from mlflow.utils.validation import _validate_model_name

from mlflow_plugkit_testing.stores import refused

SPECIAL = '*?%_\\"{}[]()|&<>~@#.,;=!^$+-\x00\x01\x7f\n\té大😀 \u202eNaN'
NAMES = st.text(st.sampled_from(SPECIAL) | st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
ODD = [
    '{"match_all": {}}',
    "*",
    "_all",
    "-*",
    "a,b",
    "<logstash-{now/d}>",
    "%2e%2e%2f_cluster",
    "registered-models",
    '" OR "1"="1',
    "name:*",
    "\\",
    "\x00",
    "x" * 5_000,
    "true",
    "_id",
    "😀" * 2_000,
]
KEYS = [".a", "a.", "a..b", "a b", "_id", "_source", "a/b", "-", "tags.a", "model_id", "w", "k" * 250]


def is_name(text: str) -> bool:
    try:
        _validate_model_name(text)
    except MlflowException:
        return False
    return True


@settings(max_examples=30, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES.filter(is_name), value=st.text(st.characters(exclude_categories=["Cs"]), max_size=30))
def test_any_name_and_value_come_back_as_they_were(session_store: Any, name: str, value: str) -> None:
    """A model of any name that MLflow admits is made, tagged, found by its exact name and deleted."""
    session_store.create_registered_model(name, [RegisteredModelTag("k", value)], value)
    version = session_store.create_model_version(name, f"s3://b/{value}", tags=[ModelVersionTag("k", value)])
    read = session_store.get_registered_model(name)
    assert (read.name, read.description, read.tags) == (name, value, {"k": value})
    assert [(m.name, m.version) for m in read.latest_versions] == [(name, version.version)]
    found = session_store.get_model_version(name, version.version)
    assert (found.name, found.source, found.tags) == (name, f"s3://b/{value}", {"k": value})
    session_store.delete_registered_model(name)
    assert list(session_store.search_registered_models()) == []


@pytest.fixture(scope="module")
def session_store(prefixes: Any) -> Any:
    """A registry that is empty between examples."""
    from mlflow_elasticsearch_registry.store import ElasticsearchRegistryStore

    return ElasticsearchRegistryStore(prefixes.fresh_uri())


@pytest.mark.parametrize("text", ODD, ids=range(len(ODD)))
def test_a_text_with_a_meaning_elsewhere_is_only_a_text(store: Any, text: str) -> None:
    """As name, value, alias holder, run and source; a filter for it finds this one model and no other."""
    store.create_registered_model("other", [RegisteredModelTag("k", "v")])
    store.create_model_version("other", "s3://b/m", "run")
    if is_name(text):
        store.create_registered_model(text)
        assert store.get_registered_model(text).name == text
    store.create_registered_model("m", [RegisteredModelTag("k", text)])
    store.create_model_version("m", text, text, [ModelVersionTag("k", text)])
    quote = "'" if '"' in text else '"'
    if "\x00" in text or "\\" in text or "%" in text:
        return  # sqlparse reads these differently; test_search asks for them
    for search, filter_string, wanted in (
        (store.search_registered_models, f"tags.k = {quote}{text}{quote}", ["m"]),
        (store.search_registered_models, f"tags.k != {quote}{text}{quote}", ["other"]),
        (store.search_model_versions, f"source_path = {quote}{text}{quote}", ["m"]),
        (store.search_model_versions, f"run_id = {quote}{text}{quote}", ["m"]),
        (store.search_model_versions, f"run_id != {quote}{text}{quote}", ["other"]),
    ):
        assert [one.name for one in search(filter_string)] == wanted, filter_string


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_a_tag_is_never_a_field(store: Any, key: str) -> None:
    """Dots, spaces and names of our own fields are kept as keys, and found by filters."""
    store.create_registered_model("m", [RegisteredModelTag(key, "v")])
    store.create_registered_model("n")
    store.create_model_version("m", "s3://b/m", tags=[ModelVersionTag(key, "v")])
    assert store.get_registered_model("m").tags == {key: "v"}
    assert [m.name for m in store.search_registered_models(f"tags.`{key}` = 'v'")] == ["m"]
    assert [m.name for m in store.search_model_versions(f"tags.`{key}` LIKE 'v%'")] == ["m"]
    store.delete_registered_model_tag("m", key)
    assert store.get_registered_model("m").tags == {}


@pytest.mark.parametrize(
    "act",
    [
        lambda s, t: s.create_registered_model(t),
        lambda s, t: s.get_registered_model(t),
        lambda s, t: s.create_registered_model("m", [RegisteredModelTag("k", t)]),
        lambda s, t: s.create_registered_model("m", description=t),
        lambda s, t: s.search_registered_models(f"name = '{t}'"),
        lambda s, t: s.search_model_versions(f"tags.k LIKE '{t}%'"),
    ],
)
def test_half_a_surrogate_pair_is_refused(store: Any, act: Any) -> None:
    """What no UTF-8 can hold is the user's error, and leaves nothing behind: the name stays free."""
    with refused("INVALID_PARAMETER_VALUE", "half a surrogate pair"):
        act(store, "a\ud800b")
    assert store.create_registered_model("m").name == "m"


def test_the_largest_tags_are_kept(store: Any) -> None:
    """100,000 characters come back whole and are found by equality; one more is refused."""
    largest = "größer 😀" * 12_500
    store.create_registered_model("m", [RegisteredModelTag("k", largest)])
    store.create_model_version("m", "s3://b/m", tags=[ModelVersionTag("k", largest)])
    assert store.get_registered_model("m").tags == store.get_model_version("m", 1).tags == {"k": largest}
    assert [m.name for m in store.search_registered_models(f"tags.k = '{largest}'")] == ["m"]
    assert list(store.search_registered_models(f"tags.k = '{largest[:-1]}x'")) == []
    for call in (
        lambda tag: store.set_registered_model_tag("m", RegisteredModelTag(*tag)),
        lambda tag: store.set_model_version_tag("m", 1, ModelVersionTag(*tag)),
    ):
        with refused("INVALID_PARAMETER_VALUE", "a tag of 100,001 characters"):
            call(("k", "x" * 100_001))
