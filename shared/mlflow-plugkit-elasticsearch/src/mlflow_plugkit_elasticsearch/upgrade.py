"""Bringing an index of an older schema up to date.

Additions to the mapping are made in place. Anything else, such as another type of a field or a further derived one,
needs a new index `-v{n+1}`: the old one is closed to writes, its documents are copied, and the alias moves in one
step. An upgrade that was interrupted goes on when it is run again.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.client import dumps
from mlflow_plugkit_elasticsearch.documents import Documents, Source
from mlflow_plugkit_elasticsearch.schema import Index

_PAGE = 1_000
_PIT_LIFE = "5m"
_BULK_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True)
class State:
    """What there is of an index.

    Attributes:
        index: as this package describes it.
        stored: the version of the stored mapping; None where there is no index.
        concrete: the index behind the alias.
        documents: how many there are, as searches see them.
    """

    index: Index
    stored: int | None
    concrete: str = ""
    documents: int = 0

    @property
    def verdict(self) -> str:
        """`missing`, `older`, `newer` or `current`."""
        if self.stored is None:
            return "missing"
        if self.stored == self.index.version:
            return "current"
        return "older" if self.stored < self.index.version else "newer"


def state_of(documents: Documents, index: Index) -> State:
    """Look at an index."""
    stored = documents.schema.stored_version(index)
    if stored is None:
        return State(index, None)
    documents.written(index)  # others' last writes count, too: this makes the search refresh the index
    return State(index, stored, concrete_name(documents, index), documents.count(index, {"match_all": {}}))


def concrete_name(documents: Documents, index: Index) -> str:
    """The name of the index behind the alias.

    Raises:
        MlflowException: `INVALID_STATE` where the alias stands for several indices, or is an index itself.
    """
    alias = documents.schema.alias(index)
    answer = documents.cluster.request("GET", f"/{alias}/_mapping", f"read the mapping of {index.name}")
    names = sorted(answer.body)
    if len(names) != 1 or names[0] == alias:
        raise mlflow_error(
            f"{alias} should be an alias of one index; it leads to {', '.join(names)}. Point it to one of them.",
            "INVALID_STATE",
        )
    return str(names[0])


def upgrade(documents: Documents, index: Index, report: Callable[[str], None] = lambda _: None) -> bool:
    """Bring an index up to this package's schema; whether there was anything to do.

    Args:
        documents: where the index is.
        index: as this package describes it.
        report: told what is being done, one line each.

    Raises:
        MlflowException: `INVALID_STATE` for a newer schema, or one that cannot be rebuilt.
    """
    stored = documents.schema.stored_version(index)
    if stored is None or stored == index.version:
        return False
    if stored > index.version:
        raise documents.schema.newer(index, stored)
    if documents.schema.extend(index):
        report(f"{index.name}: the mapping was extended to schema {index.version}")
        return True
    _rebuild(documents, index, report)
    return True


def _rebuild(documents: Documents, index: Index, report: Callable[[str], None]) -> None:
    derive = _derive(index)
    old, new = concrete_name(documents, index), f"{documents.schema.alias(index)}-v{index.version}"
    schema, request = documents.schema, documents.cluster.request
    schema.create_at(index, new)
    request("PUT", f"/{old}/_settings", f"close {old} to writes", {"index.blocks.write": True})
    copied = _copy(documents, old, new, derive)
    request("POST", f"/{new}/_refresh", f"refresh {new}")
    counts = [request("GET", f"/{name}/_count", f"count {name}").body["count"] for name in (old, new)]
    if counts[0] != counts[1]:
        raise mlflow_error(
            f"{new} has {counts[1]} documents and {old} has {counts[0]}: the alias was not moved. Run it again.",
            "INTERNAL_ERROR",
        )
    alias = schema.alias(index)
    actions = [
        {"add": {"index": new, "alias": alias, "is_write_index": True}},
        {"remove": {"index": old, "alias": alias}},
    ]
    request("POST", "/_aliases", f"move the alias {alias}", {"actions": actions})
    schema.put_template(index)
    report(f"{index.name}: {copied} documents were copied to {new}; {old} is kept, closed to writes")


def _copy(documents: Documents, old: str, new: str, derive: Callable[[Source], Source]) -> int:
    copied = 0
    lines: list[bytes] = []
    for doc_id, source in _all(documents, old):
        lines.append(dumps({"index": {"_index": new, "_id": doc_id}}) + b"\n" + dumps(derive(source)) + b"\n")
        copied += 1
        if sum(map(len, lines)) > _BULK_BYTES or len(lines) == _PAGE:
            _send(documents, lines)
            lines = []
    if lines:
        _send(documents, lines)
    return copied


def _send(documents: Documents, lines: list[bytes]) -> None:
    answer = documents.cluster.request("POST", "/_bulk", "copy documents", b"".join(lines), lines=True)
    errors = [r["index"]["error"] for r in answer.body["items"] if r["index"]["status"] >= 300]
    if errors:
        raise mlflow_error(
            f"{len(errors)} documents could not be copied: {errors[0].get('type')}: {errors[0].get('reason')}. "
            "The alias was not moved. Run it again.",
            "INTERNAL_ERROR",
        )


def _all(documents: Documents, name: str) -> Iterator[tuple[str, Source]]:
    """All documents of an index, from one point in time."""
    request = documents.cluster.request
    request("POST", f"/{name}/_refresh", f"refresh {name}")
    opened = request("POST", f"/{name}/_pit", f"read {name}", params={"keep_alive": _PIT_LIFE})
    pit, after = opened.body["id"], None
    try:
        while True:
            body: dict[str, Any] = {"size": _PAGE, "pit": {"id": pit, "keep_alive": _PIT_LIFE}, "sort": ["_shard_doc"]}
            if after is not None:
                body["search_after"] = after
            answer = request("POST", "/_search", f"read {name}", body).body
            pit, hits = answer["pit_id"], answer["hits"]["hits"]
            yield from ((hit["_id"], hit["_source"]) for hit in hits)
            if len(hits) < _PAGE:
                return
            after = hits[-1]["sort"]
    finally:
        request("DELETE", "/_pit", f"end reading {name}", {"id": pit}, accepted=(404,))


def _derive(index: Index) -> Callable[[Source], Source]:
    """What computes the derived fields of a document, which are not stored."""
    if not index.derived:
        return dict
    if not index.rebuild:
        raise mlflow_error(
            f"The index {index.name} cannot be rebuilt: nothing computes its fields {', '.join(index.derived)}. "
            "Use the import command to copy the data to another prefix.",
            "INVALID_STATE",
        )
    module, _, name = index.rebuild.partition(":")
    function: Callable[[Mapping[str, Any]], Source] = getattr(importlib.import_module(module), name)
    return function
