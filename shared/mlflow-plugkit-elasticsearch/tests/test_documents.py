"""Documents: real-time reads, conditional writes that survive lost answers, and searches that see one's own writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from things import THINGS

from mlflow_plugkit_elasticsearch import Action, Conflict, Documents, bulk, documents
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, between, equals, term
from mlflow_plugkit_testing.faults import Fault, FaultProxy
from mlflow_plugkit_testing.stores import refused, together

pytestmark = pytest.mark.once

ODD_IDS = ["a/b", "a b", "..", "?x=1", "#", "%2F", "ü😀", "_id", "a\\b", "*", "x" * 500]
COUNT_UP = """
import sys
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
sys.path.insert(0, sys.argv[2])
from things import THINGS
docs = Documents.of(ElasticsearchSettings.from_uri(sys.argv[1]))
for _ in range(20):
    docs.update(THINGS, "x", lambda source: source | {"number": source["number"] + 1})
"""


def source_of(docs: Documents, doc_id: str) -> Any:
    found = docs.get(THINGS, doc_id)
    return None if found is None else {k: v for k, v in found.source.items() if k != documents.NONCE}


def test_a_write_is_read_at_once_and_found_at_once(docs: Documents) -> None:
    """By id through the real-time read, and by this process's next search; so are changes and deletions."""
    made = docs.create(THINGS, "x", {"number": 1, "name": "ü"})
    assert source_of(docs, "x") == {"number": 1, "name": "ü"}
    assert docs.count(THINGS, equals("name", "ü")) == 1
    changed = docs.put(THINGS, "x", {"number": 2, "name": "v"}, made)
    assert docs.count(THINGS, equals("name", "v")) == 1
    assert docs.delete(THINGS, "x", changed)
    assert docs.count(THINGS, MATCH_ALL) == 0
    assert source_of(docs, "x") is None


@pytest.mark.parametrize("doc_id", ODD_IDS, ids=range(len(ODD_IDS)))
def test_any_id_is_one_document(docs: Documents, doc_id: str) -> None:
    """No character of an id becomes a part of the path."""
    docs.create(THINGS, "other", {"number": 2})
    docs.create(THINGS, doc_id, {"number": 1})
    assert source_of(docs, doc_id) == {"number": 1}
    assert set(docs.get_many(THINGS, [doc_id, "other", "none"])) == {doc_id, "other"}
    assert [d.id if d else None for d in docs.get_each([(THINGS, doc_id), (THINGS, "none")])] == [doc_id, None]
    assert docs.delete(THINGS, doc_id)
    assert source_of(docs, "other") == {"number": 2}


def test_conditions_are_kept(docs: Documents) -> None:
    """A document is created once, and changed or deleted only in the state that was read."""
    first = docs.create(THINGS, "x", {"number": 1})
    with pytest.raises(Conflict):
        docs.create(THINGS, "x", {"number": 2})
    second = docs.put(THINGS, "x", {"number": 3}, first)
    for call in (lambda: docs.put(THINGS, "x", {"number": 4}, first), lambda: docs.delete(THINGS, "x", first)):
        with pytest.raises(Conflict):
            call()
    assert source_of(docs, "x") == {"number": 3}
    assert docs.delete(THINGS, "x", second)
    with pytest.raises(Conflict):
        docs.put(THINGS, "x", {"number": 5}, second)
    docs.create(THINGS, "x", {"number": 6})


@pytest.mark.parametrize("action", ["create", "put", "delete", "bulk-create", "bulk-put", "bulk-delete"])
def test_a_lost_answer_is_no_conflict(proxied: tuple[FaultProxy, Callable[..., Documents]], action: str) -> None:
    """The repetition of one's own write meets that write, and is told apart from another's."""
    proxy, make = proxied
    docs = make()
    there = docs.create(THINGS, "there", {"number": 1})

    def act() -> Any:
        if action == "create":
            return docs.create(THINGS, "new", {"number": 2})
        if action == "put":
            return docs.put(THINGS, "there", {"number": 2}, there)
        if action == "delete":
            return docs.delete(THINGS, "there", there)
        kind = {"bulk-create": "create", "bulk-put": "index", "bulk-delete": "delete"}[action]
        doc_id, expected = ("new", None) if kind == "create" else ("there", there)
        source = None if kind == "delete" else {"number": 2}
        outcome = bulk(docs, [Action(kind, THINGS, doc_id, source, expected)])[0]  # type: ignore[arg-type]
        assert (outcome.conflict, outcome.found) == (False, True)
        return outcome

    with proxy.inject(Fault("lost-answer")) as injected:
        assert act()
    assert injected.hits == 1
    wanted = {"number": 2} if "delete" not in action else None
    assert source_of(docs, "new" if "create" in action else "there") == wanted


