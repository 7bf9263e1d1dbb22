"""The backend keeps every rule of the conformance kit, on a real cluster."""

from __future__ import annotations

from pathlib import Path

import pytest
from slurm_cluster import Cluster

from mlflow_plugkit_testing.projects import ProjectBackendConformance
from mlflow_plugkit_testing.wheels import PackagingConformance


class TestProjectBackend(ProjectBackendConformance):
    backend_name = "slurm"

    @pytest.fixture
    def shared_folder(self, tmp_path: Path, slurm: Cluster) -> Path:
        return tmp_path


class TestPackaging(PackagingConformance):
    distribution = "mlflow-slurm-backend"
