"""Dependencies between jobs: the user names runs or Slurm jobs, sbatch takes job ids."""

from __future__ import annotations

from collections.abc import Iterable

from mlflow import MlflowClient

from mlflow_plugkit.errors import mlflow_error
from mlflow_slurm_backend.record import Tag
from mlflow_slurm_backend.settings import JobConfig


def dependency_flags(config: JobConfig, client: MlflowClient) -> list[str]:
    """The flags of sbatch for `afterok` and `afterany`.

    A job whose dependency can never be fulfilled is cancelled by Slurm instead of waiting for ever.

    Raises:
        MlflowException: a run does not exist, or was not submitted to Slurm.
    """
    kinds = {"afterok": config.afterok, "afterany": config.afterany}
    wanted = [":".join([kind, *_job_ids(names, client)]) for kind, names in kinds.items() if names]
    return [f"--dependency={','.join(wanted)}", "--kill-on-invalid-dep=yes"] if wanted else []


def _job_ids(names: Iterable[str], client: MlflowClient) -> list[str]:
    return [name if name.partition("_")[0].isdigit() and len(name) < 32 else _job_of(name, client) for name in names]


def _job_of(run_id: str, client: MlflowClient) -> str:
    job_id = client.get_run(run_id).data.tags.get(Tag.JOB_ID)
    if not job_id:
        raise mlflow_error(
            f"Run {run_id} has no tag {Tag.JOB_ID}: it was not submitted to Slurm, nothing can wait for it."
        )
    return str(job_id)
