"""What a supervisor does next, as a pure function of what is wanted and what is."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from mlflow_local_deploy.slots import Command, State

#: What a worker that was told to end gets on top of the time for its requests, in seconds.
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Seen:
    """A living worker; times in seconds.

    Attributes:
        age: since it was started.
        draining: since it was told to end.
        silent: since its last heartbeat.
    """

    id: str
    revision: str
    state: State
    command: Command = Command.WAIT
    age: float = 0.0
    draining: float = 0.0
    silent: float = 0.0

    @property
    def leaves(self) -> bool:
        """Whether it ends and takes no new connection."""
        return self.command is Command.DRAIN or self.state in (State.DRAINING, State.FAILED)

    @property
    def serves(self) -> bool:
        """Whether it takes connections, or was told to."""
        return not self.leaves and (self.state is State.SERVING or self.command is Command.SERVE)

    @property
    def waits(self) -> bool:
        """Whether it is ready to serve."""
        return not self.leaves and not self.serves and self.state is State.STANDBY

    @property
    def loads(self) -> bool:
        """Whether it is not ready yet."""
        return not self.leaves and not self.serves and self.state in (State.STARTING, State.LOADING)


@dataclass(frozen=True)
class Wanted:
    """What is wanted of the workers; see `place.Spec`."""

    revision: str
    workers: int
    standby: int
    start_seconds: float = 300.0
    drain_seconds: float = 30.0
    hang_seconds: float = 60.0


@dataclass(frozen=True)
class Action:
    """What to do with a worker; `start` has the revision as its id."""

    what: Literal["start", "serve", "drain", "kill"]
    id: str
    why: str = ""


def plan(
    wanted: Wanted | None,
    seen: Iterable[Seen],
    *,
    keep: Wanted | None = None,
    may_start: bool = True,
    limits: Wanted | None = None,
) -> list[Action]:
    """The actions of one round.

    A new revision takes over once all its workers are ready, and the old one is drained once they all take
    connections, so that somebody always does. A crashed worker's place is taken by one that stands by.

    Args:
        wanted: what is to serve; None ends all workers.
        seen: the living workers.
        keep: what serves until `wanted` is ready, and is kept up so long.
        may_start: False while a crashing worker's back-off runs.
        limits: whose times hold where nothing is wanted; the defaults without it.
    """
    workers = list(seen)
    overdue = _overdue(wanted or limits or Wanted("", 0, 0), workers)
    gone = {action.id for action in overdue}
    workers = [w for w in workers if w.id not in gone]
    if wanted is None:
        return overdue + [_end(w) for w in workers if not w.leaves]
    mine = [w for w in workers if w.revision == wanted.revision]
    others = [w for w in workers if w.revision != wanted.revision and not w.leaves]
    promoted = _promotions(wanted, mine, replaces=any(w.serves for w in others))
    taking = sum(w.serves and w.state is State.SERVING for w in mine)
    if taking >= wanted.workers:
        meanwhile = [_end(w) for w in others]
    else:
        meanwhile = _kept(keep, [w for w in others if keep and w.revision == keep.revision], may_start=may_start)
    starts = _starts(wanted, mine) if may_start else []
    return [*overdue, *promoted, *meanwhile, *_surplus(wanted, mine), *starts]


def _kept(keep: Wanted | None, theirs: list[Seen], *, may_start: bool) -> list[Action]:
    if keep is None:
        return []
    starts = _starts(replace(keep, standby=0), theirs) if may_start else []
    return _promotions(keep, theirs, replaces=False) + starts


def _overdue(limits: Wanted, workers: list[Seen]) -> list[Action]:
    found = []
    for w in workers:
        if w.leaves and w.draining > limits.drain_seconds + GRACE_SECONDS:
            found.append(Action("kill", w.id, "its requests did not end in time"))
        elif w.loads and w.age > limits.start_seconds:
            found.append(Action("kill", w.id, f"it was not ready after {limits.start_seconds:g} s"))
        elif (w.serves or w.waits) and 0 < limits.hang_seconds < w.silent:
            found.append(Action("kill", w.id, f"it did not answer for {w.silent:.0f} s"))
    return found


def _end(worker: Seen) -> Action:
    return Action("kill" if worker.loads else "drain", worker.id)


def _promotions(wanted: Wanted, mine: list[Seen], *, replaces: bool) -> list[Action]:
    serving = sum(w.serves for w in mine)
    waiting = [w for w in mine if w.waits]
    if replaces and serving + len(waiting) < wanted.workers:
        return []
    return [Action("serve", w.id) for w in waiting[: max(wanted.workers - serving, 0)]]


def _surplus(wanted: Wanted, mine: list[Seen]) -> list[Action]:
    serving, waiting, loading = ([w for w in mine if getattr(w, kind)] for kind in ("serves", "waits", "loads"))
    missing = max(wanted.workers - len(serving), 0)
    spare = [*waiting, *loading][wanted.standby + missing :]
    return [_end(w) for w in serving[wanted.workers :]] + [_end(w) for w in spare]


def _starts(wanted: Wanted, mine: list[Seen]) -> list[Action]:
    # Who has failed is not replaced before its process is gone and its reason known: the revision may be given up.
    living = sum(not w.leaves or w.state is State.FAILED for w in mine)
    return [Action("start", wanted.revision) for _ in range(wanted.workers + wanted.standby - living)]
