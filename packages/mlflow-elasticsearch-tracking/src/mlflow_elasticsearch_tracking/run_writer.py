"""Changes of runs: one conditional write for all changes that wait, on the state that this process wrote last.

A run's document changes by compare-and-set. The process keeps what it wrote last with its sequence number, so that
a log call on a run that nobody else writes is a single request. The threads of the process hand their changes to
whichever of them writes next, and one write carries all that came meanwhile (group commit).

Metric points go into the run's document itself first (its tail), in the same write as the latest values: they are
there together or not at all. Only points that were committed so are copied to the history index, under ids that
follow from the points; they leave the tail with a write after the copy was acknowledged. So a crash, a lost race or
a repetition at any moment leaves every point once in what a reader puts together of both.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.history_columns import METRICS, NEW_POINTS, Copied, Tail, chunks_of, move
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.run_documents import no_run, run_document
from mlflow_plugkit_elasticsearch import Action, Conflict, Document, Documents, bulk
from mlflow_plugkit_elasticsearch.documents import UPDATE_SECONDS, Source, busy, pause

Change = Callable[[Source], Source | None]
#: How much is remembered: runs, and params, tags and metrics of all of them together.
_MOST_RUNS, _MOST_ITEMS = 512, 300_000


class _State(NamedTuple):
    """A run as it was read or written last; `copied` names the segments of its tail that the history index has."""

    document: Document
    copied: Copied = frozenset()


@dataclass(eq=False)
class _Ticket:
    """One caller's change and what became of it."""

    change: Change
    document: Document | None = None
    error: Exception | None = None

    @property
    def done(self) -> bool:
        return self.document is not None or self.error is not None

    def result(self) -> Document:
        if self.error is not None:
            raise self.error
        assert self.document is not None
        return self.document


@dataclass
class _Line:
    """The changes of one run that wait, and the lock of the thread that writes."""

    waiting: list[_Ticket] = field(default_factory=list)
    writing: threading.Lock = field(default_factory=threading.Lock)
    users: int = 0


