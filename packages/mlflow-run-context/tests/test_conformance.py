"""The plugin keeps the kit's rules for context providers, default experiments and packaging."""

from __future__ import annotations

import mlflow
import pytest

from mlflow_plugkit_testing.context import DefaultExperimentProviderConformance, RunContextProviderConformance
from mlflow_plugkit_testing.wheels import PackagingConformance
from mlflow_run_context import experiment

OPTIONS = ("MLFLOW_RUN_CONTEXT_SOURCES", "MLFLOW_RUN_CONTEXT_PREFIX", "MLFLOW_RUN_TAGS", "MLFLOW_RUN_TAGS_FILE")
NUMBERS = ("MLFLOW_RUN_CONTEXT_GIT_DIFF", "MLFLOW_RUN_CONTEXT_REFRESH", "MLFLOW_RUN_CONTEXT_STANDARD_GIT")
SYSTEMS = ("CI_JOB_URL", "GITHUB_ACTIONS", "SLURM_JOB_ID", "SLURM_JOB_NAME", "AIRFLOW_CTX_DAG_ID")
PLACES = ("KUBERNETES_SERVICE_HOST", "CONTAINER_IMAGE", "CONDA_DEFAULT_ENV", "CUDA_VISIBLE_DEVICES")


class TestRunContext(RunContextProviderConformance):
    entry_point_name = "run-context"
    variables = (*OPTIONS, *NUMBERS, *SYSTEMS, *PLACES, "TICKET")
    mlflow_tags = frozenset(f"mlflow.source.git.{name}" for name in ("commit", "branch", "repoURL", "dirty"))

    @property
    def needs_configuration(self) -> bool:
        return False

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
        monkeypatch.setenv("GITLAB_CI", "true")
        monkeypatch.setenv("CI_PIPELINE_ID", "17")
        monkeypatch.setenv("MLFLOW_RUN_TAGS", "ticket=${TICKET:-none},site=Berlin")
        return {"ctx.ci.system": "gitlab", "ctx.ci.run": "17", "ticket": "none", "site": "Berlin"}


class TestDefaultExperiment(DefaultExperimentProviderConformance):
    entry_point_name = "run-context"
    variables = ("MLFLOW_RUN_CONTEXT_EXPERIMENT",)

    def reset(self) -> None:
        experiment._known.clear()

    @pytest.fixture
    def configured(self, monkeypatch: pytest.MonkeyPatch, tracking_uri: str) -> str:
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_EXPERIMENT", "nightly {git.branch:-none}")
        return str(mlflow.MlflowClient(tracking_uri).create_experiment("nightly none"))


class TestPackaging(PackagingConformance):
    distribution = "mlflow-run-context"
