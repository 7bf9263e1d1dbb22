"""A real cluster with slurmdbd and MariaDB: accounting is asked first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import mlflow
from slurm_cluster import Cluster, until

Submit = Callable[..., Any]


def test_accounting_gives_states_and_peak_memory(accounted: Cluster, submit: Submit) -> None:
    """States, exit codes and memory of jobs that ran at once come from sacct."""
    code = "x = bytearray(90_000_000); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(4)"
    big = submit(f'{sys.executable} -c "{code}"')
    bad, array = submit("exit 4"), submit("true", array={"a": [1, 2]})
    assert (big.wait(), bad.wait(), array.wait()) == (True, False, True)
    run = mlflow.get_run(big.run_id)
    assert 85e6 < run.data.metrics["slurm.peak_memory_bytes"] < 300e6
    assert run.data.metrics["slurm.elapsed_seconds"] >= 4
    assert mlflow.get_run(bad.run_id).data.tags["slurm.exit_code"] == "4:0"
    sources = {watched.seen.source for job in (big, bad, array) for watched in job._watched}
    assert "sacct" in sources


def test_cancelled_by_a_user_is_killed(accounted: Cluster, submit: Submit) -> None:
    """sacct's state is "CANCELLED by <uid>"."""
    submitted = submit("sleep 300")
    until(lambda: submitted.get_status() == "RUNNING", what="the job runs")
    submitted.cancel()
    run = mlflow.get_run(submitted.run_id)
    assert (run.info.status, run.data.tags["slurm.state"]) == ("KILLED", "CANCELLED")
    shown = accounted.run("sacct", "-X", "-n", "-P", "-o", "State", "-j", submitted.job_id).stdout
    assert shown.startswith("CANCELLED by")


def test_a_requeued_job_is_not_taken_for_ended(accounted: Cluster, submit: Submit) -> None:
    """Accounting keeps the record of the first attempt; the controller knows that there will be another one."""
    submitted = submit("[ ${SLURM_RESTART_COUNT:-0} = 1 ] || sleep 300", requeue=True)
    until(lambda: submitted.get_status() == "RUNNING", what="the job runs")
    accounted.run("scontrol", "requeue", submitted.job_id)
    pending = lambda: "JobState=PENDING" in accounted.run("scontrol", "show", "job", submitted.job_id).stdout  # noqa: E731
    until(pending, what="the job is pending again")
    submitted.look()
    until(
        lambda: mlflow.get_run(submitted.run_id).data.tags.get("slurm.restarts") == "1", what="the restart is recorded"
    )
    assert submitted.get_status() == "SCHEDULED"
    accounted.run("scontrol", "update", f"jobid={submitted.job_id}", "starttime=now")
    assert submitted.wait() is True
    assert mlflow.get_run(submitted.run_id).info.status == "FINISHED"


def test_a_job_that_slurm_killed_for_its_memory_says_so(accounted: Cluster, submit: Submit) -> None:
    """Where Slurm measures memory instead of constraining it, its state is FAILED only; the reason tells more."""
    code = "x = bytearray(300_000_000); x[::4096] = b'1' * len(x[::4096]); import time; time.sleep(60)"
    submitted = submit(f'exec {sys.executable} -c "{code}"', mem=64)
    assert submitted.wait() is False
    tags = mlflow.get_run(submitted.run_id).data.tags
    assert mlflow.get_run(submitted.run_id).info.status == "FAILED"
    assert "memory limit" in tags["slurm.reason"]
