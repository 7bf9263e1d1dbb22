"""Page tokens: opaque, without state on a server, and bound to their search."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token

VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.floats(allow_nan=False)


@given(st.lists(VALUES, min_size=1, max_size=4), st.lists(VALUES, max_size=3))
def test_a_token_leads_back_to_where_the_page_ended(after: list[Any], asked: list[Any]) -> None:
    """Integers of 64 bits and any text survive; the token is safe in a URL."""
    token = encode_token(after, *asked)
    assert decode_token(token, *asked) == after
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=")


def test_no_token_is_the_first_page() -> None:
    """MLflow sends None or an empty text."""
    assert decode_token(None, "x") is None
    assert decode_token("", "x") is None


def test_a_token_of_another_search_is_refused() -> None:
    """It would begin anywhere."""
    token = encode_token([1, "a"], "filter", ["order"])
    for asked in ((), ("filter",), ("filter", ["other"]), ("other", ["order"])):
        with pytest.raises(MlflowException, match="another search") as error:
            decode_token(token, *asked)
        assert error.value.error_code == "INVALID_PARAMETER_VALUE"
    for asked, word in ((("filter", ["other"]), "the order"), (("other", ["order"]), "the filter")):
        with pytest.raises(MlflowException, match=word):
            decode_token(token, *asked, words=("the filter", "the order"))


@given(st.text() | st.binary().map(lambda raw: base64.urlsafe_b64encode(raw).decode()))
def test_a_damaged_token_is_refused(token: str) -> None:
    """Whatever a client makes up ends with a code, never with a crash."""
    if not token:
        return
    with pytest.raises(MlflowException) as error:
        decode_token(token, "x")
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("content", [1, None, [], {}, {"a": 1, "b": 2}, ["a"], [1, 2, 3], ["a", "b"], "ab", [[], []]])
def test_a_token_of_other_json_is_refused(content: Any) -> None:
    """The parts of a token are looked at before they are used."""
    token = base64.urlsafe_b64encode(json.dumps(content).encode()).decode()
    with pytest.raises(MlflowException) as error:
        decode_token(token, "x")
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"
