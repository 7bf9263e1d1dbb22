"""What the entry points name. MLflow imports this module at `import mlflow`: the standard library only.

Stores are made by factory functions. For providers and other classes MLflow loads the attribute
itself, so `__getattr__` imports each from its own module when it is asked for (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "ReferenceRunContextProvider": "context",
    "ReferenceDefaultExperimentProvider": "context",
    "ReferenceRequestHeaderProvider": "headers",
    "ReferenceRequestAuthProvider": "auth",
    "ReferenceEvaluator": "evaluator",
    "ReferenceDatasetSource": "dataset",
    "from_reference": "dataset",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mlflow_reference_plugin.{_HOMES[name]}"), name)


def tracking_store(store_uri: str, artifact_uri: str | None = None) -> Any:
    """Make the tracking store (group `mlflow.tracking_store`)."""
    from mlflow_reference_plugin.tracking import ReferenceTrackingStore

    return ReferenceTrackingStore(store_uri, artifact_uri)


def model_registry_store(store_uri: str, tracking_uri: str | None = None) -> Any:
    """Make the model registry store (group `mlflow.model_registry_store`)."""
    from mlflow_reference_plugin.registry import ReferenceRegistryStore

    return ReferenceRegistryStore(store_uri, tracking_uri)


def artifact_repository(
    artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None, **later: Any
) -> Any:
    """Make the artifact repository (group `mlflow.artifact_repository`)."""
    from mlflow_reference_plugin.artifacts import ReferenceArtifactRepository

    return ReferenceArtifactRepository(artifact_uri, tracking_uri, registry_uri, **later)


def scorer_store(tracking_uri: str) -> Any:
    """Make the scorer store (group `mlflow.scorer_store`): MLflow's own, which keeps scorers in the tracking store."""
    from mlflow.genai.scorers.registry import MlflowTrackingStore

    return MlflowTrackingStore(tracking_uri)


def project_backend() -> Any:
    """Make the project backend (group `mlflow.project_backend`)."""
    from mlflow_reference_plugin.project_backend import ReferenceBackend

    return ReferenceBackend()
