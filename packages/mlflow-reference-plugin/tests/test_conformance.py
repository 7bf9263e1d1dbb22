"""The reference plugin keeps every rule of the conformance kit, type by type."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import mlflow
import pytest
import requests

from mlflow_plugkit_testing.app import AppConformance
from mlflow_plugkit_testing.artifacts import ArtifactRepositoryConformance
from mlflow_plugkit_testing.artifacts_server import ProxiedArtifactsConformance
from mlflow_plugkit_testing.auth import Credentials, RequestAuthProviderConformance
from mlflow_plugkit_testing.context import DefaultExperimentProviderConformance, RunContextProviderConformance
from mlflow_plugkit_testing.datasets import DatasetSourceConformance
from mlflow_plugkit_testing.deployments import DeploymentClientConformance
from mlflow_plugkit_testing.evaluators import ModelEvaluatorConformance
from mlflow_plugkit_testing.headers import RequestHeaderProviderConformance
from mlflow_plugkit_testing.projects import ProjectBackendConformance
from mlflow_plugkit_testing.registry import ModelRegistryStoreConformance
from mlflow_plugkit_testing.server import plugin_env
from mlflow_plugkit_testing.tracking import TrackingStoreConformance
from mlflow_plugkit_testing.wheels import PackagingConformance
from mlflow_reference_plugin.plugin import tracking_store

TOKEN = "reference-token-8Zq"


class FreshFolders:
    """Fresh stores in a moment: MLflow's tables are made once, and the empty database is copied."""

    @pytest.fixture(scope="class")
    @classmethod
    def empty_store(cls, tmp_path_factory: pytest.TempPathFactory) -> Path:
        folder = tmp_path_factory.mktemp("empty")
        tracking_store(f"file-plugin:{folder}").search_experiments()
        return folder

    @pytest.fixture
    def store_uri_factory(self, tmp_path: Path, empty_store: Path) -> Callable[[], str]:
        def fresh() -> str:
            folder = tempfile.mkdtemp(dir=tmp_path)
            shutil.copytree(empty_store, folder, dirs_exist_ok=True)
            return f"file-plugin:{folder}"

        return fresh


class TestTrackingStore(FreshFolders, TrackingStoreConformance): ...


class TestModelRegistryStore(FreshFolders, ModelRegistryStoreConformance): ...


class TestArtifactRepository(ArtifactRepositoryConformance):
    @pytest.fixture
    def artifact_uri(self, tmp_path: Path) -> str:
        return f"file-plugin:{tmp_path}/root"


class TestProxiedArtifacts(ProxiedArtifactsConformance):
    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls, tmp_path_factory: pytest.TempPathFactory) -> str:
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


class TestDeploymentTarget(DeploymentClientConformance):
    target = "reference"

    @pytest.fixture(autouse=True)
    def state_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_REFERENCE_DEPLOYMENTS", str(tmp_path / "deployments"))


class TestDatasetSource(DatasetSourceConformance):
    source_type = "reference_csv"
    constructor_name = "from_reference"
    may_hold_secrets = False

    @pytest.fixture
    def raw_source(self, tmp_path: Path) -> str:
        (tmp_path / "data.csv").write_text("a,b\n1,2\n")
        return f"reference+csv:{tmp_path}/data.csv"


class TestServerApp(AppConformance):
    app_name = "reference"
    client_headers: Mapping[str, str] = {"Authorization": f"Bearer {TOKEN}"}

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls) -> Mapping[str, str]:
        return plugin_env(env={"MLFLOW_REFERENCE_TOKEN": TOKEN})

    def check_app_behaviour(self, response: requests.Response) -> None:
        assert response.headers["x-reference-app"] == "1"


class TestPackaging(PackagingConformance):
    distribution = "mlflow-reference-plugin"