def test_sixteen_threads_and_two_processes_change_one_document(docs: Documents, uri: str) -> None:
    """No change is lost, and none fails."""
    docs.create(THINGS, "x", {"number": 0})
    command = [sys.executable, "-c", COUNT_UP, uri, __file__.rpartition("/")[0]]
    started = [subprocess.Popen(command) for _ in range(2)]

    def count_up(_: int) -> None:
        for _ in range(5):
            docs.update(THINGS, "x", lambda source: source | {"number": source["number"] + 1})

    assert together(16, count_up) == [None] * 16
    assert [process.wait(120) for process in started] == [0, 0]
    assert source_of(docs, "x") == {"number": 120}


def test_an_update_may_leave_a_document_as_it_is_or_refuse(docs: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """None writes nothing, an error passes, a missing document has the error that the caller makes."""
    made = docs.create(THINGS, "x", {"number": 1})
    assert docs.update(THINGS, "x", lambda _: None).seq_no == made.seq_no
    with pytest.raises(ZeroDivisionError):
        docs.update(THINGS, "x", lambda source: {"number": source["number"] / 0})
    with refused("RESOURCE_DOES_NOT_EXIST", "changing what is not there"):
        docs.update(THINGS, "none", lambda source: source)
    with pytest.raises(KeyError, match="mine"):
        docs.update(THINGS, "none", lambda source: source, lambda: KeyError("mine"))
    monkeypatch.setattr(documents, "UPDATE_SECONDS", 0.2)

    def disturbed(source: Any) -> Any:
        docs.put(THINGS, "x", {"number": source["number"] + 1})
        return source

    with refused("RESOURCE_CONFLICT", "a document that others keep changing"):
        docs.update(THINGS, "x", disturbed)


def test_a_search_refreshes_only_after_this_processs_writes(docs: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refresh costs the node work; reading by id needs none."""
    docs.create(THINGS, "x", {"number": 1})
    request = docs.cluster.request
    sent: list[str] = []

    def noted(method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        sent.append(path.rpartition("/")[2])
        return request(method, path, *args, **kwargs)

    monkeypatch.setattr(docs.cluster, "request", noted)
    for _ in range(2):
        docs.count(THINGS, MATCH_ALL)
    docs.put(THINGS, "x", {"number": 2})
    docs.put(THINGS, "y", {"number": 3})
    docs.get(THINGS, "y")
    docs.search(THINGS, {"query": MATCH_ALL}, fresh=False)
    docs.count(THINGS, MATCH_ALL)
    assert sent == ["_refresh", "_search", "_search", "x", "y", "y", "_search", "_refresh", "_search"]


def test_pages_go_beyond_ten_thousand(docs: Documents) -> None:
    """One page may hold more hits than the result window; pages follow each other without gap or repetition."""
    count = 12_345
    bulk(docs, [Action("create", THINGS, f"d{n}", {"number": n, "name": f"n{n % 3}"}) for n in range(count)])
    sort = [{"name": "desc"}, {"number": "asc"}]
    hits = docs.page(THINGS, MATCH_ALL, sort, 20_000, source=False)
    wanted = sorted(range(count), key=lambda n: (-(n % 3), n))
    assert [hit.id for hit in hits] == [f"d{n}" for n in wanted]
    rest = docs.page(THINGS, MATCH_ALL, sort, 20_000, after=hits[11_999].sort, source=["number"])
    assert [hit.source["number"] for hit in rest] == wanted[12_000:]
    assert docs.count(THINGS, MATCH_ALL) == count
    assert sum(1 for _ in docs.scan(THINGS, between("number", gte=100), "number", size=1_000)) == count - 100
    assert len(docs.get_many(THINGS, [f"d{n}" for n in range(count)])) == count
    assert docs.delete_where(THINGS, between("number", lt=12_000), "number") == 12_000
    assert docs.count(THINGS, MATCH_ALL) == 345


def test_a_shard_that_cannot_be_read_is_an_error(docs: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document behind it is not missing: whoever believed that would write another in its place."""
    docs.create(THINGS, "x", {"number": 1})
    item = {"_index": "i", "_id": "x", "error": {"type": "no_shard_available_action_exception", "reason": "gone"}}
    real = docs.cluster.request

    def broken(method: str, path: str, *args: Any, **kwargs: Any) -> Any:
        answer = real(method, path, *args, **kwargs)
        return answer._replace(body={"docs": [item]}) if path.endswith("_mget") else answer

    monkeypatch.setattr(docs.cluster, "request", broken)
    for call in (lambda: docs.get_many(THINGS, ["x"]), lambda: docs.get_each([(THINGS, "x")])):
        with refused("TEMPORARILY_UNAVAILABLE", "a document on a lost shard"):
            call()


def test_a_bad_query_is_an_internal_error_that_shows_it(docs: Documents) -> None:
    """It is a fault of this package, and the message says so."""
    docs.create(THINGS, "x", {"number": 1})
    with pytest.raises(MlflowException, match="please report") as error:
        docs.count(THINGS, {"nonsense": {}})
    assert error.value.error_code == "INTERNAL_ERROR"
    assert docs.count(THINGS, term("number", 1)) == 1
