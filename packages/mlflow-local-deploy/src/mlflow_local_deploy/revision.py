"""Revisions: a model, downloaded once, with the environment and the settings that its workers get."""

from __future__ import annotations

import hmac
import json
import secrets
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from mlflow_local_deploy import place as places
from mlflow_local_deploy.config import Config
from mlflow_local_deploy.errors import DEPLOYMENT_ERRORS
from mlflow_local_deploy.place import Place, locked
from mlflow_local_deploy.serving.gate import digest
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger

_log = get_logger("mlflow_local_deploy")


def new_id(generation: int) -> str:
    """The id of a new revision."""
    return f"r{generation}-{secrets.token_hex(3)}"


def download(place: Place, revision: str, model_uri: str) -> Path:
    """Download a model into a revision's folder: it stays as it is, whatever becomes of its source.

    Raises:
        MlflowException: it does not exist, or is no model that MLflow's scoring server can serve.
    """
    import mlflow.artifacts

    if Path(model_uri).is_dir():
        _checked(Path(model_uri), model_uri)  # before a folder that is no model is copied
    folder = place.revisions / revision
    with DEPLOYMENT_ERRORS.applied(f"download {model_uri}"):
        folder.mkdir(mode=0o700, parents=True)
        return _checked(Path(mlflow.artifacts.download_artifacts(model_uri, dst_path=str(folder / "model"))), model_uri)


def _checked(path: Path, model_uri: str) -> Path:
    from mlflow.models import Model

    if not (path / "MLmodel").is_file():
        raise mlflow_error(f"{model_uri} is no MLflow model: it has no file MLmodel.")
    flavors = Model.load(str(path)).flavors
    if "python_function" not in flavors:
        raise mlflow_error(
            f"{model_uri} has the flavors {sorted(flavors)}; MLflow's scoring server needs python_function."
        )
    return path


def write_model(
    place: Place, revision: str, config: Config, auth: dict[str, str] | None, model: Path, env_manager: str
) -> str:
    """Describe a revision that serves a model, making its environment where it needs one; returns its manager."""
    from mlflow_local_deploy.environment import prepare

    with locked(place.folder.parent.parent / "locks" / "environments.lock"):  # MLflow itself does not lock them
        chosen, command = prepare(model, env_manager)
    about = {
        **_common(place, config, auth),
        "kind": "deployment",
        "command": command,
        "model_path": str(model),
        "model_config": _json(config.model_config),
        "version": _version(model),
    }
    (place.revisions / revision).mkdir(mode=0o700, parents=True, exist_ok=True)
    places.write(place.revision_file(revision), about)
    return chosen


def write_router(place: Place, revision: str, config: Config, auth: dict[str, str] | None, deployments: Path) -> None:
    """Describe a revision that shares requests out among deployments."""
    about = {
        **_common(place, config, auth),
        "kind": "endpoint",
        "command": [sys.executable],
        "deployments": str(deployments),
        "traffic": config.traffic,
        "shadow": config.shadow,
    }
    (place.revisions / revision).mkdir(mode=0o700, parents=True, exist_ok=True)
    places.write(place.revision_file(revision), about)


def _common(place: Place, config: Config, auth: dict[str, str] | None) -> dict[str, Any]:
    return {
        "name": place.name,
        "environment": config.env,
        "auth": auth,
        "timeout_seconds": config.timeout_seconds,
        "max_body_bytes": config.max_body_bytes,
        "drain_seconds": config.drain_seconds,
        "access_log": config.access_log,
        "server_version": metadata.version("mlflow-local-deploy"),
    }


def hashed(key: str | None) -> dict[str, str] | None:
    """How an API key is stored.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for a key under 16 characters.
    """
    if key is None:
        return None
    if len(key) < 16:
        raise mlflow_error("The API key has fewer than 16 characters. Make one with: openssl rand -hex 32")
    salt = secrets.token_hex(16)
    return {"salt": salt, "digest": digest(key.encode(), salt)}


def changed(auth: dict[str, str] | None, key: str | None) -> dict[str, str] | None:
    """The stored key for `key`: as it is where it is the same one."""
    if auth is not None and key is not None and hmac.compare_digest(digest(key.encode(), auth["salt"]), auth["digest"]):
        return auth
    return hashed(key)


def model_of(about: dict[str, Any]) -> Path:
    """The model that a revision serves."""
    return Path(about["model_path"])


def collect(place: Place, keep: str) -> None:
    """Remove the revisions that neither `keep` nor a living worker needs."""
    from mlflow_local_deploy.slots import slot_files

    needed = {keep, *(file.name.rpartition(".")[0] for file in slot_files(place.workers))}
    for revision in list(needed):
        if place.revision_file(revision).exists():
            path = place.revision(revision).get("model_path")
            if path:
                needed.add(Path(path).relative_to(place.revisions).parts[0])
    for folder in place.revisions.iterdir():
        if folder.name not in needed:
            shutil.rmtree(folder, ignore_errors=True)


def _json(value: dict[str, Any] | None) -> str:
    return json.dumps(value) if value else ""


def _version(model: Path) -> str:
    """The version in the registry, where MLflow has noted it beside the model; "1" otherwise."""
    import yaml

    try:
        noted = yaml.safe_load((model / "registered_model_meta").read_text(encoding="utf-8"))
        return str(noted["model_version"])
    except (OSError, KeyError, TypeError, yaml.YAMLError):
        return "1"
