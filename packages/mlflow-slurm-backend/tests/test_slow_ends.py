"""Ends that take a minute or more: the jobs start with the cluster, and are looked at last."""

from __future__ import annotations

import re
from typing import Any

from mlflow import MlflowClient
from slurm_cluster import Cluster, until


def test_a_job_that_takes_too_long_fails(slow: dict[str, Any]) -> None:
    """TIMEOUT: the run is FAILED, and says why. Slurm counts time limits in whole minutes."""
    submitted = slow["timed out"]
    assert submitted.wait() is False
    run = MlflowClient(slow["store"]).get_run(submitted.run_id)
    assert (run.info.status, run.data.tags["slurm.state"]) == ("FAILED", "TIMEOUT")
    assert run.data.tags["slurm.reason"] == "TimeLimit"
    assert run.data.metrics["slurm.elapsed_seconds"] >= 60


def test_a_lost_node_fails_the_job(slow: dict[str, Any]) -> None:
    """slurmd and the job were killed: the controller has noticed, and the run is FAILED."""
    submitted = slow["lost node"]
    assert submitted.wait() is False
    run = MlflowClient(slow["store"]).get_run(submitted.run_id)
    assert (run.info.status, run.data.tags["slurm.state"]) == ("FAILED", "NODE_FAIL")
    assert not list(submitted.job.folder.rglob("credentials"))


def test_a_checkpointed_job_is_queued_again(slow: dict[str, Any], slurm: Cluster) -> None:
    """The signal reached the project before the time limit; it saved, ended with non-zero, and started again."""
    submitted = slow["checkpoint"]
    folder = submitted.job.folder
    until((folder / "checkpoint").exists, 60, "the checkpoint is written")
    until(lambda: "Restarts=1" in shown(slurm, submitted.job_id), 30, "the job is queued again")
    if re.search("JobState=PENDING", shown(slurm, submitted.job_id)):  # Slurm lets it wait for two minutes
        slurm.run("scontrol", "update", f"jobid={submitted.job_id}", "starttime=now", check=False)
    assert submitted.wait() is True
    assert (folder / "attempts").read_text() == "attempt\n" * 2
    run = MlflowClient(slow["store"]).get_run(submitted.run_id)
    assert (run.info.status, run.data.tags["slurm.restarts"]) == ("FINISHED", "1")
    assert not list(folder.rglob("credentials"))


def shown(slurm: Cluster, job_id: str) -> str:
    return slurm.run("scontrol", "show", "job", job_id, check=False).stdout
