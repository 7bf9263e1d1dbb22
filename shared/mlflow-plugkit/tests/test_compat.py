"""What depends on the MLflow version, against the MLflow that is installed."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Metric
from mlflow.models.evaluation.base import ModelEvaluator
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from packaging.version import Version

from mlflow_plugkit import compat


def test_the_version_is_that_of_the_metadata() -> None:
    assert compat.mlflow_version() == Version(version("mlflow-skinny"))


def test_no_module_of_the_base_imports_mlflow() -> None:
    modules = "uri, settings, errors, requirements, compat, logs"
    code = (
        f"from mlflow_plugkit import {modules}; import sys; print([m for m in sys.modules if m.startswith('mlflow.')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert found.stdout.strip() == "[]"


def test_only_known_arguments_are_passed_on() -> None:
    known = compat.supported_kwargs(Metric.__init__, {"key": "a", "value": 1.0, "no_such": 2})
    assert known == {"key": "a", "value": 1.0}
    assert compat.supported_kwargs(lambda **kw: None, {"x": 1}) == {"x": 1}


def test_the_base_of_an_artifact_repository_is_initialised_on_this_mlflow() -> None:
    class Repository(ArtifactRepository):
        def __init__(self, uri: str) -> None:
            compat.init_artifact_repository(self, ArtifactRepository, uri, "sqlite://", None)

        def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None: ...
        def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None: ...
        def list_artifacts(self, path: str | None = None) -> list[Any]:
            return []

        def _download_file(self, remote_file_path: str, local_path: str) -> None: ...

    repository = Repository("demo:/x")
    assert repository.artifact_uri == "demo:/x"
    assert repository.thread_pool
    assert (
        "hunter2" not in f"{Repository('demo://ann:hunter2@host/x')!r}{vars(Repository('demo://ann:hunter2@host/x'))}"
    )


def test_the_mixins_are_those_of_this_mlflow() -> None:
    names = set(compat.artifact_mixins())
    since = {"MultipartUploadMixin": "2.9", "MultipartDownloadMixin": "3.12", "StreamUploadMixin": "3.15"}
    expected = {name for name, first in since.items() if compat.mlflow_version() >= Version(first)}
    assert names - {"PresignedUploadMixin"} == expected


def test_a_module_that_this_mlflow_lacks_gives_none() -> None:
    assert compat.optional_attribute("mlflow.no_such_module", "X") is None
    assert compat.optional_attribute("mlflow.entities", "NoSuchEntity") is None


def test_the_server_says_what_it_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_MLFLOW_SGI_NAME", "uvicorn")
    monkeypatch.setenv("_MLFLOW_SERVER_ARTIFACT_ROOT", "mlflow-artifacts:/")
    assert compat.server_is_asgi()
    assert compat.server_artifact_root() == "mlflow-artifacts:/"
    monkeypatch.setenv("_MLFLOW_SGI_NAME", "gunicorn")
    monkeypatch.delenv("_MLFLOW_SERVER_ARTIFACT_ROOT")
    assert not compat.server_is_asgi()
    assert compat.server_artifact_root() is None


def test_an_evaluator_can_tell_whether_it_was_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    from mlflow.models.evaluation import base
    from mlflow.models.evaluation.evaluator_registry import _model_evaluation_registry as registry

    asked: list[bool] = []

    class Evaluator(ModelEvaluator):
        @classmethod
        def can_evaluate(cls, *, model_type: str, evaluator_config: Any, **kwargs: Any) -> bool:
            asked.append(compat.choosing_among_all_evaluators())
            return not asked[-1]

        def evaluate(self, **kwargs: Any) -> Any: ...

    monkeypatch.setitem(registry._registry, "plugkit_demo", Evaluator)
    base.resolve_evaluators_and_configs(None, None, "classifier")
    assert asked == [True]
    Evaluator.can_evaluate(model_type="classifier", evaluator_config={})
    assert asked == [True, False]
