"""The comparison of two stores itself: what counts as equal, and how a difference is reported."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis.stateful import rule
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST
from mlflow.store.entities.paged_list import PagedList

from mlflow_plugkit_testing.differential import DifferentialMachine, Pair, compare, number, pages_of
from mlflow_plugkit_testing.differential_rules import DifferentialRegistryRules
from mlflow_plugkit_testing.stores_lazy import LazyRegistryStore
from mlflow_plugkit_testing.stores_sqlite import fresh_sqlite_uri


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


def test_a_difference_is_shrunk_to_a_few_readable_operations(tmp_path: Path) -> None:
    class Forgetful(LazyRegistryStore):
        def set_model_version_tag(self, name: str, version: Any, tag: Any) -> None:
            super().get_model_version(name, version)

    class Suite(DifferentialRegistryRules):
        def make_store(self, uri: str, tracking_uri: str | None) -> Any:
            return Forgetful(uri)

    with pytest.raises(AssertionError) as caught:
        Suite().test_the_registry_behaves_as_mlflows_own_store(lambda: fresh_sqlite_uri(tmp_path), tmp_path)
    report = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    operations = [
        line
        for line in report.splitlines()
        if "state." in line and "state.start" not in line and "teardown" not in line
    ]
    assert [line.split("(")[0].strip() for line in operations] == [
        "state.tag_model_version",
    ], report
    assert "get_model_version: the store under test answers differently" in report
