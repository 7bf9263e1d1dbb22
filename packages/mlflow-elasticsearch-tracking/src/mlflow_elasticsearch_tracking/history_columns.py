"""Metric points in columns: the tail in a run's document, and the blocks of the history index.

A point is a tuple (key, step, timestamp, value). The tail holds the points that were logged last:

    tail: {"n": number of the open segment, "o": [key, step, timestamp, value, key, ...],
           "s": [[number, size, [block, ...]], ...], "at": milliseconds since 1970 of the last copy}

`o` takes single points; once it is full, it becomes a segment, and so does each large batch. A segment never
changes. A block holds the points of one key, or of several keys that have few:

    {"k": [key, count, key, count, ...], "a": lowest step, "b": highest, "c": lowest timestamp, "d": highest,
     "v": columns}

The columns are steps and timestamps as differences, deflated, and values as they are, all 64 bits, in base64: a third
of the size of JSON (docs/explanation/elasticsearch-layout.md has the figures).
"""

from __future__ import annotations

import sys
import zlib
from array import array
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

from mlflow_elasticsearch_tracking.base import now_ms
from mlflow_elasticsearch_tracking.indices import KEYWORD, LONG, TOKENS
from mlflow_elasticsearch_tracking.run_documents import json_number, number
from mlflow_plugkit_elasticsearch import Index
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.encode import token

Point = tuple[str, int, int, float]
Block = dict[str, Any]
#: The names of segments that the history index has.
Copied = frozenset[tuple[int, int]]
#: Where a change of a run puts the points to log.
NEW_POINTS = "new points"
#: Single points in a tail before they become columns; points in a tail before they are copied; points that a run
#: which has ended keeps in its document.
MOST_OPEN, MOST_IN_TAIL, MOST_SETTLED = 128, 1_024, 64
#: A key with so many points in a segment has a block of its own; others share one of at most so many points.
_OWN_BLOCK, _SHARED_BLOCK = 16, 128
_WIDTH = 8

# A document per block. `series` holds run and key: one term finds a history.
METRICS = Index(
    "metrics",
    {
        "id": KEYWORD,
        "run_id": TOKENS,
        "series": TOKENS,
        "a": LONG,
        "b": LONG,
        "c": LONG,
        "d": LONG,
    },
    derived=("series",),
    rebuild="mlflow_elasticsearch_tracking.history_columns:block_document",
)


class Columns(NamedTuple):
    """Points of one key as columns of equal length, in no order that may be relied on."""

    steps: Sequence[int]
    timestamps: Sequence[int]
    values: Sequence[float]


class Segment(NamedTuple):
    """A numbered part of a tail that never changes."""

    number: int
    size: int
    blocks: list[Block]

    @property
    def name(self) -> tuple[int, int]:
        """What tells its content: while a segment is open, points are added to it, by several processes perhaps."""
        return self.number, self.size


