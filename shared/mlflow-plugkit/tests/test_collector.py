"""The garbage collector is paused exactly while somebody needs it to be, and is left as the application had it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from mlflow_plugkit.collector import collector_paused


@pytest.fixture(autouse=True)
def collector_on() -> Iterator[None]:
    """The collector is on, before and after."""
    gc.enable()
    yield
    gc.enable()


def test_it_is_off_inside_and_on_afterwards() -> None:
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_is_on_after_an_error() -> None:
    with pytest.raises(KeyError), collector_paused():
        raise KeyError
    assert gc.isenabled()


def test_it_stays_off_where_the_application_turned_it_off() -> None:
    gc.disable()
    with collector_paused():
        pass
    assert not gc.isenabled()


def test_the_last_thread_turns_it_on() -> None:
    inside, leave = threading.Event(), threading.Event()

    def other() -> None:
        with collector_paused():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with collector_paused():
        thread.start()
        assert inside.wait(10)
    assert not gc.isenabled()
    leave.set()
    thread.join(10)
    assert gc.isenabled()
