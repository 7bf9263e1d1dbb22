"""A correct run context provider and a correct default experiment provider pass every rule."""

from __future__ import annotations

import os

import pytest

from mlflow_plugkit.uri import redact_text
from mlflow_plugkit_testing.context import DefaultExperimentProviderConformance, RunContextProviderConformance


class JobContext:
    def in_context(self):
        return bool(os.environ.get("GOOD_JOB"))

    def tags(self):
        job = os.environ["GOOD_JOB"].encode("utf-8", "replace").decode()
        return {"good.job": redact_text(job)[:8000]}


class TestJobContext(RunContextProviderConformance):
    provider_class = JobContext
    variables = ("GOOD_JOB",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_JOB", "42")
        return {"good.job": "42"}


class TestMlflowsOwnEnvironmentContext(RunContextProviderConformance):
    """MLflow's provider that reads tags as JSON from a variable; it raises for text that is no JSON."""

    entry_point_name = "none"

    @property
    def provider_class(self):
        from mlflow.tracking.context.system_environment_context import SystemEnvironmentContext

        return SystemEnvironmentContext

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"team": "vision"}')

    @pytest.fixture
    def unconfigured(self, monkeypatch):
        monkeypatch.delenv("MLFLOW_RUN_CONTEXT", raising=False)


class TeamExperiment:
    def in_context(self):
        return os.environ.get("GOOD_EXPERIMENT", "").isdigit()

    def get_experiment_id(self):
        return os.environ["GOOD_EXPERIMENT"]


class TestTeamExperiment(DefaultExperimentProviderConformance):
    provider_class = TeamExperiment
    variables = ("GOOD_EXPERIMENT",)

    @pytest.fixture
    def configured(self, tracking_uri, monkeypatch):
        import mlflow

        experiment_id = mlflow.MlflowClient().create_experiment("team")
        monkeypatch.setenv("GOOD_EXPERIMENT", experiment_id)
        return experiment_id
