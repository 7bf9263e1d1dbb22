"""Real models, deployments that several tests share, and what is left running."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import mlflow.pyfunc
import pytest

sys.path.insert(0, str(Path(__file__).parent))

import talking
from talking import KEY, QUICK, Talker, processes_of, until  # the line above makes the next importable

from mlflow_local_deploy.deployment import LocalDeploymentClient


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    for name in list(os.environ):
        if name.startswith("MLFLOW_LOCAL_DEPLOY"):
            del os.environ[name]


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    folder = tmp_path_factory.mktemp("talker") / "model"
    signature = ModelSignature(
        Schema([ColSpec("string", "what"), ColSpec("double", "value")]),
        params=ParamSchema([ParamSpec("factor", "double", 1.0)]),
    )
    cloudpickle.register_pickle_by_value(talking)  # a worker cannot import this module
    mlflow.pyfunc.save_model(folder, python_model=Talker(), signature=signature, pip_requirements=["pandas"])
    return str(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A state folder of the test's own; whatever is deployed there ends with it, and leaves no process."""
    root = tmp_path / "state"
    yield root
    client = LocalDeploymentClient(f"local:{root}")
    for about in client.list_endpoints():
        client.delete_endpoint(about["name"])
    for about in client.list_deployments():
        client.delete_deployment(about["name"])
    until(lambda: not processes_of(root), "a process was left behind")


@pytest.fixture
def client(folder: Path) -> LocalDeploymentClient:
    return LocalDeploymentClient(f"local:{folder}")


@pytest.fixture(scope="session")
def shared(
    tmp_path_factory: pytest.TempPathFactory, talker: str
) -> Iterator[tuple[LocalDeploymentClient, dict[str, Any]]]:
    """A Talker behind an API key with narrow limits, for tests that only ask it something."""
    root = tmp_path_factory.mktemp("shared")
    client = LocalDeploymentClient(f"local:{root}")
    key_file = root.parent / "key"
    key_file.write_text(KEY + "\n")
    os.environ["MLFLOW_LOCAL_DEPLOY_API_KEY_FILE"] = str(key_file)
    try:
        guarded = LocalDeploymentClient(f"local:{root}")
    finally:
        del os.environ["MLFLOW_LOCAL_DEPLOY_API_KEY_FILE"]
    config = {**QUICK, "timeout_seconds": 2, "max_body_bytes": 20_000, "env": {"GREETING": "hello"}}
    about = guarded.create_deployment("talker", talker, config=config)
    yield client, about
    client.delete_deployment("talker")
    assert not processes_of(root)
