"""Bulk requests: every item is checked, large ones are split, and only what was refused for overload is repeated."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from things import THINGS

from mlflow_plugkit_elasticsearch import Action, Documents, Index, Outcome, bulk
from mlflow_plugkit_elasticsearch.client import Answer
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL
from mlflow_plugkit_testing.faults import Fault, FaultProxy

pytestmark = pytest.mark.once

SECOND = Index("second", {"number": {"type": "long"}})


def test_outcomes_stand_in_the_order_of_the_actions(docs: Documents) -> None:
    """Writes, conflicts and deletions in several indices by one call."""
    there = docs.create(THINGS, "there", {"number": 1})
    docs.put(THINGS, "there", {"number": 2})
    outcomes = bulk(
        docs,
        [
            Action("create", THINGS, "new", {"number": 1}),
            Action("create", THINGS, "there", {"number": 9}),
            Action("index", SECOND, "x", {"number": 3}),
            Action("delete", THINGS, "none"),
            Action("index", THINGS, "there", {"number": 9}, expected=there),
            Action("delete", THINGS, "there", expected=there),
        ],
    )
    assert [(o.conflict, o.found) for o in outcomes] == [
        (False, True),
        (True, True),
        (False, True),
        (False, False),
        (True, True),
        (True, True),
    ]
    assert docs.count(THINGS, MATCH_ALL) == 2
    assert docs.count(SECOND, MATCH_ALL) == 1
    found = docs.get(THINGS, "there")
    assert found is not None
    assert found.source["number"] == 2


def test_nothing_is_sent_for_nothing(docs: Documents) -> None:
    """No index is made either."""
    assert bulk(docs, []) == []
    assert docs.schema.stored_version(THINGS) is None


def test_large_requests_are_split(docs: Documents, monkeypatch: pytest.MonkeyPatch) -> None:
    """Below 8 MB and 5,000 actions each; one document may be larger."""
    sizes: list[int] = []
    request = docs.cluster.request

    def noted(method: str, path: str, operation: str, body: Any = None, **kwargs: Any) -> Any:
        if path == "/_bulk":
            sizes.append(len(body))
        return request(method, path, operation, body, **kwargs)

    monkeypatch.setattr(docs.cluster, "request", noted)
    large = [Action("create", THINGS, f"l{n}", {"number": n, "kept": {"x": "y" * 3_000_000}}) for n in range(5)]
    large.append(Action("create", THINGS, "huge", {"number": 9, "kept": {"x": "y" * 10_000_000}}))
    assert not any(o.conflict for o in bulk(docs, large))
    assert [size // 1_000_000 for size in sizes] == [6, 6, 3, 10]
    many = [Action("create", THINGS, f"m{n}", {"number": n}) for n in range(5_001)]
    assert len(bulk(docs, many)) == 5_001
    assert len(sizes) == 6
    assert docs.count(THINGS, MATCH_ALL) == 5_007


def test_one_bad_item_fails_the_call_and_names_the_reason(docs: Documents) -> None:
    """The items beside it may have been carried out, which their ids make harmless to repeat."""
    actions = [Action("index", THINGS, f"d{n}", {"number": n if n != 1 else "no number"}) for n in range(3)]
    with pytest.raises(MlflowException, match="number") as error:
        bulk(docs, actions)
    assert error.value.error_code == "INTERNAL_ERROR"
    assert docs.count(THINGS, MATCH_ALL) == 2


def overloading(docs: Documents, monkeypatch: pytest.MonkeyPatch, times: int, statuses: tuple[int, ...]) -> list[int]:
    """Let the node refuse every second item of the first `times` bulk requests; how many items each had."""
    request = docs.cluster.request
    sent: list[int] = []

    def refusing(method: str, path: str, operation: str, body: Any = None, **kwargs: Any) -> Any:
        if path != "/_bulk" or len(sent) >= times:
            if path == "/_bulk":
                sent.append(body.count(b"\n") // 2)
            return request(method, path, operation, body, **kwargs)
        lines = body.split(b"\n")[:-1]
        pairs = [lines[i : i + 2] for i in range(0, len(lines), 2)]
        sent.append(len(pairs))
        kept = b"".join(b"\n".join(pair) + b"\n" for pair in pairs[::2])
        items = request(method, path, operation, kept, **kwargs).body["items"] if len(pairs) > 1 else ()
        error = {"type": "es_rejected_execution_exception", "reason": "full"}
        answered = []
        for number, (head, _) in enumerate(pairs):
            refusal = {"index": {"_id": json.loads(head)["index"]["_id"], "status": statuses[0], "error": error}}
            answered.append(refusal if number % 2 or not items else items[number // 2])
        return Answer(200, {"errors": True, "items": answered}, False)

    monkeypatch.setattr(docs.cluster, "request", refusing)
    return sent


@pytest.mark.parametrize("status", [429, 503])
def test_only_what_was_refused_for_overload_is_sent_again(
    docs: Documents, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """A full queue of the node refuses single items with status 200 for the request."""
    docs.create(THINGS, "first", {"number": 0})
    sent = overloading(docs, monkeypatch, 2, (status,))
    outcomes = bulk(docs, [Action("index", THINGS, f"d{n}", {"number": n}) for n in range(8)])
    assert [isinstance(o, Outcome) and not o.conflict for o in outcomes] == [True] * 8
    assert sent == [8, 4, 2]
    assert docs.count(THINGS, MATCH_ALL) == 9


def test_an_overload_that_stays_has_a_name(
    proxied: tuple[FaultProxy, Callable[..., Documents]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where whole requests are refused."""
    proxy, make = proxied
    docs = make(retry_for=1.0)
    docs.create(THINGS, "x", {"number": 0})
    actions = [Action("index", THINGS, f"d{n}", {"number": n}) for n in range(4)]
    with proxy.inject(Fault("status", status=429, times=None)), pytest.raises(MlflowException) as error:
        bulk(docs, actions)
    assert error.value.error_code == "RESOURCE_EXHAUSTED"
    overloading(docs, monkeypatch, 1_000, (429,))
    with pytest.raises(MlflowException) as error:
        bulk(docs, actions)
    assert error.value.error_code == "RESOURCE_EXHAUSTED"
