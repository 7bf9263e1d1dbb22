"""The comparison of two stores itself: what counts as equal, and how a difference is reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import rule
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList

from mlflow_plugkit_testing.differential import DifferentialMachine, Pair, compare, number, pages_of


def pair(own: Any = None, tested: Any = None) -> Pair:
    return Pair(own, tested, lambda: None)


def failing(code: int | None = None) -> Callable[[], Any]:
    def fail() -> Any:
        raise KeyError("k") if code is None else MlflowException("no", code)

    return fail


def test_nan_equals_nan_and_infinity_equals_the_largest_float() -> None:
    assert number(math.nan) == number(-math.nan) == "nan"
    assert number(math.inf) == number(1.7976931348623157e308)
    assert number(-math.inf) == number(-1.7976931348623157e308)
    assert number(-0.0) == number(0.0)
    assert number(0.1) != number(0.1 + 1e-17 + 2**-55)


def test_an_empty_last_page_does_not_count_and_any_other_does() -> None:
    def pages(*rows: str) -> Any:
        tokens = {None: 0} | {str(i): i for i in range(len(rows))}

        def fetch(token: str | None) -> Any:
            here = tokens[token]
            return PagedList(list(rows[here]), str(here + 1) if here + 1 < len(rows) else None)

        return pages_of(fetch, str.upper)

    assert pages("ab", "c") == pages("ab", "c", "") == [["A", "B"], ["C"]]
    assert pages("ab", "", "c") == [["A", "B"], [], ["C"]]


def test_a_token_that_never_ends_is_noticed() -> None:
    with pytest.raises(AssertionError, match="the token does not advance"):
        pages_of(lambda _: PagedList([1], "again"), lambda x: x)


@pytest.mark.parametrize(
    ("own", "tested", "agree"),
    [
        (lambda: 1, lambda: 1, True),
        (lambda: 1, lambda: 2, False),
        (lambda: None, failing(INVALID_PARAMETER_VALUE), False),
        (failing(INVALID_PARAMETER_VALUE), lambda: None, False),
        (failing(INVALID_PARAMETER_VALUE), failing(INVALID_PARAMETER_VALUE), True),
        (failing(INVALID_PARAMETER_VALUE), failing(RESOURCE_DOES_NOT_EXIST), False),
        (failing(INTERNAL_ERROR), failing(INVALID_PARAMETER_VALUE), True),
        (failing(INTERNAL_ERROR), failing(), False),
        (failing(INTERNAL_ERROR), lambda: None, False),
        (failing(INVALID_PARAMETER_VALUE), failing(), False),
    ],
)
def test_answers_agree_by_value_or_by_promised_error_code(own: Any, tested: Any, agree: bool) -> None:
    stores = pair(SimpleNamespace(ask=own), SimpleNamespace(ask=tested))
    if agree:
        stores.same("ask", lambda side: side.store.ask())
    else:
        with pytest.raises(AssertionError, match="ask: the store under test answers differently"):
            stores.same("ask", lambda side: side.store.ask())


def test_ids_that_the_stores_choose_are_compared_by_name() -> None:
    stores = pair("1", "2")
    assert stores.make("run1", "create", lambda side: f"id-{side.store}")
    stores.same("read", lambda side: side.name_of(f"id-{side.store}"))
    assert stores.same("name", lambda side: side.name_of("id-other")) == "unknown id id-other"


class Counting(DifferentialMachine):
    examples = 0
    longest = 0

    def __init__(self) -> None:
        super().__init__()
        Counting.examples += 1
        self.steps = 0

    @rule()
    def step(self) -> None:
        self.steps += 1
        Counting.longest = max(Counting.longest, self.steps)


def test_the_environment_sets_the_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_PLUGKIT_DIFFERENTIAL_EXAMPLES", "7")
    monkeypatch.setenv("MLFLOW_PLUGKIT_DIFFERENTIAL_STEPS", "11")
    Counting.examples = Counting.longest = 0
    compare(Counting, pair, examples=1, steps=1)
    assert 1 < Counting.examples <= 7
    assert 1 < Counting.longest <= 11


class Shelf:
    def __init__(self, lost: str = "") -> None:
        self.items: list[str] = []
        self.lost = lost

    def add(self, item: str) -> None:
        if item != self.lost:
            self.items.append(item)


class ShelfMachine(DifferentialMachine):
    @rule(item=st.sampled_from(["a", "b", "c"]))
    def add(self, item: str) -> None:
        self.pair.same("add", lambda side: side.store.add(item))

    @rule()
    def read(self) -> None:
        self.pair.same("read", lambda side: list(side.store.items))


def test_a_difference_is_shrunk_to_a_few_readable_operations() -> None:
    with pytest.raises(AssertionError) as caught:
        compare(ShelfMachine, lambda: pair(Shelf(), Shelf(lost="b")), examples=20, steps=20)
    report = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    operations = [line.strip() for line in report.splitlines() if line.startswith("state.") and "teardown" not in line]
    assert operations == ["state.add(item='b')", "state.read()"], report
    assert "read: the store under test answers differently" in report
    assert "MLflow's own store: returns ['b']" in report
