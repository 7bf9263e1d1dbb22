"""What the entry point names. MLflow imports this module at `import mlflow`: the standard library only."""

from __future__ import annotations

from typing import Any


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **later: Any
) -> Any:
    """Make the artifact repository (group `mlflow.artifact_repository`)."""
    from mlflow_xet_artifacts.repository import XetArtifactRepository

    return XetArtifactRepository(artifact_uri, tracking_uri, registry_uri, **later)
