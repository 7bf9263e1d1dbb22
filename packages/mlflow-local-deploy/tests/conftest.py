"""Real models, deployments that several tests share, and what is left running."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import psutil
import pytest
import requests

from mlflow_local_deploy.deployment import LocalDeploymentClient
from mlflow_plugkit_testing.deployments import _saved_model

#: Light and quick: this Python, and nobody on standby unless a test is about that.
QUICK = {"env_manager": "local", "standby": 0}
PATIENCE = 120.0


@pytest.fixture(autouse=True, scope="session")
def _quiet() -> None:
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
    for name in list(os.environ):
        if name.startswith("MLFLOW_LOCAL_DEPLOY"):
            del os.environ[name]


@pytest.fixture(scope="session")
def models() -> tuple[str, str]:
    """Two models of the columns a and b; the second one's predictions have the other sign."""
    return _saved_model(1.0).name, _saved_model(-1.0).name


class Talker(mlflow.pyfunc.PythonModel):
    """A model with everything that a model may have, and that does what a test asks of it."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        what = model_input["what"].iloc[0]
        if what == "sleep":
            time.sleep(float(model_input["value"].iloc[0]))
        if what == "pid":
            return [os.getpid()] * len(model_input)
        if what == "environment":
            return [json.dumps(dict(os.environ))] * len(model_input)
        if what == "child":  # a process that the worker leaves behind when it is killed
            import subprocess
            import sys

            return [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid]
        if what == "raise":
            raise ValueError("the model does not like this")
        return model_input["value"] * float((params or {}).get("factor", 1.0))

    def predict_stream(self, context: Any, model_input: Any, params: Any = None) -> Iterator[Any]:
        for number in range(int(model_input["value"].iloc[0])):
            if model_input["what"].iloc[0] == "raise" and number == 2:
                raise ValueError("the stream broke")
            yield {"number": number}

    def explain(self, context: Any, model_input: Any) -> Any:
        return pandas.DataFrame({"value": model_input["value"] * 0.5})


@pytest.fixture(scope="session")
def talker(tmp_path_factory: pytest.TempPathFactory) -> str:
    from mlflow.models import ModelSignature
    from mlflow.types.schema import ColSpec, ParamSchema, ParamSpec, Schema

    folder = tmp_path_factory.mktemp("talker") / "model"
    signature = ModelSignature(
        Schema([ColSpec("string", "what"), ColSpec("double", "value")]),
        params=ParamSchema([ParamSpec("factor", "double", 1.0)]),
    )
    mlflow.pyfunc.save_model(folder, python_model=Talker(), signature=signature, pip_requirements=["pandas"])
    return str(folder)


def ask(what: str, value: float = 0.0) -> pandas.DataFrame:
    """Input for a Talker."""
    return pandas.DataFrame({"what": [what], "value": [value]})


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


KEY = "the-key-of-the-shared-deployment"


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


def with_key(**headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}


def post(url: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(url, data=json.dumps(body), headers=with_key(**headers), timeout=30)


def processes_of(root: Path) -> list[psutil.Process]:
    """Living processes that have the folder on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(root) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], Any], otherwise: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition; returns what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{otherwise} (after {seconds:g} s)")
