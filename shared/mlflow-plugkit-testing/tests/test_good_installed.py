"""The suites find plugins by their entry points: an installed distribution needs no override that names a class."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent

ENTRY_POINTS = """\
[mlflow.request_auth_provider]
good-token = installed_providers:TokenProvider
[mlflow.request_header_provider]
installed = installed_providers:TeamHeaders
[mlflow.run_context_provider]
installed = installed_providers:JobContext
[mlflow.default_experiment_provider]
installed = installed_providers:TeamExperiment
[mlflow.project_backend]
plain = plain_projects:PlainBackend
[mlflow.model_evaluator]
plain = plain_evaluators:PlainEvaluator
[mlflow.deployments]
plain = plain_deployments
[mlflow.dataset_source]
plain = plain_datasets:PlainSource
[mlflow.dataset_constructor]
from_plain = plain_datasets:from_plain
"""

PROVIDERS = """\
import os

class TokenProvider:
    def get_name(self):
        return "good-token"

    def get_auth(self):
        import requests
        from mlflow_plugkit.errors import mlflow_error

        token = os.environ.get("GOOD_TOKEN")
        if not token:
            raise mlflow_error("There is no token. Set GOOD_TOKEN.", "UNAUTHENTICATED")

        class Auth(requests.auth.AuthBase):
            def __call__(self, request):
                request.headers["Authorization"] = f"Bearer {token}"
                return request

        return Auth()

class TeamHeaders:
    def in_context(self):
        return os.environ.get("GOOD_TEAM", "").isalpha()

    def request_headers(self):
        return {"X-Team": os.environ["GOOD_TEAM"]}

class JobContext:
    def in_context(self):
        return os.environ.get("GOOD_JOB", "").isdigit()

    def tags(self):
        return {"good.job": os.environ["GOOD_JOB"]}

class TeamExperiment:
    def in_context(self):
        return os.environ.get("GOOD_EXPERIMENT", "").isdigit()

    def get_experiment_id(self):
        return os.environ["GOOD_EXPERIMENT"]
"""

TESTS = """\
import mlflow
import pytest

from mlflow_plugkit_testing import auth, context, datasets, deployments, evaluators, headers, projects

class TestAuth(auth.RequestAuthProviderConformance):
    provider_name = "good-token"
    variables = ("GOOD_TOKEN",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_TOKEN", "s3cret-token")
        return auth.Credentials(secrets=("s3cret-token",))

class TestHeaders(headers.RequestHeaderProviderConformance):
    entry_point_name = "installed"
    variables = ("GOOD_TEAM",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_TEAM", "vision")
        return {"X-Team": "vision"}

class TestContext(context.RunContextProviderConformance):
    entry_point_name = "installed"
    variables = ("GOOD_JOB",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("GOOD_JOB", "42")

class TestExperiment(context.DefaultExperimentProviderConformance):
    entry_point_name = "installed"
    variables = ("GOOD_EXPERIMENT",)

    @pytest.fixture
    def configured(self, tracking_uri, monkeypatch):
        experiment_id = mlflow.create_experiment("team")
        monkeypatch.setenv("GOOD_EXPERIMENT", experiment_id)
        return experiment_id

class TestBackend(projects.ProjectBackendConformance):
    backend_name = "plain"

class TestEvaluator(evaluators.ModelEvaluatorConformance):
    evaluator_name = "plain"
    evaluator_config = {"plain": True}

class TestDeployments(deployments.DeploymentClientConformance):
    target = "plain"

class TestDatasets(datasets.DatasetSourceConformance):
    source_type = "plain"
    constructor_name = "from_plain"
    may_hold_secrets = False

    @pytest.fixture
    def raw_source(self, tmp_path):
        (tmp_path / "data.csv").write_text("a")
        return f"plain:{tmp_path}/data.csv"
"""

THROUGH_THE_ENTRY_POINT = (
    "constructor or name or reach or land or exists or loads or success_is or can_evaluate or metrics_are or module"
    " or found_by or predicts or own_sources or registry or log_input"
)
"""The rules whose defaults look the plugin up; all others were held against the same classes already."""


def test_installed_plugins_pass_without_naming_their_classes(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    for path in (HERE / "broken").glob("plain_*.py"):
        shutil.copy(path, site)
    (site / "installed_providers.py").write_text(PROVIDERS)
    metadata = site / "installed_plugin-1.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: installed-plugin\nVersion: 1\n")
    (metadata / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "test_installed.py").write_text(TESTS)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-o", "addopts=",
         "-k", THROUGH_THE_ENTRY_POINT, "test_installed.py"],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
    assert "failed" not in run.stdout
