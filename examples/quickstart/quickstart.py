"""The quick start: one real workflow that passes through every plugin type, and a table of what came back.

python quickstart.py [--folder DIR] [--ui]

Each step works through MLflow's public API, then reads back from the store what it left there; the
table shows what was read. The exit status is 1 when a step failed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
TOKEN = "quickstart-token-4f1d"  # made up here; the server of this script asks for it
sys.path[:0] = [str(HERE), str(HERE / "project")]

Step = Callable[["Workflow"], str]


class Workflow:
    """What the steps pass on to each other, and where they work."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"file-plugin:{folder.as_posix()}"
        self.run_id = self.model_uri = ""
        self.received: list[dict[str, Any]] = []


def tracking_store(work: Workflow) -> str:
    import mlflow
    import sklearn
    from train import train

    with mlflow.start_run(run_name="quickstart") as run:
        model = train(alpha=0.0001, epochs=8)
        requirements = [f"scikit-learn=={sklearn.__version__}"]
        info = mlflow.sklearn.log_model(model, **_model_name("model"), pip_requirements=requirements)
    work.run_id, work.model_uri = run.info.run_id, info.model_uri
    stored = mlflow.get_run(work.run_id)
    losses = mlflow.MlflowClient().get_metric_history(work.run_id, "loss")
    assert [m.step for m in losses] == list(range(8)), losses
    first, last = losses[0].value, losses[-1].value
    return f"run {stored.info.status}, alpha={stored.data.params['alpha']}, loss {first:.3f} -> {last:.3f}"


def artifact_repository(work: Workflow) -> str:
    import mlflow
    from matplotlib.figure import Figure

    losses = mlflow.MlflowClient().get_metric_history(work.run_id, "loss")
    figure = Figure()
    figure.subplots().plot([m.step for m in losses], [m.value for m in losses])
    with mlflow.start_run(run_id=work.run_id):
        mlflow.log_figure(figure, "plots/loss.png")
    root = mlflow.get_run(work.run_id).info.artifact_uri
    back = Path(mlflow.artifacts.download_artifacts(f"{root}/plots/loss.png", dst_path=str(work.folder / "download")))
    assert back.read_bytes().startswith(b"\x89PNG"), back
    return f"{root.split(':')[0]}: plots/loss.png, {back.stat().st_size:,} bytes of PNG"


def model_registry_store(work: Workflow) -> str:
    import mlflow
    from train import split

    version = mlflow.register_model(work.model_uri, "breast-cancer")
    client = mlflow.MlflowClient()
    client.set_registered_model_alias("breast-cancer", "champion", version.version)
    _, test_x, _, test_y = split()
    predictions = mlflow.pyfunc.load_model("models:/breast-cancer@champion").predict(test_x)
    right = int((predictions == test_y).sum())
    assert right > 0.9 * len(test_y), right
    stored = client.get_model_version_by_alias("breast-cancer", "champion")
    return f"{stored.name} version {stored.version}, loaded by alias: {right} of {len(test_y)} right"


def run_context(work: Workflow) -> str:
    import mlflow

    tags = mlflow.get_run(work.run_id).data.tags
    found = {name: value for name, value in tags.items() if name.startswith("reference.")}
    assert found, tags
    return ", ".join(f"{name}={value}" for name, value in sorted(found.items()))


def default_experiment(work: Workflow) -> str:
    import mlflow

    run = mlflow.get_run(work.run_id)
    name = mlflow.get_experiment(run.info.experiment_id).name
    assert name == os.environ["MLFLOW_REFERENCE_EXPERIMENT"], name
    return f"the run is in experiment {name!r} (id {run.info.experiment_id})"


