"""Metric points as columns, and the tail that moves into the history index."""

from __future__ import annotations

import math
import random
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlflow_elasticsearch_tracking.history_columns import (
    MOST_IN_TAIL,
    MOST_OPEN,
    MOST_SETTLED,
    Copied,
    Point,
    Tail,
    block_columns,
    blocks_of,
    chunks_of,
    move,
)

INTEGERS = st.integers(-(2**63), 2**63 - 1)
POINTS = st.lists(
    st.tuples(st.sampled_from(["a", "b", "größer / c"]), INTEGERS, INTEGERS.filter(lambda n: n >= 0), st.floats()),
    max_size=200,
)


def shown(points: Any) -> list[str]:
    """Points in a form that compares, NaN included."""
    return sorted(map(repr, points))


def points_in(tail: Tail, keys: set[str]) -> list[Point]:
    return [(key, *row) for key in keys for part in tail.columns(key) for row in zip(*part, strict=True)]


def in_blocks(blocks: list[dict[str, Any]], keys: set[str]) -> list[Point]:
    found = [(key, part) for key in keys for block in blocks for part in block_columns(block, key)]
    return [(key, *row) for key, part in found for row in zip(*part, strict=True)]


def some(count: int, keys: int = 1, first: int = 0) -> list[Point]:
    return [(f"k{n % keys}", n // keys, 1_700_000_000_000 + n, float(n)) for n in range(first, first + count)]


@given(POINTS)
@settings(max_examples=200, deadline=None)
def test_blocks_keep_every_point_exactly(points: list[Point]) -> None:
    """All 64 bits of steps, timestamps and values come back, NaN and infinities included."""
    keys = {point[0] for point in points}
    blocks = orjson.loads(orjson.dumps(blocks_of(points)))
    assert shown(in_blocks(blocks, keys)) == shown(points)
    for block in blocks:
        (columns,) = block_columns(block)
        assert (block["a"], block["b"]) == (min(columns.steps), max(columns.steps))
        assert (block["c"], block["d"]) == (min(columns.timestamps), max(columns.timestamps))


@given(POINTS, POINTS)
@settings(max_examples=100, deadline=None)
def test_a_tail_keeps_every_point_exactly(first: list[Point], second: list[Point]) -> None:
    """Points come back from a tail after each way through JSON, open or closed."""
    keys = {point[0] for point in [*first, *second]}
    tail = Tail.of({}).plus(first)
    tail = Tail.of(orjson.loads(orjson.dumps(tail.into({})))).plus(second)
    tail = Tail.of(orjson.loads(orjson.dumps(tail.into({}))))
    assert tail.size == len(first) + len(second)
    assert shown(points_in(tail, keys)) == shown([*first, *second])
    assert shown(points_in(tail.closed(), keys)) == shown([*first, *second])


def test_a_key_with_many_points_has_a_block_of_its_own() -> None:
    """A thousand points of ten keys are ten blocks; a thousand keys with a point each share eight."""
    assert [len(block["k"]) for block in blocks_of(some(1_000, 10))] == [2] * 10
    assert len(blocks_of(some(1_000, 1_000))) == 8


def test_a_block_is_a_third_of_its_json() -> None:
    """A thousand points take at most a third of what they would as JSON, and half of their 24 bytes."""
    points = [("loss", n, 1_700_000_000_000 + 137 * n, random.random()) for n in range(1_000)]
    size = len(orjson.dumps(blocks_of(points)))
    plain = len(orjson.dumps([[p[1] for p in points], [p[2] for p in points], [p[3] for p in points]]))
    assert size < plain / 3
    assert size < 24 * 1_000 / 2


def test_single_points_stay_open_until_there_are_many() -> None:
    """The first points are plain JSON; one more than fits makes a segment of all of them."""
    tail = Tail.of({}).plus(some(MOST_OPEN))
    assert (len(tail.open) // 4, tail.segments) == (MOST_OPEN, ())
    tail = tail.plus(some(1, first=MOST_OPEN))
    assert (tail.open, [one.size for one in tail.segments]) == ([], [MOST_OPEN + 1])


def test_only_what_was_committed_is_copied() -> None:
    """A write that logs points copies those that the document had before, never its own."""
    first, copies = move(Tail.of({}), some(1_000), Copied(), settled=False)
    assert copies == []
    second, copies = move(first, some(1_000, first=1_000), Copied(), settled=False)
    assert [one.number for one in copies] == [1]
    assert [one.number for one in second.segments] == [1, 2], "what is copied stays until the copy is known to be there"
    third, copies = move(second, some(1_000, first=2_000), Copied([first.segments[0].name]), settled=False)
    assert [one.number for one in third.segments] == [2, 3]
    assert [one.number for one in copies] == [2]


def test_a_copy_after_a_lost_race_is_sent_again_under_the_same_ids() -> None:
    """Ids follow from what is copied: a repetition overwrites the same documents with the same content."""
    before, _ = move(Tail.of({}), some(1_000, 4), Copied(), settled=False)
    _, copies = move(before, some(1_000), Copied(), settled=False)
    _, again = move(Tail.of(orjson.loads(orjson.dumps(before.into({})))), some(500), Copied(), settled=False)
    assert list(chunks_of("r", copies)) == list(chunks_of("r", again))


def test_an_open_segment_that_grew_has_other_ids() -> None:
    """A late copy of fewer points must not replace one of more: their ids differ by the count."""
    before = Tail.of({}).plus(some(100))
    _, copies = move(before, some(MOST_IN_TAIL), Copied(), settled=False)
    _, more = move(before.plus(some(20, first=100)), some(MOST_IN_TAIL), Copied(), settled=False)
    assert copies[0].number == more[0].number
    assert not {chunk["id"] for chunk in chunks_of("r", copies)} & {chunk["id"] for chunk in chunks_of("r", more)}


def test_segments_that_are_copied_together_are_merged() -> None:
    """Several small segments become one block for each key."""
    tail = Tail.of({})
    for number in range(6):
        tail, copies = move(tail, some(200, 2, first=200 * number), Copied(), settled=False)
    assert len(copies) > 1
    chunks = list(chunks_of("r", copies))
    assert [chunk["k"][0] for chunk in chunks] == ["k0", "k1"]
    assert sum(chunk["k"][1] for chunk in chunks) == sum(one.size for one in copies)


@pytest.mark.parametrize(("count", "copied"), [(MOST_SETTLED, 0), (MOST_SETTLED + 1, MOST_SETTLED + 1)])
def test_a_run_that_has_ended_keeps_few_points(count: int, copied: int) -> None:
    """Few points stay in the document for good; more are copied when the run ends."""
    tail = Tail.of({}).plus(some(count))
    _, copies = move(tail, (), Copied(), settled=True)
    assert sum(one.size for one in copies) == copied


def test_nan_is_no_other_number() -> None:
    """NaN comes back as NaN from open points, too."""
    tail = Tail.of(orjson.loads(orjson.dumps(Tail.of({}).plus([("m", 0, 0, math.nan)]).into({}))))
    (columns,) = tail.columns("m")
    assert math.isnan(columns.values[0])
