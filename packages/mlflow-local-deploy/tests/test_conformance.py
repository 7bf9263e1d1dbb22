"""The target keeps every rule of the conformance kit."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlflow_plugkit_testing.deployments import DeploymentClientConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class TestDeployments(DeploymentClientConformance):
    target = "local"
    config = {"env_manager": "local", "standby": 0}

    @property
    def supports_endpoints(self) -> bool:
        return True

    @pytest.fixture(autouse=True)
    def _state_folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_LOCAL_DEPLOY_FOLDER", str(tmp_path / "state"))


class TestPackaging(PackagingConformance):
    distribution = "mlflow-local-deploy"