def dataset_source(work: Workflow) -> str:
    import mlflow
    from train import split

    csv = work.folder / "test.csv"
    _, test_x, _, test_y = split()
    test_x.assign(target=test_y).to_csv(csv, index=False)
    with mlflow.start_run(run_id=work.run_id):
        mlflow.log_input(mlflow.data.from_reference(str(csv), name="test"), context="evaluation")
    stored = mlflow.get_run(work.run_id).inputs.dataset_inputs[0].dataset
    path = Path(mlflow.data.get_source(stored).load())
    assert path.read_bytes() == csv.read_bytes(), path
    return f"{stored.name}, digest {stored.digest}, {json.loads(stored.profile)['num_rows']} rows"


def project_backend(work: Workflow) -> str:
    import mlflow

    submitted = mlflow.projects.run(
        str(HERE / "project"), parameters={"alpha": 0.01, "epochs": 3}, backend="reference", env_manager="local"
    )
    run = mlflow.get_run(submitted.run_id)
    assert run.info.status == "FINISHED", run.info
    return f"run {run.info.status}, epochs={run.data.params['epochs']}, accuracy {run.data.metrics['accuracy']:.3f}"


def model_evaluator(work: Workflow) -> str:
    import mlflow
    from train import split

    _, test_x, _, test_y = split()
    with mlflow.start_run(run_name="evaluation") as run:
        data = test_x.assign(target=test_y)
        mlflow.models.evaluate(work.model_uri, data, targets="target", model_type="classifier", evaluators="reference")
    stored = mlflow.get_run(run.info.run_id).data.metrics
    report = mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/reference_evaluation.json")
    assert report["rows"] == len(test_y), report
    return f"reference_accuracy {stored['reference_accuracy']:.4f} over {report['rows']} rows"


def deployment_target(work: Workflow) -> str:
    from mlflow.deployments import get_deploy_client
    from train import split

    client = get_deploy_client("reference")
    client.create_deployment("churn", work.model_uri)
    _, test_x, _, test_y = split()
    answers = client.predict("churn", test_x)
    right = int((answers == test_y).sum())
    assert right > 0.9 * len(test_y), right
    names = [deployment["name"] for deployment in client.list_deployments()]
    client.delete_deployment("churn")
    assert not client.list_deployments()
    return f"deployments {names}: {len(answers)} answers, {right} right; deleted"


def server_app(work: Workflow) -> str:
    import mlflow
    import requests
    from serving import mlflow_server

    options = (
        "--backend-store-uri",
        work.uri,
        "--artifacts-destination",
        f"{work.uri}/served",
        "--app-name",
        "reference",
    )
    with mlflow_server(work.folder / "server.log", *options, MLFLOW_REFERENCE_TOKEN=TOKEN) as address:
        refused = requests.post(f"{address}/api/2.0/mlflow/experiments/search", json={"max_results": 5}, timeout=30)
        assert refused.status_code == 401, refused.text
        with environment(
            MLFLOW_TRACKING_AUTH="reference", MLFLOW_REFERENCE_TOKEN=TOKEN, MLFLOW_REFERENCE_TEAM="vision"
        ):
            mlflow.set_tracking_uri(address)
            try:
                with mlflow.start_run(experiment_id=mlflow.create_experiment("served")) as run:
                    mlflow.log_metric("answer", 42)
                    mlflow.log_text("through the server", "note.txt")
                assert mlflow.artifacts.load_text(f"{run.info.artifact_uri}/note.txt") == "through the server"
            finally:
                mlflow.set_tracking_uri(work.uri)
        work.received = requests.get(
            f"{address}/reference/received", headers={"Authorization": f"Bearer {TOKEN}"}, timeout=30
        ).json()
    assert mlflow.get_run(run.info.run_id).data.metrics == {"answer": 42}
    return f"without a token {refused.status_code}, with it run {mlflow.get_run(run.info.run_id).info.status}"


def request_auth(work: Workflow) -> str:
    logged = [r for r in work.received if r["path"].endswith("/runs/log-metric")]
    fingerprints = {r["headers"]["authorization"] for r in logged}
    assert len(fingerprints) == 1, logged
    return f"the server received Authorization, {fingerprints.pop()}, on {len(work.received)} requests"


