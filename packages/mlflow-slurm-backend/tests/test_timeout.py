"""The time limit, which Slurm counts in whole minutes: the job starts with the cluster, and is looked at last."""

from __future__ import annotations

from typing import Any

import mlflow


def test_a_job_that_takes_too_long_fails(timed_out: tuple[Any, str]) -> None:
    """TIMEOUT: the run is FAILED, and says why."""
    submitted, uri = timed_out
    assert submitted.wait() is False
    run = mlflow.MlflowClient(uri).get_run(submitted.run_id)
    assert (run.info.status, run.data.tags["slurm.state"], run.data.tags["slurm.reason"]) == (
        "FAILED",
        "TIMEOUT",
        "TimeLimit",
    )
    assert run.data.metrics["slurm.elapsed_seconds"] >= 60
