"""Unique names and numbers without transactions."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from mlflow_plugkit_elasticsearch import Documents, names
from mlflow_plugkit_testing.stores import together

pytestmark = pytest.mark.once

NUMBERS = """
import sys
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings, names
docs = Documents.of(ElasticsearchSettings.from_uri(sys.argv[1]))
print(*(names.next_number(docs, "c") for _ in range(20)))
"""


def claim(docs: Documents, name: str, owner: str, *live: str) -> str | None:
    return names.claim(docs, "kind", name, owner, lambda other: other in live)


def test_a_name_has_one_owner(docs: Documents) -> None:
    """Who comes second is told who has it; the owner may ask again; another kind is another name."""
    assert claim(docs, "n", "a") is None
    assert claim(docs, "n", "b") == "a"
    assert claim(docs, "n", "a") is None
    assert names.claim(docs, "other kind", "n", "b", lambda _: False) is None
    assert names.owner_of(docs, "kind", "n") == "a"
    assert names.owner_of(docs, "kind", "none") is None


def test_only_the_owner_gives_a_name_back(docs: Documents) -> None:
    """Then it is free."""
    claim(docs, "n", "a")
    names.release(docs, "kind", "n", "b")
    assert names.owner_of(docs, "kind", "n") == "a"
    names.release(docs, "kind", "n", "a")
    names.release(docs, "kind", "n", "a")
    assert claim(docs, "n", "b") is None


def test_a_claim_whose_owner_never_came_is_taken_over(docs: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute later, and only where there is no such owner."""
    claim(docs, "n", "dead")
    claim(docs, "m", "alive")
    assert claim(docs, "n", "b") == "dead"
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + names.ABANDONED_AFTER + 1)
    assert claim(docs, "m", "b", "alive") == "alive"
    assert claim(docs, "n", "b", "alive") is None
    assert names.owner_of(docs, "kind", "n") == "b"


def test_of_many_at_once_one_wins(docs: Documents) -> None:
    """All others are told the winner, also where an abandoned claim is taken over."""
    results = together(12, lambda n: claim(docs, "n", f"o{n}", *(f"o{m}" for m in range(12))))
    assert results.count(None) == 1
    assert set(results) - {None} == {f"o{results.index(None)}"}


@pytest.mark.parametrize("name", ["", " ", "\x00", "a/b", "*", "x" * 10_000, "ü😀", "_all"])
def test_any_text_is_a_name(docs: Documents, name: str) -> None:
    """Names never become ids or paths as they are."""
    assert claim(docs, name, "a") is None
    assert names.owner_of(docs, "kind", name) == "a"
    assert names.owner_of(docs, "kind", name + " ") is None


def test_numbers_are_given_once(docs: Documents, uri: str) -> None:
    """To threads and processes, always upwards, above a floor where one is given."""
    started = [
        subprocess.Popen([sys.executable, "-c", NUMBERS, uri], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    given = [n for some in together(4, lambda _: [names.next_number(docs, "c") for _ in range(20)]) for n in some]  # type: ignore[union-attr]
    for process in started:
        given += map(int, process.communicate(timeout=120)[0].split())
    assert sorted(given) == list(range(1, 121))
    assert names.next_number(docs, "c", floor=1_000) == 1_001
    assert names.next_number(docs, "c") == 1_002
    assert names.next_number(docs, "other") == 1
