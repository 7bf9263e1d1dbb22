"""Unique names and numbers without transactions: a document per name, made only where there is none; a counter."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from mlflow_plugkit_elasticsearch.documents import Conflict, Document, Documents, busy, pause
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.schema import Index

KEYS = Index("keys", {"kind": {"type": "keyword"}, "owner": {"type": "keyword"}})
#: A claim whose owner never appeared is taken over after so many seconds: its process died in between.
ABANDONED_AFTER = 30.0


def claim(documents: Documents, kind: str, name: str, owner: str, is_live: Callable[[str], bool]) -> str | None:
    """Reserve a name for an owner, race-safe between processes; None, or the owner who has it.

    Reserve first, then write the entity; release where that fails.

    Args:
        documents: where the claims are kept.
        kind: the namespace of the name ("experiment").
        name: what is to be unique in it.
        owner: the id of the entity that will have the name.
        is_live: whether the entity of another owner is there; asked only about a claim of long ago.
    """
    doc_id = document_id(kind, name)
    source: dict[str, Any] = {"kind": kind, "name": name, "owner": owner, "at": time.time()}
    for attempt in range(100):
        try:
            documents.create(KEYS, doc_id, source)
            return None
        except Conflict:
            found = documents.get(KEYS, doc_id)
        if found is None:
            pause(attempt)
            continue
        held_by = str(found.source["owner"])
        if held_by == owner:
            return None
        if time.time() - found.source["at"] < ABANDONED_AFTER or is_live(held_by):
            return held_by
        try:
            documents.put(KEYS, doc_id, source, found)
            return None
        except Conflict:
            pause(attempt)
    raise busy(KEYS, name)


def owner_of(documents: Documents, kind: str, name: str) -> str | None:
    """The owner of a name, by a real-time read; None where nobody has claimed it."""
    found = documents.get(KEYS, document_id(kind, name))
    return str(found.source["owner"]) if found else None


def release(documents: Documents, kind: str, name: str, owner: str) -> None:
    """Give a name back, if the owner still has it."""
    found: Document | None = documents.get(KEYS, document_id(kind, name))
    if found is None or found.source["owner"] != owner:
        return
    try:
        documents.delete(KEYS, found.id, found)
    except Conflict:
        return


@contextmanager
def handing_over(documents: Documents, kind: str, old: str, new: str, owner: str) -> Iterator[None]:
    """While an owner that has claimed `new` takes it: gives `old` back afterwards, or `new` where that fails."""
    try:
        yield
    except Exception:
        if new != old:
            release(documents, kind, new, owner)
        raise
    if new != old:
        release(documents, kind, old, owner)


def next_number(documents: Documents, counter: str, floor: int = 0) -> int:
    """The next number of a counter, above `floor` and above every number it gave before; gaps may occur."""
    doc_id = document_id("counter", counter)
    with documents.turn(KEYS, doc_id):
        for attempt in range(1_000):
            found = documents.get(KEYS, doc_id)
            number = max(floor, int(found.source["value"]) if found else 0) + 1
            source = {"kind": "counter", "name": counter, "value": number}
            try:
                if found is None:
                    documents.create(KEYS, doc_id, source)
                else:
                    documents.put(KEYS, doc_id, source, found)
                return number
            except Conflict:
                pause(attempt)
    raise busy(KEYS, counter)


def raise_counter(documents: Documents, counter: str, least: int) -> None:
    """Let a counter give only numbers above `least`; it never goes down."""
    doc_id = document_id("counter", counter)
    with documents.turn(KEYS, doc_id):
        for attempt in range(1_000):
            found = documents.get(KEYS, doc_id)
            if found is not None and int(found.source["value"]) >= least:
                return
            source = {"kind": "counter", "name": counter, "value": least}
            try:
                if found is None:
                    documents.create(KEYS, doc_id, source)
                else:
                    documents.put(KEYS, doc_id, source, found)
                return
            except Conflict:
                pause(attempt)
    raise busy(KEYS, counter)
