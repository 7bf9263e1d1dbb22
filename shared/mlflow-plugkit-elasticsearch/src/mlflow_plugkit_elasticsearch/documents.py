"""Documents: real-time reads, conditional writes, bulk, and searches that see this process's own writes.

Elasticsearch shows a write to searches after a refresh, once a second; a read by id sees it at once
(https://www.elastic.co/docs/reference/elasticsearch/rest-apis/refresh-parameter). So a write asks for no refresh, and
a search refreshes the index first where this process has written to it since its last refresh.
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.client import Answer, Cluster
from mlflow_plugkit_elasticsearch.encode import utf8
from mlflow_plugkit_elasticsearch.schema import Index, Schema
from mlflow_plugkit_elasticsearch.settings import ElasticsearchSettings

#: Who wrote a document: tells our own write, whose answer was lost, from another's.
NONCE = "w"
PAGE = 10_000
UPDATE_SECONDS = 60.0
_STRIPES = 256
_lock = threading.Lock()
Source = dict[str, Any]


class Conflict(Exception):  # noqa: N818 # a signal between this module and its callers, never shown
    """A condition did not hold: the document is there already, or was changed since it was read."""


class Document(NamedTuple):
    """A document and the state that a conditional write names."""

    id: str
    source: Source
    seq_no: int
    primary_term: int


class Hit(NamedTuple):
    """One document that a search found. `sort` goes into `after` of the next page."""

    id: str
    source: Source
    sort: list[Any]


@dataclass(frozen=True)
class Action:
    """One item of a bulk request.

    Attributes:
        kind: `index` (write or replace), `create` (only where it is not there), `delete`.
        expected: write only if the document is still in this state.
    """

    kind: Literal["index", "create", "delete"]
    index: Index
    id: str
    source: Source | None = None
    expected: Document | None = None


class Outcome(NamedTuple):
    """What became of one action: `conflict` where a condition did not hold."""

    conflict: bool
    found: bool
    seq_no: int
    primary_term: int


class Documents:
    """The documents of one prefix. `Documents.of` shares them between the stores of a process."""

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self.cluster = Cluster.of(settings)
        self.schema = Schema(self.cluster, settings.prefix)
        self._freshness: defaultdict[str, _Freshness] = defaultdict(_Freshness)
        self._stripes = [threading.Lock() for _ in range(_STRIPES)]

    @classmethod
    def of(cls, settings: ElasticsearchSettings) -> Documents:
        """The documents for these settings, made once in this process; nothing is connected yet."""
        with _lock:
            return _documents(settings)

    # Reading by id: always the last acknowledged state.

    def get(self, index: Index, doc_id: str) -> Document | None:
        """The document, or None."""
        if not doc_id:
            return None
        path = self._doc_path(index, doc_id)
        answer = self.cluster.request("GET", path, f"read from {index.name}", accepted=(404,))
        return _document(answer.body) if answer.status == 200 else None

    def get_many(self, index: Index, ids: Sequence[str], source: Sequence[str] = ()) -> dict[str, Document]:
        """The documents that are there, by id, in the order asked for; with `source`, these fields of them."""
        found: dict[str, Document] = {}
        params = {"_source_includes": ",".join(source)} if source else {}
        for start in range(0, len(ids), PAGE):
            body = {"ids": list(ids[start : start + PAGE])}
            answer = self.cluster.request(
                "POST", f"{self._path(index)}/_mget", f"read from {index.name}", body, params=params, accepted=(404,)
            )
            docs = answer.body.get("docs", ()) if answer.status == 200 else ()
            found |= {doc["_id"]: _document(doc) for doc in docs if _is_found(doc)}
        return found

    def get_each(self, wanted: Sequence[tuple[Index, str]]) -> list[Document | None]:
        """Documents of several indices by one request, in the order asked for; None for one that is not there."""
        body = {"docs": [{"_index": self.schema.alias(index), "_id": doc_id} for index, doc_id in wanted]}
        names = " and ".join(dict.fromkeys(index.name for index, _ in wanted))
        docs = self.cluster.request("POST", "/_mget", f"read from {names}", body).body["docs"]
        return [_document(doc) if _is_found(doc) else None for doc in docs]

    # Writing.

    def create(self, index: Index, doc_id: str, source: Source) -> Document:
        """Write a document that must not be there yet.

        Raises:
            Conflict: it is there.
        """
        return self._put(index, doc_id, source, {"op_type": "create"})

    def put(self, index: Index, doc_id: str, source: Source, expected: Document | None = None) -> Document:
        """Write a document; with `expected` only if it is still in that state.

        Raises:
            Conflict: it was changed or deleted in between.
        """
        return self._put(index, doc_id, source, _condition(expected))

    def update(
        self,
        index: Index,
        doc_id: str,
        change: Callable[[Source], Source | None],
        missing: Callable[[], Exception] | None = None,
    ) -> Document:
        """Read a document, change it, and write it if nobody else did meanwhile; again until it holds.

        Threads of this process take turns on a document; other processes meet it by its sequence number.

        Args:
            index: where the document is.
            doc_id: which document.
            change: takes a copy of the top level of the source and returns the new source, or None to
                leave the document as it is. May be called several times; may raise.
            missing: makes the error for a document that is not there.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` unless `missing` says otherwise; `RESOURCE_CONFLICT` where
                others kept changing it for a minute.
        """
        deadline = time.monotonic() + UPDATE_SECONDS
        with self.turn(index, doc_id):
            for attempt in range(1_000):
                document = self.get(index, doc_id)
                if document is None:
                    raise (
                        missing()
                        if missing
                        else mlflow_error(f"No {doc_id!r} in {index.name}.", "RESOURCE_DOES_NOT_EXIST")
                    )
                source = change(dict(document.source))
                if source is None:
                    return document
                try:
                    return self.put(index, doc_id, source, document)
                except Conflict:
                    if time.monotonic() > deadline:
                        break
                    pause(attempt)
        raise busy(index, doc_id)

    def delete(self, index: Index, doc_id: str, expected: Document | None = None) -> bool:
        """Delete a document; whether it was there.

        Raises:
            Conflict: with `expected`, where it was changed in between.
        """
        path = self._doc_path(index, doc_id)
        with self._writing(index):
            answer = self.cluster.request(
                "DELETE", path, f"remove from {index.name}", params=_condition(expected), accepted=(404, 409)
            )
        if answer.status == 409:
            if not answer.repeated:
                raise Conflict
            return self.get(index, doc_id) is None
        return answer.status == 200 or answer.repeated

    def turn(self, index: Index, doc_id: str) -> threading.Lock:
        """The lock that threads of this process take before they change a document by read and conditional write."""
        return self._stripes[hash((index.name, doc_id)) % _STRIPES]

    def written(self, index: Index) -> None:
        """Note that this process wrote to the index, so that its next search refreshes it."""
        self._freshness[index.name].written()

    @contextmanager
    def _writing(self, index: Index) -> Iterator[None]:
        """Note a write at the end of the block, also of one that failed: it may have been carried out."""
        try:
            yield
        finally:
            self.written(index)

    def alias_ready(self, index: Index) -> str:
        """The index's alias, after making sure that it is there."""
        self.schema.ensure(index)
        return self.schema.alias(index)

    def _put(self, index: Index, doc_id: str, source: Source, condition: Mapping[str, str]) -> Document:
        self.schema.ensure(index)
        source = source | {NONCE: secrets.token_urlsafe(6)}
        path = self._doc_path(index, doc_id)
        params = {"require_alias": "true", **condition}
        with self._writing(index):
            answer = self.cluster.request(
                "PUT", path, f"write to {index.name}", source, params=params, accepted=(404, 409)
            )
        if answer.status == 404:
            self.schema.forget(index)
            return self._put(index, doc_id, source, condition)
        if answer.status == 409:
            return self._own_write(index, doc_id, source, answer)
        return Document(doc_id, source, answer.body["_seq_no"], answer.body["_primary_term"])

    def _own_write(self, index: Index, doc_id: str, source: Source, answer: Answer) -> Document:
        """After a conflict: our own write of an earlier attempt, whose answer was lost, is no conflict."""
        found = self.get(index, doc_id) if answer.repeated else None
        if found is None or found.source.get(NONCE) != source[NONCE]:
            raise Conflict
        return found

    # Searching: sees at least what this process wrote.

    def refresh(self, index: Index, *, always: bool = False) -> None:
        """Let searches see what this process has written to the index; with `always` what anybody has."""
        freshness = self._freshness[index.name]
        writes = freshness.pending()
        if writes is None and not always:
            return
        params = {"ignore_unavailable": "true"}
        self.cluster.request("POST", f"{self._path(index)}/_refresh", f"refresh {index.name}", params=params)
        if writes is not None:
            freshness.seen(writes)

    def search(self, index: Index, body: Mapping[str, Any], *, fresh: bool = True) -> Any:
        """The raw answer to a search; no hits where there is no such index.

        Args:
            index: where to search.
            body: as in Elasticsearch's reference. `track_total_hits` is off unless it says otherwise.
            fresh: refresh first where this process has written since.
        """
        if fresh:
            self.refresh(index)
        params = {"ignore_unavailable": "true", "typed_keys": "false"}
        path = f"{self._path(index)}/_search"
        return self.cluster.request(
            "POST", path, f"search {index.name}", {"track_total_hits": False, **body}, params=params
        ).body

    def page(
        self,
        index: Index,
        query: Mapping[str, Any],
        sort: Sequence[Mapping[str, Any]],
        size: int,
        *,
        after: Sequence[Any] | None = None,
        source: bool | Sequence[str] | Mapping[str, Any] = True,
        fresh: bool = True,
    ) -> list[Hit]:
        """At most `size` documents in order, beginning behind `after` (the last hit's `sort`).

        More than 10,000 are fetched in several requests: the index's result window stays as it is. The
        sort must end with a field that is unique (not `_id`, which has no doc values).
        """
        hits: list[Hit] = []
        while len(hits) < size:
            step = min(PAGE, size - len(hits))
            body: dict[str, Any] = {"query": query, "sort": list(sort), "size": step, "_source": source}
            if after is not None:
                body["search_after"] = list(after)
            found = self.search(index, body, fresh=fresh and not hits)["hits"]["hits"]
            hits += [Hit(hit["_id"], hit.get("_source", {}), hit["sort"]) for hit in found]
            if len(found) < step:
                break
            after = hits[-1].sort
        return hits

    def scan(
        self,
        index: Index,
        query: Mapping[str, Any],
        unique: str,
        *,
        source: bool | Sequence[str] = True,
        size: int = 5_000,
    ) -> Iterator[Hit]:
        """All documents that match, in the order of the unique field, page by page."""
        after: list[Any] | None = None
        while True:
            hits = self.page(index, query, [{unique: "asc"}], size, after=after, source=source, fresh=after is None)
            yield from hits
            if len(hits) < size:
                return
            after = hits[-1].sort

    def count(self, index: Index, query: Mapping[str, Any]) -> int:
        """How many documents match, exactly."""
        body = {"query": query, "size": 0, "track_total_hits": True}
        return int(self.search(index, body)["hits"]["total"]["value"])

    def delete_where(self, index: Index, query: Mapping[str, Any], unique: str) -> int:
        """Delete all documents that match, in bounded memory; how many there were.

        By search and bulk rather than `_delete_by_query`, whose module a cluster may lack.
        """
        from mlflow_plugkit_elasticsearch.bulk import bulk

        deleted = 0
        batch: list[Action] = []
        for hit in self.scan(index, query, unique, source=False):
            batch.append(Action("delete", index, hit.id))
            if len(batch) == 5_000:
                deleted += sum(o.found for o in bulk(self, batch))
                batch = []
        return deleted + sum(o.found for o in bulk(self, batch))

    def _path(self, index: Index) -> str:
        return f"/{self.schema.alias(index)}"

    def _doc_path(self, index: Index, doc_id: str) -> str:
        return f"{self._path(index)}/_doc/{quote(utf8(doc_id), safe='')}"


class _Freshness:
    """Counts the writes of this process to one index, and up to which of them searches have seen."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._writes = self._seen = 0

    def written(self) -> None:
        with self._lock:
            self._writes += 1

    def pending(self) -> int | None:
        with self._lock:
            return self._writes if self._writes > self._seen else None

    def seen(self, writes: int) -> None:
        with self._lock:
            self._seen = max(self._seen, writes)


def pause(attempt: int) -> None:
    """Wait a random moment after a lost race: up to 5 ms at first, up to a quarter of a second later."""
    time.sleep(random.uniform(0, min(0.25, 0.005 * 2 ** min(attempt, 8))))  # noqa: S311 # no secret hangs on it


def busy(index: Index, doc_id: str) -> Exception:
    """The error for a document that others kept changing."""
    return mlflow_error(
        f"{doc_id!r} in {index.name} was changed by others again and again for {UPDATE_SECONDS:.0f} s. Try again.",
        "RESOURCE_CONFLICT",
    )


def _document(body: Mapping[str, Any]) -> Document:
    return Document(body["_id"], body["_source"], body["_seq_no"], body["_primary_term"])


def _is_found(doc: Mapping[str, Any]) -> bool:
    """Whether one item of a multi-get was found; a shard that could not be read is an error, not a missing document.

    Raises:
        MlflowException: `TEMPORARILY_UNAVAILABLE`.
    """
    error = doc.get("error")
    if error and error.get("type") != "index_not_found_exception":
        reason = f"{error.get('type')}: {error.get('reason')}"
        raise mlflow_error(
            f"Elasticsearch: could not read {doc.get('_id')!r}: {reason}. Check the cluster's health.",
            "TEMPORARILY_UNAVAILABLE",
        )
    return bool(doc.get("found"))


def _condition(expected: Document | None) -> dict[str, str]:
    if expected is None:
        return {}
    return {"if_seq_no": str(expected.seq_no), "if_primary_term": str(expected.primary_term)}


@lru_cache(maxsize=64)
def _documents(settings: ElasticsearchSettings) -> Documents:
    return Documents(replace(settings))
