"""The files of a state folder: pages, locks, counters, logs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mlflow_local_deploy import logs
from mlflow_local_deploy.counting import COUNTERS, Totals, count, read_totals, route_offset
from mlflow_local_deploy.place import Place, Spec, Status, try_lock, write
from mlflow_local_deploy.slots import Slot, State, read_page

OCCUPY = """
import sys
from pathlib import Path
from mlflow_local_deploy.slots import Slot, State
slot = Slot(Path(sys.argv[1]))
slot.occupy()
slot.page.state = State.SERVING
print("occupied", flush=True)
sys.stdin.read()
"""


def occupant(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", OCCUPY, str(path)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_a_page_is_occupied_exactly_as_long_as_its_process_lives(tmp_path: Path) -> None:
    slot = Slot.create(tmp_path / "r1.1", 0.0)
    assert not slot.is_occupied()
    process = occupant(slot.path)
    assert process.stdout is not None
    assert process.stdout.readline() == "occupied\n"
    assert slot.is_occupied()
    assert (slot.page.pid, slot.page.state, slot.revision) == (process.pid, State.SERVING, "r1")
    assert not slot.discard()
    process.kill()
    process.wait()
    assert not slot.is_occupied()
    assert slot.discard()
    assert read_page(slot.path) is None


def test_who_comes_after_its_page_was_given_up_ends(tmp_path: Path) -> None:
    slot = Slot.create(tmp_path / "r1.1", 0.0)
    late = Slot(slot.path)
    assert slot.discard()
    with pytest.raises(FileNotFoundError):
        late.occupy()
    another = Slot.create(tmp_path / "r1.1", 0.0)
    with pytest.raises(FileNotFoundError):
        late.occupy()
    assert not another.is_occupied()


def test_only_one_holds_a_lock(tmp_path: Path) -> None:
    first = try_lock(tmp_path / "lock")
    assert first is not None
    assert try_lock(tmp_path / "lock") is None


def test_states_of_later_versions_are_read(tmp_path: Path) -> None:
    place = Place(tmp_path)
    assert (place.spec(), place.status()) == (None, None)
    status = Status(3, "ready", "::", 80)
    write(place.status_file, {**status.__dict__, "from_the_future": 1})
    assert place.status() == status
    assert status.url == "http://[::1]:80"
    spec = Spec("d", "deployment", 1, "r1", 1, 1, "127.0.0.1", 0, 1.0, 1.0, 1.0)
    write(place.spec_file, spec)
    assert place.spec() == spec
    assert place.spec_file.stat().st_mode & 0o077 == 0


def test_counters_of_a_worker_that_is_gone_are_added_once(tmp_path: Path) -> None:
    counters = [0.0] * COUNTERS
    count(counters, route_offset("infer"), 200, 0.2)
    count(counters, route_offset("infer"), 404, 99.0)
    totals = Totals(tmp_path / "totals.json")
    totals.add("r1.1", counters)
    totals.add("r1.1", counters)
    totals.add("r1.2", counters)
    assert read_totals(tmp_path / "totals.json")[0] == [2 * value for value in counters]


def test_logs_stay_in_bounds_and_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "MAX_BYTES", 1000)
    for number in range(30):
        (tmp_path / f"r1.{number}.log").write_text(f"{number}\n")
    with (tmp_path / "r1.living.log").open("a") as living:
        living.write("x" * 1001)
        living.flush()
        logs.keep_in_bounds(tmp_path, {"r1.living"})
        living.write("later\n")
    assert logs.tail(tmp_path / "r1.living.log", 5) == ["later"]
    assert (tmp_path / "r1.living.log.1").stat().st_size == 1001
    assert len(list(tmp_path.glob("r1.*.log"))) == logs.KEPT + 1
    assert logs.tail(tmp_path / "nothing.log", 5) == []
