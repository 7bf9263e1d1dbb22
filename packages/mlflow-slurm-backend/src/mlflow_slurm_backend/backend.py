"""The project backend: a project becomes a job folder, a submission, and a SubmittedRun."""

from __future__ import annotations

import os
import secrets
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
from mlflow.exceptions import ExecutionException
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.utils import fetch_and_validate_project, get_or_create_run, load_project
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_PROJECT_BACKEND

from mlflow_plugkit.errors import ErrorRow, ErrorTable, mlflow_error, not_implemented
from mlflow_plugkit.logs import get_logger
from mlflow_slurm_backend import script, shapes
from mlflow_slurm_backend.dependencies import dependency_flags
from mlflow_slurm_backend.errors import SLURM_ERRORS
from mlflow_slurm_backend.folder import Job, Task, task_folder
from mlflow_slurm_backend.record import Recorder, runs_of
from mlflow_slurm_backend.settings import ClusterSettings, JobConfig
from mlflow_slurm_backend.submitted import SlurmSubmittedRun
from mlflow_slurm_backend.watcher import watcher

NO_PROJECT = "Name a folder that holds an MLproject file, or the URL of a git repository."
FETCH_ERRORS = ErrorTable("Slurm backend", [ErrorRow("git.exc.GitError", "RESOURCE_DOES_NOT_EXIST", NO_PROJECT)])
_logger = get_logger("mlflow_slurm_backend")


