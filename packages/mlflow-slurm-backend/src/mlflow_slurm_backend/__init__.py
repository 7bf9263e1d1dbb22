"""MLflow Projects as Slurm jobs: `mlflow run -b slurm --backend-config slurm.json`.

`attach(run_id_or_job_id)` takes up a job again that an earlier process submitted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_slurm_backend.attaching import attach

__all__ = ["attach"]


def __getattr__(name: str) -> Any:
    if name != "attach":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow_slurm_backend.attaching import attach

    return attach
