"""The reference plugin keeps every rule of the conformance kit, type by type."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.auth import Credentials, RequestAuthProviderConformance
from mlflow_plugkit_testing.context import DefaultExperimentProviderConformance, RunContextProviderConformance
from mlflow_plugkit_testing.evaluators import ModelEvaluatorConformance
from mlflow_plugkit_testing.headers import RequestHeaderProviderConformance
from mlflow_plugkit_testing.projects import ProjectBackendConformance
from mlflow_plugkit_testing.registry import ModelRegistryStoreConformance
from mlflow_plugkit_testing.tracking import TrackingStoreConformance

TOKEN = "reference-token-8Zq"


def folder_uri(parent: Path) -> str:
    return f"file-plugin:{tempfile.mkdtemp(dir=parent)}"


class TestTrackingStore(TrackingStoreConformance):
    @pytest.fixture
    def store_uri_factory(self, tmp_path: Path) -> Callable[[], str]:
        return lambda: folder_uri(tmp_path)


class TestModelRegistryStore(ModelRegistryStoreConformance):
    @pytest.fixture
    def store_uri_factory(self, tmp_path: Path) -> Callable[[], str]:
        return lambda: folder_uri(tmp_path)


class TestArtifactRepository(ArtifactRepositoryConformance):
    @pytest.fixture
    def artifact_uri(self, tmp_path: Path) -> str:
        return f"file-plugin:{tmp_path}/root"


class TestProxiedArtifacts(ProxiedArtifactsConformance):
    @pytest.fixture(scope="class")
    def artifacts_destination(self, tmp_path_factory: pytest.TempPathFactory) -> str:
        return f"file-plugin:{tmp_path_factory.mktemp('served')}"


class TestRequestAuthProvider(RequestAuthProviderConformance):
    entry_point_name = "reference"
    variables = ("MLFLOW_REFERENCE_TOKEN", "MLFLOW_REFERENCE_TOKEN_FILE")

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch) -> Credentials:
        monkeypatch.setenv("MLFLOW_REFERENCE_TOKEN", TOKEN)
        return Credentials(secrets=(TOKEN,), value=f"Bearer {TOKEN}")


class TestRequestHeaderProvider(RequestHeaderProviderConformance):
    entry_point_name = "reference"
    variables = ("MLFLOW_REFERENCE_TEAM",)

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setenv("MLFLOW_REFERENCE_TEAM", "vision")
        return {"X-Reference-Team": "vision"}


class TestRunContextProvider(RunContextProviderConformance):
    entry_point_name = "reference"
    variables = ("MLFLOW_REFERENCE_TAGS",)

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setenv("MLFLOW_REFERENCE_TAGS", "ticket=ML-7, site=Berlin")
        return {"reference.ticket": "ML-7", "reference.site": "Berlin"}


class TestDefaultExperimentProvider(DefaultExperimentProviderConformance):
    entry_point_name = "reference"
    variables = ("MLFLOW_REFERENCE_EXPERIMENT",)

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch, tracking_uri: str) -> str:
        monkeypatch.setenv("MLFLOW_REFERENCE_EXPERIMENT", "from the environment")
        return str(mlflow.MlflowClient(tracking_uri).create_experiment("from the environment"))


class TestProjectBackend(ProjectBackendConformance):
    backend_name = "reference"


class TestModelEvaluator(ModelEvaluatorConformance):
    evaluator_name = "reference"
