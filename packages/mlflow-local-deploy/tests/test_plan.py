"""What the supervisor decides, without a process: also in every order in which workers may start, end and hang."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from mlflow_local_deploy.plan import GRACE_SECONDS, Action, Seen, Wanted, plan
from mlflow_local_deploy.slots import Command, State

OLD, NEW = Wanted("r1", 2, 1), Wanted("r2", 2, 1)


def fleet(revision: str, *states: State) -> list[Seen]:
    return [Seen(f"{revision}.{n}", revision, state) for n, state in enumerate(states)]


def done(actions: list[Action]) -> list[tuple[str, str]]:
    return [(a.what, a.id) for a in actions]


def test_an_empty_fleet_is_started_whole() -> None:
    assert done(plan(OLD, [])) == [("start", "r1")] * 3


def test_workers_serve_as_soon_as_they_are_ready_where_nobody_serves_yet() -> None:
    seen = fleet("r1", State.STANDBY, State.LOADING, State.LOADING)
    assert done(plan(OLD, seen)) == [("serve", "r1.0")]


def test_a_crashed_workers_place_is_taken_and_the_one_on_standby_replaced() -> None:
    seen = fleet("r1", State.SERVING, State.STANDBY)
    assert done(plan(OLD, seen)) == [("serve", "r1.1"), ("start", "r1")]


def test_nothing_is_started_while_a_back_off_runs_but_who_stands_by_takes_over() -> None:
    assert done(plan(OLD, fleet("r1", State.SERVING, State.STANDBY), may_start=False)) == [("serve", "r1.1")]


def test_a_worker_that_has_failed_is_not_replaced_before_it_is_gone() -> None:
    assert plan(replace(OLD, workers=1, standby=0), fleet("r1", State.FAILED)) == []


def test_a_new_revision_waits_until_all_its_workers_are_ready() -> None:
    old = fleet("r1", State.SERVING, State.SERVING, State.STANDBY)
    assert done(plan(NEW, [*old, *fleet("r2", State.STANDBY, State.LOADING, State.LOADING)], keep=OLD)) == []
    ready = fleet("r2", State.STANDBY, State.STANDBY, State.LOADING)
    assert done(plan(NEW, [*old, *ready], keep=OLD)) == [("serve", "r2.0"), ("serve", "r2.1")]


def test_the_old_revision_is_drained_when_the_new_one_takes_connections_and_not_before() -> None:
    old = fleet("r1", State.SERVING, State.SERVING, State.STANDBY)
    told = [replace(w, command=Command.SERVE) for w in fleet("r2", State.STANDBY, State.STANDBY)]
    assert ("drain", "r1.0") not in done(plan(NEW, [*old, *told], keep=OLD))
    taking = [replace(w, state=State.SERVING) for w in told]
    assert done(plan(NEW, [*old, *taking], keep=OLD))[:3] == [("drain", w.id) for w in old]


def test_the_old_revision_is_kept_up_while_the_new_one_loads() -> None:
    seen = [*fleet("r1", State.SERVING, State.STANDBY), *fleet("r2", State.LOADING, State.LOADING, State.LOADING)]
    assert done(plan(NEW, seen, keep=OLD)) == [("serve", "r1.1")]
    alone = [*fleet("r1", State.SERVING), *seen[2:]]
    assert done(plan(NEW, alone, keep=OLD)) == [("start", "r1")]


def test_fewer_workers_keep_the_one_on_standby() -> None:
    seen = fleet("r1", State.SERVING, State.SERVING, State.SERVING, State.STANDBY)
    assert done(plan(Wanted("r1", 1, 1), seen)) == [("drain", "r1.1"), ("drain", "r1.2")]


def test_all_end_where_nothing_is_wanted() -> None:
    seen = fleet("r1", State.SERVING, State.STANDBY, State.LOADING, State.DRAINING)
    assert done(plan(None, seen)) == [("drain", "r1.0"), ("drain", "r1.1"), ("kill", "r1.2")]


@pytest.mark.parametrize(
    ("worker", "word"),
    [
        (Seen("w", "r1", State.LOADING, age=OLD.start_seconds + 1), "ready"),
        (Seen("w", "r1", State.SERVING, silent=OLD.hang_seconds + 1), "answer"),
        (Seen("w", "r1", State.DRAINING, draining=OLD.drain_seconds + GRACE_SECONDS + 1), "requests"),
    ],
)
def test_who_takes_too_long_is_killed_and_the_reason_said(worker: Seen, word: str) -> None:
    first = plan(OLD, [worker])[0]
    assert (first.what, first.id) == ("kill", "w")
    assert word in first.why


def test_a_worker_may_hang_where_that_is_allowed() -> None:
    seen = [replace(w, silent=1e6) for w in fleet("r1", State.SERVING, State.SERVING, State.STANDBY)]
    assert plan(replace(OLD, hang_seconds=0), seen) == []


class Machine:
    """Workers that load, crash and end at random, and do what they are told."""

    def __init__(self, seed: int) -> None:
        self.random, self.workers, self.number = random.Random(seed), {}, 0  # type: dict[str, Seen]

    def obey(self, actions: list[Action]) -> None:
        for action in actions:
            if action.what == "start":
                self.number += 1
                name = f"{action.id}.{self.number}"
                self.workers[name] = Seen(name, action.id, State.LOADING)
            elif action.what == "kill":
                self.workers.pop(action.id)
            else:
                command = Command.SERVE if action.what == "serve" else Command.DRAIN
                self.workers[action.id] = replace(self.workers[action.id], command=command)

    def live(self, *, crashes: bool) -> None:
        for name, worker in list(self.workers.items()):
            if self.random.random() < 0.3:
                if worker.command is Command.DRAIN:
                    del self.workers[name]
                elif worker.command is Command.SERVE:
                    self.workers[name] = replace(worker, state=State.SERVING)
                elif worker.state is State.LOADING:
                    self.workers[name] = replace(worker, state=State.STANDBY)
            elif crashes and self.random.random() < 0.05:
                del self.workers[name]

    def serving(self) -> list[Seen]:
        return [w for w in self.workers.values() if w.serves and w.state is State.SERVING]


@pytest.mark.parametrize("seed", range(50))
def test_an_update_never_leaves_a_moment_without_a_serving_worker(seed: int) -> None:
    machine = Machine(seed)
    for _ in range(200):
        machine.obey(plan(OLD, machine.workers.values()))
        machine.live(crashes=False)
    for _ in range(300):
        machine.obey(plan(NEW, machine.workers.values(), keep=OLD))
        assert machine.serving(), "nobody serves"
        machine.live(crashes=False)
    assert sorted(w.revision for w in machine.workers.values()) == ["r2"] * 3


@pytest.mark.parametrize("seed", range(50))
def test_whatever_crashes_the_fleet_becomes_what_is_wanted(seed: int) -> None:
    machine = Machine(seed)
    for wanted, keep in ((OLD, None), (NEW, OLD), (replace(NEW, workers=4), None), (replace(NEW, workers=1), None)):
        for turn in range(400):
            machine.obey(plan(wanted, machine.workers.values(), keep=keep))
            assert len(machine.workers) <= 30, "workers pile up"
            machine.live(crashes=turn < 200)
        found = sorted(w.state for w in machine.workers.values())
        assert found == sorted([State.SERVING] * wanted.workers + [State.STANDBY] * wanted.standby)