class Tail(NamedTuple):
    """The points of a run that are in its document."""

    open_number: int
    open: list[Any]
    segments: tuple[Segment, ...]
    copied_at: int

    @classmethod
    def of(cls, source: Source) -> Tail:
        """The tail of a run's document."""
        tail = source.get("tail")
        if tail is None:
            return cls(1, [], (), 0)
        return cls(tail["n"], tail["o"], tuple(Segment(*one) for one in tail["s"]), tail["at"])

    def into(self, source: Source) -> Source:
        """The source with this tail."""
        tail = {"n": self.open_number, "o": self.open, "s": [list(one) for one in self.segments], "at": self.copied_at}
        return {**source, "tail": tail}

    @property
    def size(self) -> int:
        """How many points it holds."""
        return len(self.open) // 4 + sum(segment.size for segment in self.segments)

    def columns(self, key: str) -> Iterator[Columns]:
        """The points of one key."""
        if key in self.open[::4]:
            found = [p for p in _points(self.open) if p[0] == key]
            yield Columns([p[1] for p in found], [p[2] for p in found], [p[3] for p in found])
        for segment in self.segments:
            for block in segment.blocks:
                yield from block_columns(block, key)

    def closed(self) -> Tail:
        """The same points, all of them in segments."""
        if not self.open:
            return self
        segment = Segment(self.open_number, len(self.open) // 4, blocks_of(_points(self.open)))
        return Tail(self.open_number + 1, [], (*self.segments, segment), self.copied_at)

    def plus(self, points: Sequence[Point]) -> Tail:
        """With further points."""
        if len(self.open) // 4 + len(points) <= MOST_OPEN:
            added = [part for key, step, at, value in points for part in (key, step, at, json_number(value))]
            return self._replace(open=self.open + added)
        count = len(self.open) // 4 + len(points)
        segment = Segment(self.open_number, count, blocks_of([*_points(self.open), *points]))
        return Tail(self.open_number + 1, [], (*self.segments, segment), self.copied_at)


def move(tail: Tail, points: Sequence[Point], copied: Copied, *, settled: bool) -> tuple[Tail, list[Segment]]:
    """The tail after a write that logs points, and the segments to copy to the history index with that write.

    Only what was in the tail before is copied, since it was committed; it stays in the tail until it is known to
    have been copied.

    Args:
        tail: as the run's document has it.
        points: what to log.
        copied: what of it the history index has.
        settled: no more points are expected: leave little in the tail.
    """
    tail = tail._replace(segments=tuple(one for one in tail.segments if one.name not in copied))
    total = tail.size + len(points)
    if total <= (MOST_SETTLED if settled else MOST_IN_TAIL):
        return tail.plus(points) if points else tail, []
    tail = tail.closed()
    if not tail.segments:
        return tail.plus(points), []
    return tail.plus(points)._replace(copied_at=now_ms()), list(tail.segments)


def chunks_of(run_id: str, segments: Sequence[Segment]) -> Iterator[Source]:
    """The documents of the history index for some segments; their ids follow from the segments' numbers and sizes."""
    count = sum(segment.size for segment in segments)
    name = f"{run_id}-{segments[0].number}-{segments[-1].number}-{count}"
    for position, block in enumerate(_merged(segments)):
        yield block_document({**block, "id": f"{name}-{position}", "run_id": run_id})


def _merged(segments: Sequence[Segment]) -> list[Block]:
    if len(segments) == 1:
        return segments[0].blocks
    points = [p for segment in segments for block in segment.blocks for p in _block_points(block)]
    return blocks_of(points)


def blocks_of(points: Iterable[Point]) -> list[Block]:
    """Points as blocks, the keys in order; the same points in the same order give the same blocks."""
    by_key: dict[str, list[Point]] = {}
    for point in points:
        by_key.setdefault(point[0], []).append(point)
    blocks: list[Block] = []
    shared: list[list[Point]] = []
    size = 0
    for key in sorted(by_key):
        own = by_key[key]
        if len(own) >= _OWN_BLOCK:
            blocks.append(_block([own]))
            continue
        if size + len(own) > _SHARED_BLOCK:
            blocks.append(_block(shared))
            shared, size = [], 0
        shared.append(own)
        size += len(own)
    return [*blocks, _block(shared)] if shared else blocks


def block_document(source: Block) -> Block:
    """The document of a block: the source and what is derived from it for searches."""
    return {**source, "series": [token(source["run_id"], key) for key in source["k"][::2]]}


def _block(groups: Sequence[Sequence[Point]]) -> Block:
    steps = [p[1] for group in groups for p in group]
    timestamps = [p[2] for group in groups for p in group]
    values = array("d", [p[3] for group in groups for p in group])
    keys = [part for group in groups for part in (group[0][0], len(group))]
    columns = _packed(steps) + _packed(timestamps) + _little(values).tobytes()
    ends = {"a": min(steps), "b": max(steps), "c": min(timestamps), "d": max(timestamps)}
    return {"k": keys, **ends, "v": b64encode(columns).decode()}


def block_columns(block: Block, key: str | None = None) -> Iterator[Columns]:
    """The points of one key in a block, or of all its keys together."""
    keys = block["k"]
    start, count = 0, sum(keys[1::2])
    if key is not None:
        if key not in keys[::2]:
            return
        position = keys[::2].index(key)
        start, count = sum(keys[1 : 2 * position : 2]), keys[2 * position + 1]
    raw = b64decode(block["v"])
    steps, raw = _unpacked(raw)
    timestamps, raw = _unpacked(raw)
    values = array("d", raw)
    part = slice(start, start + count)
    yield Columns(steps[part], timestamps[part], _little(values)[part])


def _block_points(block: Block) -> Iterator[Point]:
    (columns,) = block_columns(block)
    keys = [key for key, count in zip(block["k"][::2], block["k"][1::2], strict=True) for _ in range(count)]
    return zip(keys, *columns, strict=True)


def _points(rows: Sequence[Any]) -> Iterator[Point]:
    return zip(rows[::4], rows[1::4], rows[2::4], map(number, rows[3::4]), strict=True)


def _packed(numbers: Sequence[int]) -> bytes:
    """The length of what follows in four bytes, and the deflated differences; as they are where one needs 65 bits."""
    first, flag = numbers[0], b"d"
    try:
        column = array("q", [first, *(b - a for a, b in pairwise(numbers))])
    except OverflowError:
        column, flag = array("q", numbers), b"p"
    packed = flag + zlib.compress(_little(column).tobytes(), 1)
    return len(packed).to_bytes(4, "little") + packed


def _unpacked(raw: bytes) -> tuple[list[int], bytes]:
    end = 4 + int.from_bytes(raw[:4], "little")
    column = _little(array("q", zlib.decompress(raw[5:end])))
    return list(accumulate(column)) if raw[4:5] == b"d" else column.tolist(), raw[end:]


def _little(column: array[Any]) -> array[Any]:
    """The column with the bytes of each number in little-endian order, or back."""
    if sys.byteorder != "little":
        column = column[:]
        column.byteswap()
    return column
