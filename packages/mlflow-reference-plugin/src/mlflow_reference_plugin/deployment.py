"""The deployment target: models that answer inside the calling process, remembered in a folder.

MLflow loads this module, not a class: it looks for `run_local`, `target_help` and the one
`BaseDeploymentClient` subclass that is visible here.
"""

from __future__ import annotations

import json
import os
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

from mlflow.deployments import BaseDeploymentClient

from mlflow_plugkit.errors import mlflow_error, not_implemented
from mlflow_plugkit.uri import validate_path
from mlflow_reference_plugin.errors import FILE_ERRORS
from mlflow_reference_plugin.settings import ClientSettings


class ReferenceDeploymentClient(BaseDeploymentClient):
    """Each deployment is a JSON file; a model is loaded when it is deployed and kept in memory."""

    def __init__(self, target_uri: str) -> None:
        super().__init__(target_uri)  # type: ignore[no-untyped-call] # MLflow leaves it untyped
        self._folder = Path(ClientSettings.from_env().deployments)

    def create_deployment(
        self, name: str, model_uri: str, flavor: str | None = None, config: Any = None, endpoint: str | None = None
    ) -> dict[str, Any]:
        self._refuse_endpoint(endpoint)
        if self._file(name).exists():
            raise mlflow_error(
                f"There is a deployment {name!r} already. Update it, or delete it first.", "RESOURCE_ALREADY_EXISTS"
            )
        return self._write(name, model_uri, flavor)

    def update_deployment(
        self,
        name: str,
        model_uri: str | None = None,
        flavor: str | None = None,
        config: Any = None,
        endpoint: str | None = None,
    ) -> dict[str, Any]:
        self._refuse_endpoint(endpoint)
        before = self.get_deployment(name)
        return self._write(name, model_uri or before["model_uri"], flavor or before["flavor"])

    def delete_deployment(self, name: str, config: Any = None, endpoint: str | None = None) -> None:
        self._refuse_endpoint(endpoint)
        self._file(name).unlink(missing_ok=True)

    def list_deployments(self, endpoint: str | None = None) -> list[dict[str, Any]]:
        self._refuse_endpoint(endpoint)
        return [self._read(file) for file in sorted(self._folder.glob("*.json"))]

    def get_deployment(self, name: str, endpoint: str | None = None) -> dict[str, Any]:
        self._refuse_endpoint(endpoint)
        return self._read(self._file(name))

    def predict(self, deployment_name: str | None = None, inputs: Any = None, endpoint: str | None = None) -> Any:
        self._refuse_endpoint(endpoint)
        if deployment_name is None:
            raise mlflow_error("Name the deployment that is to answer.")
        return _load_model(self.get_deployment(deployment_name)["model_uri"]).predict(inputs)

    def _file(self, name: str) -> Path:
        if "/" in validate_path(name, "deployment's name"):
            raise mlflow_error(f"The deployment's name {name!r} holds a '/'. Leave it out.")
        return self._folder / f"{name}.json"

    def _read(self, file: Path) -> dict[str, Any]:
        with FILE_ERRORS.applied(f"find the deployment {file.stem!r}"):
            found: dict[str, Any] = json.loads(file.read_text())
        return found

    def _write(self, name: str, model_uri: str, flavor: str | None) -> dict[str, Any]:
        _load_model(model_uri)
        deployment = {"name": name, "model_uri": model_uri, "flavor": flavor or "python_function"}
        with FILE_ERRORS.applied(f"write the deployment {name!r}"):
            self._folder.mkdir(parents=True, exist_ok=True)
            draft = self._folder / f".{uuid.uuid4().hex}"
            draft.write_text(json.dumps(deployment))
            os.replace(draft, self._file(name))
        return deployment

    def _refuse_endpoint(self, endpoint: str | None) -> None:
        if endpoint is not None:
            raise not_implemented("An endpoint", "this target answers inside the calling process and has none")


@lru_cache(maxsize=8)
def _load_model(model_uri: str) -> Any:
    import mlflow.pyfunc

    return mlflow.pyfunc.load_model(model_uri)


def run_local(name: str, model_uri: str, flavor: str | None = None, config: Any = None) -> dict[str, Any]:
    """Deploy locally, which for this target is the same as `create_deployment`."""
    return ReferenceDeploymentClient("reference").create_deployment(name, model_uri, flavor, config)


def target_help() -> str:
    """What `mlflow deployments help -t reference` prints."""
    return (
        "The reference target answers inside the calling process. It takes no configuration and has no endpoints.\n"
        "MLFLOW_REFERENCE_DEPLOYMENTS names the folder of its state, 'mlflow-deployments' by default."
    )
