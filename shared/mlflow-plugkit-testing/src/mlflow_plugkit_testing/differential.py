"""Differential testing of stores: MLflow's own SQLite store and the store under test get the same operations.

A Hypothesis state machine draws the operations; after each one the answers, the errors and what can be
read are compared. A failure is shrunk to a short sequence of operations and printed as Python calls.

Environment variables, for longer searches than the small deterministic default:

- `MLFLOW_PLUGKIT_DIFFERENTIAL_EXAMPLES`: how many sequences are tried.
- `MLFLOW_PLUGKIT_DIFFERENTIAL_STEPS`: how many operations a sequence has at most.
- `MLFLOW_PLUGKIT_DIFFERENTIAL_RANDOM=1`: new sequences in each run, instead of always the same.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.stores import all_pages

LARGEST = 1.7976931348623157e308
#: What SQLAlchemy and SQLite say of SQL that MLflow's own store got wrong.
NO_SQL = ("(sqlite3.OperationalError)", "Can't determine which FROM clause to join from")
PROMISED_CODES = {"INVALID_PARAMETER_VALUE", "RESOURCE_DOES_NOT_EXIST", "RESOURCE_ALREADY_EXISTS", "INVALID_STATE"}


@dataclass(frozen=True)
class Side:
    """One of the two stores, with the ids that it chose for the things the machine made.

    Attributes:
        store: a tracking store or a model registry store.
        ids: the machine's own name of a thing ("run0") to this store's id.
    """

    store: Any
    ids: dict[str, str] = field(default_factory=dict)

    def name_of(self, store_id: str) -> str:
        """The machine's name of the thing that has this id in this store."""
        return next((name for name, own in self.ids.items() if own == store_id), f"unknown id {store_id}")


Operation = Callable[[Side], Any]


class Pair:
    """MLflow's own store and the store under test.

    Args:
        own: MLflow's own store, fresh.
        tested: the store under test, fresh.
        close: called once at the end.

    Attributes:
        ordered_histories: whether this MLflow's own store orders and pages metric histories (3.x).
        agreed: whether all answers were the same so far.
    """

    ordered_histories = True
    agreed = True

    def __init__(self, own: Any, tested: Any, close: Callable[[], None]) -> None:
        self.own, self.tested, self.close = Side(own), Side(tested), close

    def same(self, what: str, operation: Operation) -> Any:
        """Run the operation on both sides, compare the answers, return the answer or None for an error.

        The operation returns plain data in which the stores' ids are replaced by the machine's names.
        An error counts by its code. Where MLflow's own store fails with a code that is no promise
        (`INTERNAL_ERROR`, `BAD_REQUEST`), any `MlflowException` will do; where it sends its database SQL that is
        none (some filters of MLflow 3.6 do), any answer will.
        """
        _wait_for_the_next_millisecond()
        expected, got = _answer(operation, self.own), _answer(operation, self.tested)
        if any(words in expected.message for words in NO_SQL):
            self.agreed = not got.crashed
        elif expected.error is not None and expected.error not in PROMISED_CODES:
            self.agreed = got.error is not None and not got.crashed
        else:
            self.agreed = (expected.error, expected.value) == (got.error, got.value)
        assert self.agreed, (
            f"{what}: the store under test answers differently from MLflow's own store\n"
            f"  MLflow's own store: {expected}\n  store under test:   {got}"
        )
        return expected.value if expected.error is None else None

    def make(self, name: str, what: str, operation: Callable[[Side], str]) -> bool:
        """Like `same`, for an operation that makes a thing and returns its id; remember it as `name`."""

        def remember(side: Side) -> str:
            side.ids[name] = operation(side)
            return name

        return self.same(what, remember) is not None


@dataclass(frozen=True)
class _Answer:
    value: Any = None
    error: str | None = None
    message: str = ""
    crashed: bool = False

    def __str__(self) -> str:
        return f"raises {self.error} ({self.message[:300]})" if self.error else f"returns {self.value!r}"


def _answer(operation: Operation, side: Side) -> _Answer:
    try:
        return _Answer(value=operation(side))
    except MlflowException as exc:
        return _Answer(error=exc.error_code, message=str(exc.message))
    except Exception as exc:  # noqa: BLE001 (any other error is an answer too, and equals no promised code)
        return _Answer(error=type(exc).__name__, message=str(exc), crashed=True)


def _wait_for_the_next_millisecond() -> None:
    """Stores write times in milliseconds and order by them: no two operations may share one."""
    start = time.time_ns() // 1_000_000
    while time.time_ns() // 1_000_000 == start:
        time.sleep(0.0002)


def number(value: float) -> str:
    """A metric's value in the form that is compared: NaN equals NaN, infinities equal the largest float."""
    if math.isnan(value):
        return "nan"
    return repr(max(-LARGEST, min(LARGEST, value)) + 0.0)


def pages_of(fetch: Callable[[str | None], Any], shown: Callable[[Any], Any]) -> list[list[Any]]:
    """All pages in their form to compare; an empty last page, which MLflow's own stores may give, is left out."""
    pages = [[shown(item) for item in page] for page in all_pages(fetch)]
    return pages[:-1] if pages and not pages[-1] else pages


class DifferentialMachine(RuleBasedStateMachine):
    """Base of the state machines; `new_pair` is set on a subclass for each test.

    A sequence of operations ends with `audit`, so that a wrong answer to one of its fixed questions is
    found by every sequence, and random operations are left to bring about the rare states.
    """

    new_pair: Callable[[], Pair]

    def __init__(self) -> None:
        super().__init__()
        self.pair = type(self).new_pair()
        self.made = 0

    def teardown(self) -> None:
        """Compare the final states, unless an operation has shown a difference already; close both stores."""
        try:
            if self.pair.agreed:
                self.audit()
        finally:
            self.pair.close()

    def audit(self) -> None:
        """Ask both stores the same fixed questions about their final state."""

    def new_name(self, kind: str) -> str:
        """A name for the next thing that the machine makes."""
        self.made += 1
        return f"{kind}{self.made}"


def compare(
    machine: type[DifferentialMachine], new_pair: Callable[[], Pair], examples: int, steps: int, shrink: bool = True
) -> None:
    """Run a state machine; raise its (shrunk) failure.

    Args:
        machine: the operations.
        new_pair: makes two fresh stores; called once for each example.
        examples: sequences to try, unless the environment says otherwise.
        steps: operations in a sequence, unless the environment says otherwise.
        shrink: look for a shorter sequence that fails too; costs as many examples again.
    """
    phases = tuple(p for p in Phase if p is not Phase.explain and (shrink or p is not Phase.shrink))
    run_state_machine_as_test(
        type(machine.__name__, (machine,), {"new_pair": staticmethod(new_pair)}),
        settings=settings(
            max_examples=int(os.environ.get("MLFLOW_PLUGKIT_DIFFERENTIAL_EXAMPLES", examples)),
            stateful_step_count=int(os.environ.get("MLFLOW_PLUGKIT_DIFFERENTIAL_STEPS", steps)),
            derandomize=os.environ.get("MLFLOW_PLUGKIT_DIFFERENTIAL_RANDOM", "") != "1",
            database=None,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )
