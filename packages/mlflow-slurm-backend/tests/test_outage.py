"""Many jobs at once, a controller that is away, and the rungs of the ladder; on a real cluster."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import mlflow
import pytest
from slurm_cluster import Cluster, until

pytestmark = pytest.mark.once

Submit = Callable[..., Any]
STATUS = ("sacct", "scontrol", "squeue")


@pytest.fixture
def wrapped(slurm: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Puts scripts in front of Slurm's commands on the PATH."""

    def wrap(body: str, *commands: str) -> Path:
        folder, calls = tmp_path / "wrappers", tmp_path / "calls"
        folder.mkdir(exist_ok=True)
        for command in commands:
            real = slurm.run("which", command).stdout.strip()
            text = f'#!/bin/bash\necho "{command} $EPOCHREALTIME" >> {calls}\n{body}\nexec {real} "$@"\n'
            (folder / command).write_text(text)
            (folder / command).chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}:{slurm.environment['PATH']}")
        return calls

    return wrap


def test_two_hundred_jobs_share_their_status_calls(
    slurm: Cluster, submit: Submit, store: str, wrapped: Callable[..., Path]
) -> None:
    """200 jobs at once: each is recorded, and never more than one status call in two seconds."""
    calls = wrapped("", *STATUS)
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda n: submit(f"sleep 0.2; exit {n % 2}", stream=False), range(200)))
    assert [job.wait() for job in jobs] == [n % 2 == 0 for n in range(200)]
    assert len({job.job_id for job in jobs}) == 200
    found = mlflow.MlflowClient().search_runs(["0"], max_results=1000)
    assert len(found) == 200
    for run in found:
        state = "COMPLETED" if run.info.status == "FINISHED" else "FAILED"
        assert run.data.tags["slurm.state"] == state
    times = [float(line.split()[1]) for line in calls.read_text().splitlines()]
    gaps = [later - earlier for earlier, later in pairwise(times)]
    assert len(times) >= 2
    assert min(gaps) >= 2.0, f"two status calls within {min(gaps):.2f} s"


def test_a_controller_that_is_away_loses_and_doubles_no_job(slurm: Cluster, submit: Submit, tmp_path: Path) -> None:
    """Down for some seconds, while a job runs, one is submitted and one is cancelled: all is done afterwards."""
    runs = submit("sleep 4; exit 5")
    held = submit("sleep 300", extra_flags=["--hold"])
    until(lambda: runs.get_status() == "RUNNING", what="the job runs")
    slurm.stop_controller()
    results: dict[str, Any] = {}
    submitting = threading.Thread(target=lambda: results.update(late=submit(f"echo x >> {tmp_path}/late")))
    cancelling = threading.Thread(target=held.cancel)
    submitting.start()
    cancelling.start()
    time.sleep(5)  # the time of the outage itself
    assert "late" not in results
    slurm.start_controller()
    submitting.join(60)
    cancelling.join(60)
    assert results["late"].wait() is True
    assert (tmp_path / "late").read_text() == "x\n"
    assert runs.wait() is False
    assert mlflow.get_run(runs.run_id).data.tags["slurm.exit_code"] == "5:0"
    assert mlflow.get_run(held.run_id).info.status == "KILLED"
    names = slurm.run("squeue", "--states=all", "--noheader", "--format=%j").stdout.split()
    assert names.count(results["late"].job.name) == 1


def test_an_unanswered_submission_that_happened_is_not_repeated(
    slurm: Cluster, submit: Submit, wrapped: Callable[..., Path], tmp_path: Path
) -> None:
    """sbatch submits, but its answer is lost: the job is found by its name."""
    real = slurm.run("which", "sbatch").stdout.strip()
    lost = f'{real} "$@" >/dev/null; echo "sbatch: error: Unable to contact slurm controller" >&2; exit 1'
    calls = wrapped(lost, "sbatch")
    submitted = submit(f"echo x >> {tmp_path}/ran")
    assert submitted.wait() is True
    assert (tmp_path / "ran").read_text() == "x\n"
    assert calls.read_text().count("sbatch") == 1


@pytest.mark.parametrize("broken", [("sacct",), ("sacct", "scontrol"), STATUS])
def test_each_rung_of_the_ladder_carries(
    slurm: Cluster, submit: Submit, wrapped: Callable[..., Path], broken: tuple[str, ...]
) -> None:
    """Without accounting, without scontrol, and with nothing but the exit-code file, a result comes out."""
    wrapped('echo "Unable to contact slurm controller (connect failure)" >&2; exit 1', *broken)
    good, bad = submit("exit 0"), submit("exit 7")
    assert (good.wait(), bad.wait()) == (True, False)
    tags = mlflow.get_run(bad.run_id).data.tags
    assert (tags["slurm.exit_code"], tags["slurm.nodes"]) == ("7:0", slurm.main)


def test_a_job_that_slurm_forgot_is_not_waited_for_for_ever(
    slurm: Cluster, submit: Submit, wrapped: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody knows it, and it left no exit code: after some rounds it has failed."""
    monkeypatch.setattr("mlflow_slurm_backend.ladder.MISSES", 2)
    wrapped('echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1', *STATUS)
    submitted = submit("sleep 300")
    try:
        assert submitted.wait() is False
        assert mlflow.get_run(submitted.run_id).data.tags["slurm.state"] == "UNKNOWN"
    finally:
        slurm.run("scancel", submitted.job_id)
