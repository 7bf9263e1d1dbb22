"""What the entry points name. MLflow imports this module at `import mlflow`: the standard library only."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

GROUP = "mlflow.artifact_repository"
TAKE_OVER_VARIABLE = "MLFLOW_S3_ARTIFACTS_TAKE_OVER_S3"


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **later: Any
) -> Any:
    """Make the artifact repository (group `mlflow.artifact_repository`)."""
    from mlflow_s3_artifacts.repository import S3PluginArtifactRepository

    return S3PluginArtifactRepository(artifact_uri, tracking_uri, registry_uri, **later)


def take_over_s3() -> None:
    """From now on, in this process, `s3://` locations are this plugin's instead of MLflow's own."""
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry

    _artifact_repository_registry.register("s3", artifact_repository)


def _take_over_at_import() -> None:
    """Register `s3` while MLflow loads the entry points, where the environment asks for it.

    An entry point called `s3` would replace MLflow's repository for everybody who installs the package.
    MLflow's registry exists by the time it loads entry points, so this reaches servers and clients alike;
    but an entry point `s3` of another distribution may be loaded later and win.
    """
    if os.environ.get(TAKE_OVER_VARIABLE, "").strip().lower() not in ("1", "true", "yes", "on"):
        return
    module = sys.modules.get("mlflow.store.artifact.artifact_repository_registry")
    registry = getattr(module, "_artifact_repository_registry", None)
    if registry is not None:
        registry.register("s3", artifact_repository)
    _warn_of_rivals()


def _warn_of_rivals() -> None:
    from importlib.metadata import entry_points

    rivals = sorted({point.dist.name for point in entry_points(group=GROUP, name="s3") if point.dist})
    if rivals:
        warnings.warn(
            f"{TAKE_OVER_VARIABLE} is set, but {', '.join(rivals)} registers s3, too, and which of them MLflow uses is "
            "left to chance. Uninstall it, or call mlflow_s3_artifacts.take_over_s3() after `import mlflow`.",
            stacklevel=2,
        )


_take_over_at_import()
