"""Rules for an artifact repository in use: MLflow's own functions, with an experiment that stores there."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlflow_plugkit_testing.artifacts_base import ArtifactSuite, outcome
from mlflow_plugkit_testing.server import fresh_database


class ArtifactWorkflowRules(ArtifactSuite):
    """`mlflow.log_artifact`, `mlflow.artifacts` and a model, end to end."""

    @pytest.fixture
    def experiment_id(self, artifact_uri: str, tmp_path: Path) -> Iterator[str]:
        """An experiment whose artifacts lie in the repository under test; its tracking store is SQLite."""
        import mlflow

        before = mlflow.get_tracking_uri(), mlflow.get_registry_uri()
        uri = fresh_database(tmp_path / "tracking")
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        try:
            yield str(mlflow.create_experiment("plugkit", artifact_location=artifact_uri))
        finally:
            while mlflow.active_run():
                mlflow.end_run()
            mlflow.set_tracking_uri(before[0])
            mlflow.set_registry_uri(before[1])

    def test_a_run_logs_and_reads_artifacts(self, experiment_id: str, tmp_path: Path) -> None:
        """A run's artifacts are logged, listed, loaded and downloaded by MLflow's own functions."""
        import mlflow

        local = tmp_path / "report.txt"
        local.write_text("report")
        target = tmp_path / "target"
        target.mkdir()
        with mlflow.start_run(experiment_id=experiment_id) as run:
            mlflow.log_artifact(str(local), "reports")
            mlflow.log_text("text", "notes/text.txt")
            mlflow.log_dict({"a": 1}, "config.json")
        run_id = run.info.run_id
        names = {info.path for info in mlflow.MlflowClient().list_artifacts(run_id)}
        assert names == {"reports", "notes", "config.json"}, f"a run's artifacts are not listed as logged: {names}"
        uri = f"runs:/{run_id}/notes/text.txt"
        assert mlflow.artifacts.load_text(uri) == "text", "mlflow.artifacts.load_text returned another text"
        path = mlflow.artifacts.download_artifacts(
            run_id=run_id, artifact_path="reports/report.txt", dst_path=str(target)
        )
        assert Path(path).read_text() == "report", "mlflow.artifacts.download_artifacts returned another content"

    def test_a_model_is_logged_and_loaded(self, experiment_id: str) -> None:
        """A pyfunc model is logged into the experiment, loaded from its URI and predicts."""
        import mlflow

        name = "name" if "name" in inspect.signature(mlflow.pyfunc.log_model).parameters else "artifact_path"
        arguments: dict[str, Any] = {name: "model", "python_model": _Doubler(), "pip_requirements": []}
        with mlflow.start_run(experiment_id=experiment_id):
            info = mlflow.pyfunc.log_model(**arguments)
        answers: list[Any] = []
        problem = outcome(lambda: answers.append(mlflow.pyfunc.load_model(info.model_uri).predict([1, 2])))
        assert problem == "accepted", f"the model that was logged could not be loaded back: {problem}"
        assert answers == [[2, 4]], f"the model that was loaded back predicts something else: {answers}"


def _Doubler() -> Any:  # noqa: N802 # stands where a class would: MLflow's base is imported on use
    from mlflow.pyfunc.model import PythonModel

    class Doubler(PythonModel):  # type: ignore[misc] # PythonModel is untyped
        # Without type hints: MLflow would derive a signature from them.
        def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]
            return [2 * value for value in model_input]

    return Doubler()
