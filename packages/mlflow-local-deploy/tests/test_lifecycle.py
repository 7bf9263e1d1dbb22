"""Deployments from their creation to their end: in Python, and on both command lines."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
import requests
from click.testing import CliRunner
from mlflow.exceptions import MlflowException
from talking import KEY, QUICK, ask, processes_of, until

from mlflow_local_deploy import deployment
from mlflow_local_deploy.cli import main
from mlflow_local_deploy.deployment import LocalDeploymentClient


def command(folder: Path, program: str, *words: str) -> str:
    """What a command prints."""
    from mlflow.deployments.cli import commands

    environ = {"MLFLOW_LOCAL_DEPLOY_FOLDER": str(folder), "MLFLOW_LOCAL_DEPLOY_ENV_MANAGER": "local"}
    run = CliRunner().invoke({"mlflow deployments": commands, "mlflow-local-deploy": main}[program], words, env=environ)
    assert run.exit_code == 0, (run.output, run.exception)
    return str(run.output)


def test_a_deployment_on_the_command_lines(folder: Path, talker: str, tmp_path: Path) -> None:
    target = ("-t", "local", "--name", "churn")
    made = command(folder, "mlflow deployments", "create", *target, "-m", talker, "-C", "standby=0")
    assert "python_function deployment churn is created" in made
    (tmp_path / "input.json").write_text(json.dumps([{"what": "", "value": 5.0}]))
    predicted = command(folder, "mlflow deployments", "predict", *target, "-I", str(tmp_path / "input.json"))
    assert "5.0" in predicted
    explained = command(folder, "mlflow deployments", "explain", *target, "-I", str(tmp_path / "input.json"))
    assert "2.5" in explained
    assert "status: ready" in command(folder, "mlflow deployments", "get", *target)
    assert "max_body_bytes" in command(folder, "mlflow deployments", "help", "-t", "local")
    assert "2 workers" in command(folder, "mlflow-local-deploy", "scale", "churn", "2")
    assert "supervising churn" in command(folder, "mlflow-local-deploy", "logs", "churn")
    before = json.loads(command(folder, "mlflow-local-deploy", "status", "--json"))[0]
    assert command(folder, "mlflow-local-deploy", "stop", "churn") == "churn: stopped\n"
    assert not processes_of(folder)
    client = LocalDeploymentClient(f"local:{folder}")
    with pytest.raises(MlflowException, match="mlflow-local-deploy start churn"):
        client.predict("churn", ask(""))
    assert client.get_deployment("churn")["status"] == "stopped"
    assert not processes_of(folder), "what was stopped on purpose was started by looking at it"
    assert before["url"] in command(folder, "mlflow-local-deploy", "start", "churn")
    assert f"ready {before['url']}" in command(folder, "mlflow-local-deploy", "up")
    made = command(
        folder, "mlflow-local-deploy", "create-endpoint", "front", "-C", "traffic=churn=1", "-C", "standby=0"
    )
    assert f"front: ready {client.get_endpoint('front')['url']}\n" == made
    assert client.get_endpoint("front")["traffic"] == {"churn": 1.0}
    assert "Deployment churn is deleted" in command(folder, "mlflow deployments", "delete", *target)
    assert "List of all deployments:\n[]" in command(folder, "mlflow deployments", "list", "-t", "local")


def test_the_key_changes_and_goes_with_an_update_and_requests_begun_are_answered(
    client: LocalDeploymentClient, talker: str
) -> None:
    about = client.create_deployment("d", talker, config=QUICK)
    url = f"{about['url']}/invocations"
    slow = []
    body = {"dataframe_records": [{"what": "sleep", "value": 4.0}]}
    thread = threading.Thread(target=lambda: slow.append(requests.post(url, json=body, timeout=60)))
    thread.start()
    until(lambda: "in_flight_requests 2" in requests.get(f"{about['url']}/metrics", timeout=30).text, "not begun")
    with pytest.warns(UserWarning, match="API key"):
        client.update_deployment("d", config={"api_key": KEY})
    thread.join()
    assert slow[0].status_code == 200
    assert requests.post(url, json=body, timeout=60).status_code == 401
    assert client.predict("d", ask("", 1.0)).get_predictions().iloc[0, 0] == 1.0
    assert client.get_deployment("d")["protected"] is True
    client.update_deployment("d", config={"workers": 2})
    assert client.get_deployment("d")["protected"] is True
    client.update_deployment("d", config={"api_key": "none", "workers": 1})
    assert requests.get(f"{about['url']}/v2", timeout=30).status_code == 200


def test_what_cannot_be_changed_or_created_is_refused_and_nothing_is_left(
    client: LocalDeploymentClient, talker: str, tmp_path: Path, folder: Path
) -> None:
    about = client.create_deployment("d", talker, config=QUICK)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "file").write_text("no model")
    for call, word in (
        (lambda: client.update_deployment("d", config={"port": 1}), "keeps its address"),
        (lambda: client.update_deployment("d", config={"traffic": 1}), "endpoint"),
        (lambda: client.create_deployment("e", str(tmp_path), config=QUICK), "MLmodel"),
        (lambda: client.create_deployment("e", f"file://{tmp_path / 'data'}", config=QUICK), "MLmodel"),
        (lambda: client.create_deployment("e", str(tmp_path / "none"), config=QUICK), "none"),
        (lambda: client.create_deployment("e", talker, config={**QUICK, "port": int(about["url"][-5:])}), "listen"),
        (lambda: client.predict(), "Name the deployment"),
    ):
        with pytest.raises(MlflowException, match=word):
            call()
    assert [d["name"] for d in client.list_deployments()] == ["d"]
    assert sorted(p.name for p in (folder / "deployments").iterdir()) == ["d"]


def test_a_folder_that_was_removed_by_hand_takes_its_processes_along(
    client: LocalDeploymentClient, folder: Path
) -> None:
    import shutil

    about = client.create_endpoint("e", {"standby": 0})
    shutil.rmtree(about["folder"])
    until(lambda: not processes_of(folder), "processes go on without their state")


def test_run_local_deploys_here(folder: Path, talker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_LOCAL_DEPLOY_FOLDER", str(folder))
    assert deployment.run_local("d", talker, None, QUICK)["status"] == "ready"
