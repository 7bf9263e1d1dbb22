"""Values as terms: in the order of numbers, never mixed up, and short enough for Lucene."""

from __future__ import annotations

import math
import struct
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from things import THINGS

from mlflow_plugkit_elasticsearch import Documents, encode
from mlflow_plugkit_elasticsearch.queries import between, key_equals, term

FLOATS = st.floats(allow_nan=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(FLOATS, FLOATS)
@example(0.0, -0.0)
@example(-math.inf, -1.7976931348623157e308)
@example(5e-324, 0.0)
def test_numbers_sort_as_their_texts_do(one: float, two: float) -> None:
    """Order and equality are kept, and each number comes back."""
    first, second = encode.sortable_float(one), encode.sortable_float(two)
    assert (first < second) == (one < two)
    assert (first == second) == (one == two)
    assert encode.float_of(first) == one
    assert len(first) == 16


def test_a_number_that_is_none_has_no_place_in_an_order() -> None:
    """Callers keep NaN elsewhere."""
    for bits in (b"\x7f\xf8\0\0\0\0\0\0", b"\xff\xf0\0\0\0\0\0\1"):
        with pytest.raises(ValueError, match="NaN"):
            encode.sortable_float(struct.unpack(">d", bits)[0])


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
@example("")
@example("%")
@example("a.b*c?")
@example("\x00")
def test_keys_are_safe_as_parts_of_field_names(key: str) -> None:
    """No dot, wildcard or control character is left, none is empty, and each key comes back."""
    field = encode.field_key(key)
    assert encode.key_of(field) == key
    assert field
    assert not set(field) & set(".*?\x00\n\\")


@given(TEXTS, TEXTS, TEXTS, TEXTS)
@example("a", "b", "a\x00b", "")
@example("a", "\x00b", "a\x00", "b")
def test_different_keys_without_nul_have_different_tokens(key: str, value: str, key2: str, value2: str) -> None:
    """MLflow admits no NUL in a key, so that the first one ends it."""
    if "\x00" in key or "\x00" in key2:
        return
    same = encode.token(key, value) == encode.token(key2, value2)
    assert same == ((key, value) == (key2, value2))


@given(st.lists(TEXTS), st.lists(TEXTS))
@example(["a", "b"], ["ab"])
@example(["1:a"], ["a"])
def test_different_tuples_have_different_ids(one: list[str], two: list[str]) -> None:
    """No separator in a text makes two tuples alike."""
    assert (encode.document_id(*one) == encode.document_id(*two)) == (one == two)
    assert len(encode.document_id(*one)) == 64


@pytest.mark.parametrize("unit", ["x", "ö", "大", "😀"])
def test_long_values_are_cut_to_a_term(unit: str) -> None:
    """Cut values fit into a term with their key, stay different, and stand where they stood in an order."""
    long, longer = unit * 40_000, unit * 40_000 + "!"
    assert encode.bounded(long) == encode.bounded(long) != encode.bounded(longer)
    assert encode.bounded(unit * 100) == unit * 100
    for value in (long, longer, unit * 7_000):
        assert len(encode.token("k" * 250, value).encode()) < encode.MAX_TERM_BYTES
    assert encode.bounded("a" + long) < encode.bounded("b" + long)


@pytest.mark.parametrize("make", [encode.bounded, encode.document_id, lambda text: encode.token("k", text)])
def test_half_a_surrogate_pair_is_refused(make: Any) -> None:
    """Nothing can store it."""
    with pytest.raises(MlflowException) as error:
        make("a\ud800")
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


def test_elasticsearch_takes_what_is_encoded(docs: Documents) -> None:
    """Terms of the largest size, odd keys in a flattened field and ranges of tokens work on a node."""
    values = ["x" * 100_000, "大" * 40_000, "", "\x00", "a\x00b"]
    for number, value in enumerate(values):
        numbers = {encode.field_key(key): encode.sortable_float(number) for key in ("a.b", "*", "", " ", "ü" * 40)}
        source = {"number": number, "tokens": [encode.token("k" * 250, value)], "sorted": numbers}
        docs.create(THINGS, str(number), source)
    for number, value in enumerate(values):
        assert [h.id for h in docs.scan(THINGS, key_equals("tokens", "k" * 250, value), "number")] == [str(number)]
    for key in ("a.b", "*", "", " ", "ü" * 40):
        field = f"sorted.{encode.field_key(key)}"
        assert docs.count(THINGS, term(field, encode.sortable_float(2))) == 1
        assert docs.count(THINGS, between(field, gt=encode.sortable_float(1.5), lte="f" * 16)) == 3
        order = [{field: {"order": "desc", "unmapped_type": "keyword"}}, {"number": "asc"}]
        assert [h.id for h in docs.page(THINGS, {"match_all": {}}, order, 9)] == ["4", "3", "2", "1", "0"]
