"""Taking up a job again that an earlier process submitted, from the tags of its run."""

from __future__ import annotations

import re
from pathlib import Path

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Run, ViewType

from mlflow_plugkit.errors import mlflow_error
from mlflow_slurm_backend.errors import SLURM_ERRORS
from mlflow_slurm_backend.folder import Job, Task, read_job, task_folder
from mlflow_slurm_backend.record import Recorder, Tag
from mlflow_slurm_backend.settings import ClusterSettings
from mlflow_slurm_backend.states import has_ended, job_state
from mlflow_slurm_backend.submitted import SlurmSubmittedRun
from mlflow_slurm_backend.watcher import Watcher, watcher


def attach(run_or_job: str, tracking_uri: str | None = None, *, stream: bool = True) -> SlurmSubmittedRun:
    """The SubmittedRun of a job that another process submitted; what happens to the job is recorded from now on.

    Args:
        run_or_job: the id of the MLflow run, or Slurm's id of the job.
        tracking_uri: where the run is; MLflow's current tracking URI unless given.
        stream: whether `wait()` shows the job's output, from its beginning.

    Raises:
        MlflowException: there is no such run, it was not submitted by this backend, or Slurm knows no job
            of its name.
    """
    recorder = Recorder(tracking_uri or mlflow.get_tracking_uri())
    run = _find_run(run_or_job, recorder.client)
    settings = ClusterSettings.from_env()
    watching = watcher(settings.poll_seconds)
    return SlurmSubmittedRun(
        _job(run, recorder, watching),
        recorder,
        watching,
        stream=stream,
        patience=settings.patience_seconds,
        ended_in=recorded_states(run, recorder.client),
    )


def _find_run(run_or_job: str, client: MlflowClient) -> Run:
    if not re.fullmatch(r"\d+(_\d+)?", run_or_job) or len(run_or_job) == 32:
        return client.get_run(run_or_job)
    experiments = [e.experiment_id for e in client.search_experiments(ViewType.ACTIVE_ONLY)]
    found = client.search_runs(experiments, f"tags.`{Tag.JOB_ID}` = '{run_or_job}'", max_results=1)
    if not found:
        raise mlflow_error(
            f"No run has the tag {Tag.JOB_ID} = {run_or_job}. Is this the tracking server it was submitted with?",
            "RESOURCE_DOES_NOT_EXIST",
        )
    return found[0]


def _job(run: Run, recorder: Recorder, watching: Watcher) -> Job:
    """The job of a run: from the manifest in its folder, or, where that is gone, from the tags alone."""
    tags, run_id = run.data.tags, str(run.info.run_id)
    if Tag.JOB_NAME not in tags or Tag.FOLDER not in tags:
        raise mlflow_error(f"Run {run_id} has no tag {Tag.JOB_NAME}: it was not submitted by this backend.")
    tagged = tags.get(Tag.JOB_ID)
    job_id, _, index = (tagged or _lost_id(tags[Tag.JOB_NAME], run_id, watching)).partition("_")
    folder = Path(tags[Tag.FOLDER])
    try:
        job = read_job(folder, job_id)
    except (OSError, ValueError, KeyError):
        number = int(index) if index else None
        job = Job(
            tags[Tag.JOB_NAME], run_id, folder, (Task(number, run_id, task_folder(folder, number)),), False, job_id
        )
    if run_id != job.run_id:  # a child of an array
        own = tuple(task for task in job.tasks if task.run_id == run_id)
        job = Job(job.name, run_id, folder, own, job.requeue, job_id)
    if not tagged:
        recorder.submitted(job)
    return job


def _lost_id(name: str, run_id: str, watching: Watcher) -> str:
    """The id of a job whose submitter ended before it could note it."""
    with SLURM_ERRORS.applied(f"find the job {name}"):
        found = watching.slurm.find(name)
    if not found:
        raise mlflow_error(
            f"Slurm knows no job {name} of run {run_id}: it was never submitted.", "RESOURCE_DOES_NOT_EXIST"
        )
    return found


def recorded_states(run: Run, client: MlflowClient) -> dict[str, str]:
    """State by run id, of the run and of an array's children, where its end has been recorded already."""
    children = client.search_runs(
        [run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'", max_results=50_000
    )
    states = {str(r.info.run_id): r.data.tags.get(Tag.STATE, "PENDING") for r in (run, *children)}
    return {run_id: state for run_id, state in states.items() if state.isupper() and has_ended(job_state(state))}
