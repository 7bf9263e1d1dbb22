"""Everything that depends on the MLflow version, in one file.

Plugins ask here what this MLflow accepts; no other file compares versions.
"""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from packaging.version import Version

from mlflow_plugkit.uri import redact_uri


@lru_cache(maxsize=1)
def mlflow_version() -> Version:
    """The installed MLflow's version, read from its metadata: MLflow itself is not imported.

    Raises:
        PackageNotFoundError: neither mlflow nor mlflow-skinny is installed.
    """
    for distribution in ("mlflow-skinny", "mlflow"):
        try:
            return Version(version(distribution))
        except PackageNotFoundError:
            continue
    raise PackageNotFoundError("mlflow-skinny")


def supported_kwargs(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The part of `kwargs` that `function` accepts by name.

    MLflow's entities and base classes gain keyword arguments from one minor version to the next, all of
    them optional: pass what you have, and let the installed version take what it knows.
    """
    parameters = inspect.signature(function).parameters.values()
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return dict(kwargs)
    names = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
    return {name: value for name, value in kwargs.items() if name in names}


def init_artifact_repository(
    repository: Any, base: type[Any], artifact_uri: str, tracking_uri: str | None, registry_uri: str | None
) -> None:
    """Call `base.__init__` with the arguments that this MLflow's base class takes.

    `ArtifactRepository.__init__` takes `artifact_uri` alone until 3.1.0, also `tracking_uri` from 3.1.1,
    also `registry_uri` from 3.5 (read in the released wheels). The base shows the URI in its repr and in
    its errors, so it is given the redacted one: read the settings from the original.
    """
    known = supported_kwargs(base.__init__, {"tracking_uri": tracking_uri, "registry_uri": registry_uri})
    base.__init__(repository, redact_uri(artifact_uri), **known)


def optional_attribute(module: str, name: str) -> Any | None:
    """The attribute `name` of an MLflow module, or None where this MLflow has no such module or name."""
    try:
        return getattr(importlib.import_module(module), name, None)
    except ModuleNotFoundError:
        return None


def artifact_mixins() -> dict[str, type[Any]]:
    """The optional mixins of an artifact repository that this MLflow has, by name.

    `MultipartUploadMixin` is there since 2.9, `MultipartDownloadMixin` and `PresignedUploadMixin` since
    3.12, `StreamUploadMixin` since 3.15. MLflow's server asks `isinstance` to switch the features on.
    """
    names = ("MultipartUploadMixin", "MultipartDownloadMixin", "PresignedUploadMixin", "StreamUploadMixin")
    found = {name: optional_attribute("mlflow.store.artifact.artifact_repo", name) for name in names}
    return {name: mixin for name, mixin in found.items() if mixin is not None}


def server_artifact_root() -> str | None:
    """The artifact root that `mlflow server` was started with, or None outside a server.

    A server worker makes its second tracking store with `artifact_uri=None` and expects it to read this
    variable, as MLflow's own SQL store does (mlflow.tracking._tracking_service.utils).
    """
    return os.environ.get("_MLFLOW_SERVER_ARTIFACT_ROOT") or None


def server_artifact_locations() -> tuple[str, ...] | None:
    """The `--default-artifact-root` and `--artifacts-destination` of the running server; None outside a server.

    `mlflow server` exports both to its workers, and their job processes inherit them; MLflow's own host
    policy (mlflow.store.artifact.host_policy, since 3.17) tells a server process by the first.
    """
    if "_MLFLOW_SERVER_ARTIFACT_ROOT" not in os.environ:
        return None
    names = ("_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_ARTIFACT_DESTINATION")
    return tuple(os.environ[name] for name in names if os.environ.get(name))


def server_is_asgi() -> bool:
    """Whether the running `mlflow server` wants an ASGI application: it runs uvicorn, its default since 3.3.

    With gunicorn, waitress and MLflow 2 it wants a WSGI one (mlflow.server.auth switches the same way).
    """
    return os.environ.get("_MLFLOW_SGI_NAME") == "uvicorn"


def choosing_among_all_evaluators() -> bool:
    """Whether `ModelEvaluator.can_evaluate` is being asked on behalf of a user who named no evaluator.

    `mlflow.models.evaluate` without `evaluators=` runs each registered evaluator that says it can. The
    arguments do not tell this from an evaluator that was named, but the caller does: only the choice
    among all goes through `resolve_evaluators_and_configs` (read in 2.22.5 to 3.17.2).
    """
    frame = inspect.currentframe()
    for _ in range(4):
        frame = frame.f_back if frame else None
        if frame and frame.f_code.co_name == "resolve_evaluators_and_configs":
            return True
    return False


def tells_missing_models_by_alias() -> bool:
    """Whether MLflow's SQL registry says `RESOURCE_DOES_NOT_EXIST` for an alias of a model that is not there.

    It does since 3.10. Before, `get_model_version_by_alias` answered as for an unknown alias of a model:
    `INVALID_PARAMETER_VALUE`.
    """
    return mlflow_version() >= Version("3.10")
