"""What the entry point names: the standard library only, everything else on first use."""

from __future__ import annotations

from typing import Any


def project_backend() -> Any:
    """Make the project backend (group `mlflow.project_backend`)."""
    from mlflow_slurm_backend.backend import SlurmBackend

    return SlurmBackend()
