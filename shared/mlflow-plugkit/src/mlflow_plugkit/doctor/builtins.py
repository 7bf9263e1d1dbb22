"""What MLflow itself serves: read from MLflow in the probe, or from a list where it cannot be read."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
from typing import Any

from mlflow_plugkit.doctor.groups import FALLBACK_BUILTINS

# group -> (module, expression path of the registry's dictionary). A call is written as "()".
_REGISTRIES = {
    "mlflow.tracking_store": ("mlflow.tracking._tracking_service.utils", "_tracking_store_registry._registry"),
    "mlflow.model_registry_store": ("mlflow.tracking._model_registry.utils", "_get_store_registry()._registry"),
    "mlflow.artifact_repository": (
        "mlflow.store.artifact.artifact_repository_registry",
        "_artifact_repository_registry._registry",
    ),
    "mlflow.scorer_store": ("mlflow.genai.scorers.registry", "_scorer_store_registry._registry"),
    "mlflow.labeling_store": ("mlflow.genai.labeling.stores", "_labeling_store_registry._registry"),
    "mlflow.workspace_provider": ("mlflow.tracking._workspace.registry", "_get_workspace_store_registry()._registry"),
    "mlflow.dataset_constructor": ("mlflow.data.dataset_registry", "_dataset_registry.constructors"),
    "mlflow.gateway.providers": ("mlflow.gateway.provider_registry", "provider_registry._providers"),
}


def hide_plugins() -> set[str]:
    """Let `importlib.metadata.entry_points` show MLflow's own entry points only, in the `mlflow.*` groups.

    Returns:
        The groups that are asked for from now on: after `import mlflow`, the eager ones.
    """
    asked: set[str] = set()

    def entry_points(**selection: Any) -> Any:
        group = selection.get("group", "")
        if not group.startswith("mlflow."):
            return importlib.metadata.EntryPoints(_readable()).select(**selection)
        asked.add(group)
        return importlib.metadata.EntryPoints(_own(group))

    importlib.metadata.entry_points = entry_points
    return asked


def names(groups: list[str]) -> dict[str, list[str]]:
    """MLflow's own names in each of the groups; call after `hide_plugins`."""
    return {group: _names(group) for group in groups}


def _names(group: str) -> list[str]:
    own = [e.name for e in _own(group)]
    if own:
        return sorted(own)
    if group == "mlflow.request_auth_provider":
        return _auth_names()
    if group not in _REGISTRIES:
        return FALLBACK_BUILTINS.get(group, [])
    module, path = _REGISTRIES[group]
    try:
        value: Any = importlib.import_module(module)
        for step in path.split("."):
            value = getattr(value, step.removesuffix("()"))
            value = value() if step.endswith("()") else value
        return sorted(value)
    except Exception:  # noqa: BLE001 # private names of MLflow: the list serves where a version has moved them
        return FALLBACK_BUILTINS.get(group, [])


def _auth_names() -> list[str]:
    try:
        registry = importlib.import_module("mlflow.tracking.request_auth.registry")
        return sorted(p.get_name() for p in registry._request_auth_provider_registry)
    except Exception:  # noqa: BLE001 # private names of MLflow, as above
        return FALLBACK_BUILTINS["mlflow.request_auth_provider"]


def _readable() -> list[importlib.metadata.EntryPoint]:
    """All entry points but those of distributions whose metadata is broken: they are a finding of their own."""
    found: list[importlib.metadata.EntryPoint] = []
    for distribution in importlib.metadata.distributions():
        with contextlib.suppress(Exception):
            found += distribution.entry_points
    return found


def _own(group: str) -> list[importlib.metadata.EntryPoint]:
    for name in ("mlflow-skinny", "mlflow"):
        try:
            return [e for e in importlib.metadata.distribution(name).entry_points if e.group == group]
        except importlib.metadata.PackageNotFoundError:
            continue
    return []
