"""Which Python serves a model."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from talking import ask

from mlflow_local_deploy.deployment import LocalDeploymentClient
from mlflow_local_deploy.environment import prepare, unmet

NEEDS_UV = pytest.mark.skipif(not shutil.which("uv"), reason="there is no uv on the PATH")
HERE = f"{sys.version_info.major}.{sys.version_info.minor}.0"


def model(folder: Path, requirements: str, python: str = HERE, constraints: str = "") -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "requirements.txt").write_text(requirements)
    (folder / "python_env.yaml").write_text(f"python: {python}\n")
    if constraints:
        (folder / "constraints.txt").write_text(constraints)
    return folder


@pytest.mark.parametrize(
    "requirements",
    [
        f"mlflow=={version('mlflow')}\n# a comment\n\npandas  # another\n",
        "mlflow[extras]\nscikit_learn>=0.1",
        "-c constraints.txt\nnothing-of-this ; python_version < '3'",
    ],
)
def test_this_python_serves_what_it_meets(tmp_path: Path, requirements: str) -> None:
    found = model(tmp_path, requirements, constraints="not-installed==1\n")
    assert list(unmet(found)) == []
    assert prepare(found, "auto") == ("local", [sys.executable])


@pytest.mark.parametrize(
    ("requirements", "python", "constraints", "word"),
    [
        ("mlflow==1.0", HERE, "", "mlflow==1.0"),
        ("not-installed", HERE, "", "not installed"),
        ("pandas", "3.8.1", "", "Python 3.8.1"),
        ("https://example.com/a.whl", HERE, "", "cannot be checked"),
        ("a @ https://example.com/a.whl", HERE, "", "cannot be checked"),
        ("--find-links x", HERE, "", "cannot be checked"),
        ("pandas", HERE, "pandas==0.1", "pandas==0.1"),
    ],
)
def test_what_this_python_lacks_is_named(
    tmp_path: Path, requirements: str, python: str, constraints: str, word: str
) -> None:
    assert word in "; ".join(unmet(model(tmp_path, requirements, python, constraints)))


@NEEDS_UV
def test_an_environment_that_cannot_be_made_is_said_and_how_to_do_without(tmp_path: Path, talker: str) -> None:
    shutil.copytree(talker, tmp_path / "model")
    (tmp_path / "model" / "requirements.txt").write_text("--no-index\nnot-to-be-had==1\n")
    with pytest.raises(MlflowException, match="set env_manager=local"):
        prepare(tmp_path / "model", "uv")


@NEEDS_UV
def test_a_model_is_served_in_an_environment_of_its_own(
    client: LocalDeploymentClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The environment has MLflow and the model's requirements, and neither this package nor the base."""
    monkeypatch.setenv("MLFLOW_ENV_ROOT", str(tmp_path / "environments"))
    monkeypatch.setenv("UV_PYTHON", sys.prefix)  # as in a session of nox: not where the model's packages go
    code = tmp_path / "where.py"
    code.write_text(
        "import sys, importlib.util\n"
        "import mlflow\n\n"
        "class Where(mlflow.pyfunc.PythonModel):\n"
        "    def predict(self, context, model_input):\n"
        "        return [sys.prefix, str(importlib.util.find_spec('mlflow_plugkit'))]\n\n"
        "mlflow.models.set_model(Where())\n"
    )
    requirements = [f"mlflow-skinny=={version('mlflow-skinny')}", "pandas"]
    mlflow.pyfunc.save_model(tmp_path / "model", python_model=str(code), pip_requirements=requirements)
    about = client.create_deployment("d", str(tmp_path / "model"), config={"env_manager": "uv", "standby": 0})
    prefix, plugkit = client.predict("d", ask("")).get_predictions()[0]
    assert about["env_manager"] == "uv"
    assert (prefix != sys.prefix, plugkit) == (True, "None")
