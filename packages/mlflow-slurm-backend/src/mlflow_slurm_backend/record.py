"""Recording in MLflow what happens to a job: tags, metrics, artifacts and the run's status."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import replace

from mlflow import MlflowClient
from mlflow.entities import Metric, RunStatus, RunTag

from mlflow_plugkit.logs import get_logger
from mlflow_slurm_backend.folder import Job, Task
from mlflow_slurm_backend.ladder import read_exit_file
from mlflow_slurm_backend.states import Observation

ARTIFACTS = "slurm"
"""The artifact folder of the job's output and script."""
_logger = get_logger("mlflow_slurm_backend")


class Tag:
    """Names of the tags."""

    JOB_ID = "slurm.job_id"
    JOB_NAME = "slurm.job_name"
    FOLDER = "slurm.job_folder"
    STATE = "slurm.state"
    REASON = "slurm.reason"
    NODES = "slurm.nodes"
    EXIT_CODE = "slurm.exit_code"
    RESTARTS = "slurm.restarts"


class Recorder:
    """Writes to the tracking store that the job was submitted for."""

    def __init__(self, tracking_uri: str) -> None:
        self.client = MlflowClient(tracking_uri)

    def planned(self, job: Job) -> None:
        """Before the submission: what is needed to find the job again, should this process end meanwhile."""
        tags = {Tag.JOB_NAME: job.name, Tag.FOLDER: str(job.folder)}
        for run_id in runs_of(job):
            self._tag(run_id, tags)
            self.client.update_run(run_id, status="SCHEDULED")

    def submitted(self, job: Job) -> None:
        """After the submission."""
        if job.is_array:
            self._tag(job.run_id, {Tag.JOB_ID: job.job_id, Tag.STATE: "PENDING"})
        for task in job.tasks:
            self._tag(task.run_id, {Tag.JOB_ID: job.slurm_id(task), Tag.STATE: "PENDING"})

    def changed(self, task: Task, seen: Observation) -> None:
        """The job has another state, or other nodes, and has not ended."""
        self._tag(task.run_id, _tags(seen))
        stored = self.status(task.run_id)
        # A run that was queued again was ended by the first attempt; otherwise the project itself ended it.
        if stored != seen.state.status and (stored in ("SCHEDULED", "RUNNING") or seen.restarts):
            self.client.update_run(task.run_id, status=seen.state.status)

    def ended(self, job: Job, task: Task, seen: Observation) -> None:
        """The job has ended: everything is recorded, the run's status last, and the credentials are removed."""
        try:
            task.forget_credentials()
        except OSError as exc:
            _logger.warning("The credentials of job %s could not be removed: %s", job.slurm_id(task), exc)
        left = read_exit_file(task.exit_file)
        if left and not seen.exit_code:
            seen = left.after(seen)
        if told := task.told_by_slurmstepd():
            seen = replace(seen, reason=told)
        peak = seen.peak_memory or task.peak_memory()
        figures = {"slurm.elapsed_seconds": seen.elapsed, "slurm.peak_memory_bytes": peak}
        now = int(time.time() * 1000)
        metrics = [Metric(name, float(value), now, 0) for name, value in figures.items() if value is not None]
        tags = [RunTag(name, value) for name, value in _tags(seen).items()]
        self.client.log_batch(task.run_id, metrics=metrics, tags=tags)
        try:
            self._log_files(job, task)
        finally:
            self.end_run(task.run_id, seen.state.status)

    def _log_files(self, job: Job, task: Task) -> None:
        for file in (task.folder / "stdout.log", task.folder / "stderr.log", job.script):
            if file.exists():
                self.client.log_artifact(task.run_id, str(file), ARTIFACTS)

    def parent_changed(self, job: Job, status: str, seen: Iterable[Observation]) -> None:
        """The tasks of an array give its parent run another status."""
        if status in ("RUNNING", "SCHEDULED"):
            self.client.update_run(job.run_id, status=status)
            return
        names = [observation.state.name for observation in seen]
        self._tag(job.run_id, {Tag.STATE: ", ".join(f"{names.count(n)} {n}" for n in sorted(set(names)))})
        self.end_run(job.run_id, status)

    def rename(self, run_id: str, name: str) -> None:
        """Give the run a name."""
        self.client.update_run(run_id, name=name)

    def end_run(self, run_id: str, status: str) -> None:
        """End the run. Where the job succeeded, a status that the project itself set stays."""
        stored = self.status(run_id)
        if stored == status or (status == "FINISHED" and RunStatus.is_terminated(RunStatus.from_string(stored))):
            return
        self.client.set_terminated(run_id, status)

    def status(self, run_id: str) -> str:
        """The run's status in the store."""
        return str(self.client.get_run(run_id).info.status)

    def _tag(self, run_id: str, tags: dict[str, str]) -> None:
        self.client.log_batch(run_id, tags=[RunTag(name, value) for name, value in tags.items()])


def runs_of(job: Job) -> list[str]:
    """All runs of a job: the array's parent first."""
    return list(dict.fromkeys([job.run_id, *(task.run_id for task in job.tasks)]))


def combined(statuses: Iterable[str]) -> str:
    """The status of an array's parent: that of the task that fared worst, and RUNNING as soon as one started."""
    found = set(statuses)
    if found & {"RUNNING", "SCHEDULED"}:
        return "SCHEDULED" if found == {"SCHEDULED"} else "RUNNING"
    return next((s for s in ("FAILED", "KILLED") if s in found), "FINISHED")


def _tags(seen: Observation) -> dict[str, str]:
    tags = {
        Tag.STATE: seen.state.name,
        Tag.REASON: seen.reason,
        Tag.NODES: seen.nodes,
        Tag.EXIT_CODE: seen.exit_code if seen.ended else "",
        Tag.RESTARTS: str(seen.restarts) if seen.restarts else "",
    }
    return {name: value for name, value in tags.items() if value}
