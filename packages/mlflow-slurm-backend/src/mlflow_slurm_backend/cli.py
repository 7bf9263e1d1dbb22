"""The command `mlflow-slurm`: attach to, look at and cancel jobs that another process submitted."""

from __future__ import annotations

import sys

import click

from mlflow_slurm_backend.attaching import attach
from mlflow_slurm_backend.submitted import SlurmSubmittedRun

_ID = click.argument("run_or_job")
_URI = click.option("--tracking-uri", help="Where the run is. MLFLOW_TRACKING_URI unless given.")


@click.group()
def main() -> None:
    """Slurm jobs of MLflow runs. RUN_OR_JOB is the id of the run or Slurm's id of the job."""


@main.command("attach")
@_ID
@_URI
@click.option("--stream/--no-stream", default=True, help="Show the job's output.")
def attach_command(run_or_job: str, tracking_uri: str | None, stream: bool) -> None:
    """Wait for a job, show its output, and record its end in the run. Ctrl-C leaves the job alone."""
    submitted = _attached(run_or_job, tracking_uri, stream=stream)
    succeeded = submitted.wait()
    _show(submitted)
    sys.exit(0 if succeeded else 1)


@main.command()
@_ID
@_URI
def status(run_or_job: str, tracking_uri: str | None) -> None:
    """Show the status of a job."""
    submitted = _attached(run_or_job, tracking_uri)
    submitted.look()
    _show(submitted)


@main.command()
@_ID
@_URI
def cancel(run_or_job: str, tracking_uri: str | None) -> None:
    """Cancel a job, wait for its end, and mark the run KILLED."""
    submitted = _attached(run_or_job, tracking_uri)
    submitted.cancel()
    _show(submitted)


def _attached(run_or_job: str, tracking_uri: str | None, *, stream: bool = False) -> SlurmSubmittedRun:
    from mlflow.exceptions import MlflowException

    try:
        return attach(run_or_job, tracking_uri, stream=stream)
    except MlflowException as exc:
        raise click.ClickException(str(exc)) from exc


def _show(submitted: SlurmSubmittedRun) -> None:
    for job, state in submitted.state().items():
        click.echo(f"{job} {state}")
    click.echo(f"run {submitted.run_id} {submitted.get_status()}")