class SlurmBackend(AbstractBackend):
    """`mlflow run -b slurm`: the project's entry point, run on a compute node by `mlflow run --backend local`."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, Any] | None,
        version: str | None,
        backend_config: dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> SlurmSubmittedRun:
        """Submit the project.

        Raises:
            MlflowException: the configuration, the project or the parameters are wrong, or Slurm refuses the
                job, with its message; the run is then FAILED.
            ExecutionException: called by the command line, which waits: the job did not succeed.
        """
        command_line = _command_line()
        given = {**backend_config, **({"run_id": command_line["run_id"]} if command_line.get("run_id") else {})}
        settings = ClusterSettings.from_env()
        config = JobConfig.from_backend_config(given, settings.config)
        submission = _Submission(settings, config, backend_config, absolute(tracking_uri), params or {})
        with FETCH_ERRORS.applied(f"fetch the project {project_uri!r}"):
            submission.fetch(project_uri, version, entry_point)
        submission.create_runs(experiment_id)
        with submission.ended_on_failure():
            submitted = submission.submit()
        if command_line and not config.detach:
            _wait(submitted, command_line.get("run_name"))
        return submitted


class _Submission:
    """The way from a project to a submitted job."""

    def __init__(
        self,
        settings: ClusterSettings,
        config: JobConfig,
        backend_config: Mapping[str, Any],
        tracking_uri: str,
        params: dict[str, Any],
    ) -> None:
        self.settings, self.config, self.tracking_uri, self.params = settings, config, tracking_uri, params
        self.env_manager = backend_config.get("ENV_MANAGER")
        self.storage_dir = backend_config.get("STORAGE_DIR")
        self.recorder = Recorder(tracking_uri)
        self.points = [{**params, **point} for point in config.points()] or [params]
        self.template = _template(config.template)
        if backend_config.get("DOCKER_ARGS"):
            raise not_implemented("--docker-args", "compute nodes run no Docker. Use the key 'container' instead.")
        folder = os.path.abspath(os.path.expanduser(config.folder or settings.folder))
        shapes.check_shape("folder", folder, shapes.PATH)
        self.folder = Path(folder)

    def fetch(self, project_uri: str, version: str | None, entry_point: str) -> None:
        """Get the project, and check that it has the entry point and the parameters."""
        self.project_uri, self.version, self.entry_point = project_uri, version, entry_point
        self.work_dir = fetch_and_validate_project(project_uri, version, entry_point, self.points[0])
        project = load_project(self.work_dir)
        if project.docker_env:
            raise not_implemented("docker_env", "compute nodes run no Docker. Use the key 'container' instead.")
        found = project.get_entry_point(entry_point)
        for point in self.points[1:]:
            found.compute_parameters(point, storage_dir=None)

    def create_runs(self, experiment_id: str) -> None:
        """Create the run, or take the given one; for an array, also a child run for each point."""
        shown = {
            name: ", ".join(dict.fromkeys(str(p[name]) for p in self.points if name in p)) for name in self.points[0]
        }
        params = shown if self.config.array is not None else self.params
        run = self._create_run(self.config.run_id, experiment_id, params)
        self.run_id, self.experiment_id = str(run.info.run_id), str(run.info.experiment_id)
        self.recorder.client.set_tag(self.run_id, MLFLOW_PROJECT_BACKEND, "slurm")
        self.name = f"mlflow-{self.run_id}-{secrets.token_hex(3)}"
        self.job_folder = self.folder / self.name.removeprefix("mlflow-")
        run_ids = [self.run_id]
        if self.config.array is not None:
            run_ids = []
            for point in self.points:
                child = str(self._create_run(None, self.experiment_id, point).info.run_id)
                self.recorder.client.set_tag(child, MLFLOW_PARENT_RUN_ID, self.run_id)
                self.recorder.client.set_tag(child, MLFLOW_PROJECT_BACKEND, "slurm")
                run_ids.append(child)
        indices = range(len(run_ids)) if self.config.array is not None else [None]
        tasks = [Task(i, r, task_folder(self.job_folder, i)) for i, r in zip(indices, run_ids, strict=True)]
        self.job = Job(self.name, self.run_id, self.job_folder, tuple(tasks), self.config.requeue)

    def _create_run(self, run_id: str | None, experiment_id: str, params: dict[str, Any]) -> Any:
        where = (self.project_uri, experiment_id, self.work_dir, self.version, self.entry_point)
        return get_or_create_run(run_id, *where, params)

    @contextmanager
    def ended_on_failure(self) -> Iterator[None]:
        """Where the block fails or is interrupted, end the runs, the job, and its files with the credentials."""
        try:
            yield
        except BaseException:
            if self.job.job_id:
                with SLURM_ERRORS.applied(f"cancel job {self.job.job_id}"):
                    self.watching.slurm.cancel(self.job.job_id, self.settings.patience_seconds)
            shutil.rmtree(self.job_folder, ignore_errors=True)
            for run_id in runs_of(self.job):
                self.recorder.end_run(run_id, "FAILED")
            raise

    def submit(self) -> SlurmSubmittedRun:
        """Write the job folder, submit the job, and watch it."""
        with SLURM_ERRORS.applied(f"write the job folder {str(self.job_folder)!r}"):
            self._write()
        self.recorder.planned(self.job)
        self.watching = watcher(self.settings.poll_seconds)
        flags = [
            *self.config.sbatch_flags(),
            *self.job.output_flags(),
            *dependency_flags(self.config, self.recorder.client),
        ]
        patience = self.settings.patience_seconds
        with SLURM_ERRORS.applied("submit the job"):
            job_id = self.watching.slurm.submit(flags, self.job.script, self.name, patience)
        self.job = replace(self.job, job_id=job_id)
        _logger.info("Submitted Slurm job %s for run %s; its folder is %s", job_id, self.run_id, self.job_folder)
        self.recorder.submitted(self.job)
        return SlurmSubmittedRun(self.job, self.recorder, self.watching, stream=self.config.stream, patience=patience)

    def _write(self) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.job_folder.mkdir(mode=0o700)
        if self.config.snapshot or not os.path.isdir(self.project_uri.partition("#")[0]):
            # A fetched project lies in this machine's temporary folder, which compute nodes do not see.
            copy = self.job_folder / "project"
            shutil.copytree(self.work_dir, copy, symlinks=True, ignore=shutil.ignore_patterns(self.folder.name))
            self.work_dir = str(copy)
        python = self.config.python or ("python3" if self.config.container else sys.executable)
        environ = {**os.environ, "MLFLOW_TRACKING_URI": self.tracking_uri}
        if not self.config.container and os.path.isabs(python):
            # A project says `python train.py`: let that be this Python, also where its environment is not activated.
            environ["PATH"] = os.pathsep.join([os.path.dirname(python), environ.get("PATH", os.defpath)])
        plain, secret = script.split_environment(environ, self.config.environment)
        commands = [
            script.project_command(
                python,
                str(task.folder),
                self._arguments(task, point),
                str(self.job_folder),
                requeue=self.config.requeue,
            )
            for task, point in zip(self.job.tasks, self.points, strict=True)
        ]
        binds = [str(self.job_folder), self.work_dir]
        text = script.render(self.template, self.config, self.name, f"{self.job_folder}/tasks", binds)
        self.job.write(text, commands, plain, secret)

    def _arguments(self, task: Task, params: Mapping[str, Any]) -> list[str]:
        """The arguments of `mlflow run` on the compute node."""
        options = {
            "--entry-point": self.entry_point,
            "--run-id": task.run_id,
            "--experiment-id": self.experiment_id,
            "--backend": "local",
            "--env-manager": self.env_manager,
            "--storage-dir": self.storage_dir,
        }
        given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
        return [self.work_dir, *given, *(part for n, v in params.items() for part in ("-P", f"{n}={v}"))]


def absolute(tracking_uri: str) -> str:
    """The URI of a local store with an absolute path, since the job runs in another folder; others unchanged."""
    if tracking_uri.startswith("sqlite:///") and not tracking_uri.startswith(("sqlite:////", "sqlite:///:")):
        return f"sqlite:///{os.path.abspath(tracking_uri[len('sqlite:///') :])}"
    parts = urlsplit(tracking_uri)
    if not parts.scheme or (parts.scheme == "file" and not parts.path.startswith("/")):
        return os.path.abspath(parts.path) if tracking_uri else tracking_uri
    if parts.hostname in ("localhost", "127.0.0.1", "::1"):
        _logger.warning(
            "The tracking server is on %s: compute nodes other than this machine cannot reach it", parts.hostname
        )
    return tracking_uri


def _template(path: str | None) -> str:
    if path is None:
        return script.default_template()
    try:
        return Path(os.path.expanduser(path)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as exc:
        raise mlflow_error(f"The job template {path!r} cannot be read: {exc}.") from exc


def _command_line() -> dict[str, Any]:
    """The options of `mlflow run` where that is what called, else nothing.

    MLflow's command line asks other backends than its own not to wait, and hands no `--run-id` on to them
    (mlflow.cli.run and mlflow.projects.run, 2.22 to 3.17); so both are taken from click, which it is made with.
    """
    context = click.get_current_context(silent=True)
    return dict(context.params) if context and context.command.name == "run" and "backend" in context.params else {}


def _wait(submitted: SlurmSubmittedRun, run_name: str | None) -> None:
    """Wait on behalf of the command line: Ctrl-C cancels the job, a failure is an ExecutionException."""
    if run_name:
        submitted.rename(run_name)
    try:
        succeeded = submitted.wait()
    except KeyboardInterrupt:
        _logger.error("Interrupted: cancelling Slurm job %s", submitted.job_id)
        submitted.cancel()
        raise
    if not succeeded:
        states = ", ".join(f"{job} {state}" for job, state in submitted.state().items())
        raise ExecutionException(f"Run (ID '{submitted.run_id}') failed: Slurm job {states}")