class RunWriter:
    """Changes the runs of one prefix. `RunWriter.of` shares it between the stores of a process."""

    def __init__(self, docs: Documents) -> None:
        self._docs = docs
        self._lock = threading.Lock()
        self._lines: dict[str, _Line] = {}
        self._states: OrderedDict[str, tuple[_State, int]] = OrderedDict()
        self._items = 0

    @classmethod
    def of(cls, docs: Documents) -> RunWriter:
        """The writer for these documents, made once in this process."""
        with _making:
            return _writer(docs)

    def created(self, document: Document) -> None:
        """Note a run that this process has just made."""
        self._remember(document.id, _State(document))

    def forget(self, run_id: str) -> None:
        """Read the run anew at its next change."""
        with self._lock:
            self._drop(run_id)

    def change(self, run_id: str, change: Change) -> Document:
        """Change a run, and return it as it is now.

        Args:
            run_id: which run.
            change: takes a copy of the top level of the run's source and returns the new source, or None to leave
                the run as it is. Points to log go under `NEW_POINTS`. May be called several times; may raise,
                which leaves the run as it is; must not alter nested dictionaries.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for an unknown run; `RESOURCE_CONFLICT` where others kept
                changing it for a minute; and what `change` raises on the run's present state.
        """
        ticket = _Ticket(change)
        with self._lock:
            line = self._lines.setdefault(run_id, _Line())
            line.users += 1
            line.waiting.append(ticket)
        try:
            with line.writing:
                if not ticket.done:
                    with self._lock:
                        tickets, line.waiting = line.waiting, []
                    # It is not among them where the thread that took it was interrupted.
                    self._commit(run_id, tickets if ticket in tickets else [*tickets, ticket])
        finally:
            with self._lock:
                line.users -= 1
                if not line.users:
                    del self._lines[run_id]
        return ticket.result()

    def _commit(self, run_id: str, tickets: list[_Ticket]) -> None:
        try:
            self._write_until_it_holds(run_id, tickets)
        except Exception as exc:  # noqa: BLE001 # it belongs to each of the callers whose changes these are
            for ticket in tickets:
                ticket.error = ticket.error or exc

    def _write_until_it_holds(self, run_id: str, tickets: list[_Ticket]) -> None:
        deadline = time.monotonic() + UPDATE_SECONDS
        state, copied = self._take(run_id), Copied()
        for attempt in range(1_000):
            is_present = state is None
            if state is None:
                state = _State(self._read(run_id), copied)
            copied = state.copied
            source, certain = _apply(tickets, state.document.source)
            if not is_present and not certain:
                # Nothing is refused or left out on a state that may be out of date.
                state = None
                for ticket in tickets:
                    ticket.error = None
                continue
            if source is None:
                self._finish(tickets, state)
                return
            state, copied = self._write(run_id, state, source)
            if state is not None:
                self._finish(tickets, state)
                return
            if time.monotonic() > deadline:
                break
            pause(attempt)
        raise busy(RUNS, run_id)

    def _finish(self, tickets: list[_Ticket], state: _State) -> None:
        for ticket in tickets:
            if ticket.error is None:
                ticket.document = state.document
        self._remember(state.document.id, self._settled(state))

    def _read(self, run_id: str) -> Document:
        document = self._docs.get(RUNS, run_id)
        if document is None:
            raise no_run(run_id)
        return document

    def _write(self, run_id: str, state: _State, source: Source) -> tuple[_State | None, Copied]:
        """Write; the new state, or None after a lost race; and what the history index has of the tail now."""
        source = dict(source)
        points = source.pop(NEW_POINTS, ())
        settled = source["status"] not in _OPEN_ENDED
        tail, copies = move(Tail.of(state.document.source), points, state.copied, settled=settled)
        source = tail.into(source)
        if not copies:
            try:
                written = self._docs.put(RUNS, run_id, run_document(source), state.document)
            except Conflict:
                return None, state.copied
            return _State(written._replace(source=source)), Copied()
        actions = [Action("index", RUNS, run_id, run_document(source), state.document)]
        actions += [Action("index", METRICS, chunk["id"], chunk) for chunk in chunks_of(run_id, copies)]
        outcome = bulk(self._docs, actions)[0]
        copied = frozenset(segment.name for segment in copies)
        if outcome.conflict:
            return None, state.copied | copied
        return _State(Document(run_id, source, outcome.seq_no, outcome.primary_term), copied), copied

    def _settled(self, state: _State) -> _State:
        """Once a run has ended, take out of its document what the history index has."""
        source, tail = state.document.source, Tail.of(state.document.source)
        if source["status"] in _OPEN_ENDED or not state.copied.intersection(one.name for one in tail.segments):
            return state
        tail, _ = move(tail, (), state.copied, settled=False)
        source = tail.into(source)
        try:
            written = self._docs.put(RUNS, state.document.id, run_document(source), state.document)
        except (Conflict, MlflowException):
            return state  # the change itself was written: the next one takes care of it
        return _State(written._replace(source=source))

    def _take(self, run_id: str) -> _State | None:
        with self._lock:
            return self._drop(run_id)

    def _drop(self, run_id: str) -> _State | None:
        known = self._states.pop(run_id, None)
        if known is None:
            return None
        self._items -= known[1]
        return known[0]

    def _remember(self, run_id: str, state: _State) -> None:
        source = state.document.source
        items = 1 + sum(len(source[part]) for part in "ptm")
        with self._lock:
            self._drop(run_id)
            self._states[run_id] = (state, items)
            self._items += items
            while len(self._states) > _MOST_RUNS or (self._items > _MOST_ITEMS and len(self._states) > 1):
                self._drop(next(iter(self._states)))


_OPEN_ENDED = frozenset({"RUNNING", "SCHEDULED"})
_making = threading.Lock()


@lru_cache(maxsize=64)
def _writer(docs: Documents) -> RunWriter:
    return RunWriter(docs)


def _apply(tickets: list[_Ticket], source: Source) -> tuple[Source | None, bool]:
    """The source after all changes that do not raise, or None where none changes it; and whether each had its way."""
    changed, certain = False, True
    for ticket in tickets:
        ticket.error = None
        try:
            after = ticket.change(dict(source))
        except Exception as exc:  # noqa: BLE001 # raised again in the thread of its caller
            ticket.error, certain = exc, False
            continue
        if after is None:
            certain = False
        else:
            source, changed = after, True
    return (source if changed else None), certain
