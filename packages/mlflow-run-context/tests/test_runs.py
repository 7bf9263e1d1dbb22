"""Real runs of this MLflow: what lands, what MLflow has said already, threads, forks, experiments."""

from __future__ import annotations

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking.context.git_context import GitRunContext
from mlflow.tracking.context.registry import _run_context_provider_registry as registry
from mlflow.utils import mlflow_tags

from mlflow_plugkit_testing.local import LocalTracking
from mlflow_plugkit_testing.providers import in_threads
from mlflow_run_context import experiment, log_git_diff, resolve_tags
from mlflow_run_context.plugin import DefaultExperiment, RunContext

Git = Callable[..., str]


def started(**arguments: Any) -> Any:
    with mlflow.start_run(**arguments) as run:
        pass
    return mlflow.get_run(run.info.run_id)


class TestRuns(LocalTracking):
    @pytest.fixture(autouse=True)
    def local(self, tracking_uri: str) -> None:
        """A fresh store."""

    @pytest.fixture
    def mlflows_git(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[GitRunContext]:
        """MLflow's own git provider, which knows nothing yet, in the registry's first place."""
        own = GitRunContext()
        before = list(registry._registry)
        registry._registry[:] = [own, *(p for p in before if not isinstance(p, GitRunContext))]
        yield own
        registry._registry[:] = before

    def test_the_plugin_is_registered_and_its_tags_land(self, git: Git, mlflows_git: GitRunContext) -> None:
        Path("uv.lock").write_text("version = 1\n")
        assert [p for p in registry if isinstance(p, RunContext)]
        tags = started().data.tags
        assert tags["ctx.git.commit"] == git("rev-parse", "HEAD")
        assert tags["ctx.lock.uv.lock"].startswith("sha256:")
        assert tags["ctx.host.name"]

    def test_mlflows_git_tags_are_filled_in_where_it_has_set_none(self, git: Git, mlflows_git: GitRunContext) -> None:
        git("remote", "add", "origin", "https://ann:s3cret@host/models.git")
        tags = started().data.tags
        assert tags["mlflow.source.git.commit"] == git("rev-parse", "HEAD")
        assert tags["mlflow.source.git.branch"] == "main"
        assert tags["mlflow.source.git.repoURL"] == "https://host/models.git"
        assert tags.get("mlflow.source.git.dirty") == ("false" if hasattr(mlflow_tags, "MLFLOW_GIT_DIRTY") else None)

    def test_what_mlflow_has_set_stays(
        self, git: Git, mlflows_git: GitRunContext, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        commit = git("rev-parse", "HEAD")
        said = {"mlflow.source.git.commit": commit, "mlflow.source.git.branch": "as MLflow says"}
        mlflows_git._cache["asked"] = True
        monkeypatch.setattr(GitRunContext, "in_context", lambda self: True)
        monkeypatch.setattr(GitRunContext, "tags", lambda self: said)
        assert started().data.tags["mlflow.source.git.branch"] == "as MLflow says"
        said["mlflow.source.git.commit"] = "0" * 40
        git("remote", "add", "origin", "https://host/models.git")
        tags = started().data.tags
        assert tags["mlflow.source.git.commit"] == "0" * 40
        assert "mlflow.source.git.repoURL" not in tags  # of another repository than MLflow's

    def test_the_users_own_tags_win(self, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_RUN_TAGS", "team=vision")
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_STANDARD_GIT", "false")
        tags = started(tags={"team": "speech", "ctx.host.name": "mine"}).data.tags
        assert (tags["team"], tags["ctx.host.name"]) == ("speech", "mine")
        assert "mlflow.source.git.dirty" not in tags

    def test_a_client_gets_the_same_tags(self, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_DEADLINE", "0")
        client = mlflow.MlflowClient()
        run = client.create_run("0", tags=resolve_tags({"stage": "smoke"}, timeout=20))
        tags = client.get_run(run.info.run_id).data.tags
        assert (tags["stage"], tags["ctx.git.dirty"]) == ("smoke", "false")
        assert tags["mlflow.user"]

    def test_the_diff_is_logged_as_an_artifact(self, git: Git) -> None:
        with mlflow.start_run() as run:
            assert log_git_diff() is False
            Path("train.py").write_text("api_key = 'zebra-9-zebra'\nprint(2)\n" + "x" * 3000 + "\n")
            assert log_git_diff() is True
            text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/context/git.diff")
            assert "+print(2)" in text
            assert "zebra-9" not in text
            assert log_git_diff(artifact_file="short.diff", limit=300) is True
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/short.diff")
        assert text.endswith("... [truncated]\n")
        assert len(text) < 400
        with pytest.raises(MlflowException, match="no active run"):
            log_git_diff()

    def test_threads_start_runs_at_once(self, git: Git) -> None:
        client = mlflow.MlflowClient()
        keys = in_threads(lambda: sorted(client.create_run("0", tags=resolve_tags()).data.tags))
        assert all(k == keys[0] for k in keys)
        assert "ctx.git.dirty" in keys[0]

    def test_a_fork_collects_for_itself(self, git: Git) -> None:
        assert RunContext().tags()["ctx.git.dirty"] == "false"
        reader, writer = multiprocessing.get_context("fork").Pipe(duplex=False)
        child = multiprocessing.get_context("fork").Process(target=tags_in_a_fork, args=(writer,))
        child.start()
        assert reader.poll(60)
        found, threads = reader.recv()
        child.join(60)
        assert (child.exitcode, found["ctx.git.dirty"]) == (0, "false")
        assert threads  # its own, not those that the fork left behind

    def test_the_experiment_of_the_repository(self, git: Git, monkeypatch: pytest.MonkeyPatch) -> None:
        assert DefaultExperiment().in_context() is False
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_EXPERIMENT", "{git.repository}/{git.branch} {ci.run:-local}")
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_SOURCES", "none")
        name = mlflow.get_experiment(started().info.experiment_id).name
        assert name == "project/main local"
        git("checkout", "-q", "-b", "feature")
        assert mlflow.get_experiment(started().info.experiment_id).name == "project/feature local"
        mlflow.set_experiment("chosen")
        assert mlflow.get_experiment(started().info.experiment_id).name == "chosen"

    def test_an_experiment_without_a_value_or_deleted_is_mlflows_default(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setattr("mlflow.tracking.default_experiment.registry._logger.propagate", True)
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_EXPERIMENT", "{git.repository}")
        assert started().info.experiment_id == "0"
        with pytest.raises(MlflowException, match=r"git\.repository is missing. Give a default") as refused:
            DefaultExperiment().get_experiment_id()
        assert refused.value.error_code == "INVALID_PARAMETER_VALUE"
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_EXPERIMENT", "gone")
        mlflow.delete_experiment(mlflow.create_experiment("gone"))
        with pytest.raises(MlflowException, match="experiments restore -x"):
            DefaultExperiment().get_experiment_id()
        assert started().info.experiment_id == "0"
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_EXPERIMENT", "{broken")
        assert DefaultExperiment().in_context() is False

    def test_an_experiment_that_another_process_makes_is_found(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_RUN_CONTEXT_EXPERIMENT", "shared")
        made: list[str] = []

        def create(self: mlflow.MlflowClient, name: str) -> str:
            made.append(real(self, name))
            return real(self, name)

        real = mlflow.MlflowClient.create_experiment
        monkeypatch.setattr(mlflow.MlflowClient, "create_experiment", create)
        assert DefaultExperiment().get_experiment_id() == made[0]
        assert experiment.experiment_name() == "shared"


def tags_in_a_fork(writer: Any) -> None:
    found = RunContext().tags()
    writer.send((found, [t.name for t in threading.enumerate()]))
    writer.close()
    os._exit(0)
