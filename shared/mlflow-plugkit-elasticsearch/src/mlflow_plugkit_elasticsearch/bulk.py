"""Bulk requests: bounded in size, every item checked, only what was refused for overload sent again."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.client import dumps
from mlflow_plugkit_elasticsearch.documents import NONCE, Action, Documents, Outcome, pause
from mlflow_plugkit_elasticsearch.errors import RETRYABLE_STATUS
from mlflow_plugkit_elasticsearch.schema import Index

#: Elasticsearch advises 5 to 15 MB a request
#: (https://www.elastic.co/docs/deploy-manage/production-guidance/optimize-performance/indexing-speed).
MOST_BYTES, MOST_ACTIONS = 8 * 1024 * 1024, 5_000
_Encoded = tuple[int, Action, bytes, str]


def bulk(documents: Documents, actions: Sequence[Action]) -> list[Outcome]:
    """Carry out the actions and return their outcomes in the same order.

    A conflict is an outcome; so is a document to delete that is not there. Actions on one document must not
    stand in one call: Elasticsearch carries out the items of different shards side by side.

    Raises:
        MlflowException: as Elasticsearch's error for the first item that failed otherwise. Items beside it may
            have been carried out: callers give them ids of their own, so that a repetition changes nothing.
    """
    outcomes: list[Outcome | None] = [None] * len(actions)
    for index in {action.index.name: action.index for action in actions}.values():
        documents.schema.ensure(index)
    try:
        for chunk in _chunks(_encoded(documents, actions)):
            _send(documents, chunk, outcomes)
    finally:  # a call that fails may have written, too
        for index in {action.index.name: action.index for action in actions}.values():
            documents.written(index)
    return [outcome for outcome in outcomes if outcome is not None]


def _encoded(documents: Documents, actions: Iterable[Action]) -> Iterator[_Encoded]:
    nonce = secrets.token_urlsafe(6)
    for position, action in enumerate(actions):
        head: dict[str, Any] = {"_index": documents.schema.alias(action.index), "_id": action.id}
        if action.expected is not None:
            head |= {"if_seq_no": action.expected.seq_no, "if_primary_term": action.expected.primary_term}
        if action.kind == "delete":
            yield position, action, dumps({action.kind: head}) + b"\n", nonce
            continue
        source = {**(action.source or {}), NONCE: nonce}
        head["require_alias"] = True
        yield position, action, dumps({action.kind: head}) + b"\n" + dumps(source) + b"\n", nonce


def _chunks(encoded: Iterable[_Encoded]) -> Iterator[list[_Encoded]]:
    chunk: list[_Encoded] = []
    size = 0
    for item in encoded:
        if chunk and (size + len(item[2]) > MOST_BYTES or len(chunk) == MOST_ACTIONS):
            yield chunk
            chunk, size = [], 0
        chunk.append(item)
        size += len(item[2])
    if chunk:
        yield chunk


def _send(documents: Documents, chunk: list[_Encoded], outcomes: list[Outcome | None]) -> None:
    deadline = time.monotonic() + documents.cluster.settings.retry_for
    repeated = False
    for attempt in range(1_000):
        body = b"".join(item[2] for item in chunk)
        answer = documents.cluster.request("POST", "/_bulk", "write in bulk", body, lines=True)
        repeated = repeated or answer.repeated
        again: list[_Encoded] = []
        for item, result in zip(chunk, answer.body["items"], strict=True):
            verdict = next(iter(result.values()))
            status = verdict["status"]
            if status in RETRYABLE_STATUS and time.monotonic() < deadline:
                again.append(item)
            else:
                outcomes[item[0]] = _outcome(documents, item, verdict, repeated)
        if not again:
            return
        chunk = again
        pause(attempt + 5)


def _outcome(documents: Documents, item: _Encoded, verdict: dict[str, Any], repeated: bool) -> Outcome:
    _, action, _, nonce = item
    status = verdict["status"]
    if status == 409:
        found = documents.get(action.index, action.id) if repeated else None
        if action.kind == "delete" and repeated and found is None:
            return Outcome(False, True, 0, 0)
        if found is not None and found.source.get(NONCE) == nonce:
            return Outcome(False, True, found.seq_no, found.primary_term)
        return Outcome(True, True, 0, 0)
    if status == 404 and action.kind == "delete":
        return Outcome(False, repeated, 0, 0)
    if status >= 300:
        raise _failure(action.index, verdict)
    return Outcome(False, True, verdict["_seq_no"], verdict["_primary_term"])


def _failure(index: Index, verdict: dict[str, Any]) -> Exception:
    error = verdict.get("error", {})
    reason = f"{error.get('type', 'error')}: {error.get('reason', '')}".rstrip(": ")
    overloaded = verdict["status"] in RETRYABLE_STATUS
    hint = "The cluster is overloaded: try again later." if overloaded else "Nothing was lost; the call failed."
    return mlflow_error(
        f"Elasticsearch: could not write to {index.name}: {reason}. {hint}",
        "RESOURCE_EXHAUSTED" if overloaded else "INTERNAL_ERROR",
    )