def request_header(work: Workflow) -> str:
    teams = {r["headers"].get("x-reference-team") for r in work.received if "/mlflow/runs/" in r["path"]}
    assert teams == {"vision"}, teams
    return f"the server received X-Reference-Team: {teams.pop()}"


STEPS: dict[str, Step] = {
    "tracking store": tracking_store,
    "artifact repository": artifact_repository,
    "model registry store": model_registry_store,
    "run context": run_context,
    "default experiment": default_experiment,
    "dataset source": dataset_source,
    "project backend": project_backend,
    "model evaluator": model_evaluator,
    "deployment target": deployment_target,
    "server app": server_app,
    "request auth": request_auth,
    "request header": request_header,
}


def _model_name(name: str) -> dict[str, str]:
    """The argument of `log_model` for a model's name: an artifact path in MLflow 2."""
    import inspect

    import mlflow

    parameters = inspect.signature(mlflow.sklearn.log_model).parameters
    return {"name" if "name" in parameters else "artifact_path": name}


@contextmanager
def environment(**variables: str) -> Any:
    """Set environment variables for a block."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def run_steps(work: Workflow) -> list[tuple[str, str, str, float]]:
    """Run every step; rows of (plugin type, ok or FAILED, what came back, seconds)."""
    rows = []
    for number, (name, step) in enumerate(STEPS.items(), 1):
        print(f"[{number:2}/{len(STEPS)}] {name} ...", end=" ", flush=True)
        started = time.monotonic()
        try:
            outcome, back = "ok", step(work)
        except Exception as exc:  # noqa: BLE001 # the table says which step failed; the others still run
            traceback.print_exc()
            outcome, back = "FAILED", f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}"
        rows.append((name, outcome, back, time.monotonic() - started))
        print(f"{outcome}, {rows[-1][3]:.1f} s", flush=True)
    return rows


def print_table(rows: list[tuple[str, str, str, float]]) -> None:
    """Print the rows as an aligned table."""
    width = max(len(row[2]) for row in rows)
    print(f"\n{'plugin type':<22}{'':<8}{'what came back':<{width}}  seconds")
    print("-" * (39 + width))
    for name, outcome, back, seconds in rows:
        print(f"{name:<22}{outcome:<8}{back:<{width}}  {seconds:7.1f}")


def main() -> int:
    """Parse the command line, run the workflow and show the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", type=Path, help="an empty or missing folder for the data (default: a temporary one)"
    )
    parser.add_argument("--ui", action="store_true", help="leave MLflow's UI running on the result until Ctrl-C")
    options = parser.parse_args()
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="plugkit-quickstart-"))).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        parser.error(f"{folder} is not empty. Name an empty or a new folder.")
    work = Workflow(folder)
    os.environ |= {
        "MLFLOW_TRACKING_URI": work.uri,
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "MLFLOW_REFERENCE_TAGS": "ticket=ML-7,site=Berlin",
        "MLFLOW_REFERENCE_EXPERIMENT": "quickstart",
        "MLFLOW_REFERENCE_DEPLOYMENTS": str(folder / "deployments"),
    }
    warnings.filterwarnings("ignore", message="Hint: Inferred schema contains integer")
    print(f"MLFLOW_TRACKING_URI={work.uri}", flush=True)
    rows = run_steps(work)
    print_table(rows)
    if options.ui:
        show_ui(work)
    return any(row[1] != "ok" for row in rows)


def show_ui(work: Workflow) -> None:
    """Serve MLflow's UI on the workflow's folder until Ctrl-C."""
    from serving import mlflow_server

    with mlflow_server(work.folder / "ui.log", "--backend-store-uri", work.uri) as address:
        print(f"\nMLflow's UI on this data: {address}   (Ctrl-C ends it)", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
