"""The project backend: runs an MLflow Project in a process of its own, in this Python environment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import RunStatus
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.submitted_run import SubmittedRun
from mlflow.projects.utils import (
    MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG,
    fetch_and_validate_project,
    get_or_create_run,
    load_project,
)

from mlflow_plugkit.errors import ErrorRow, ErrorTable
from mlflow_reference_plugin.settings import FolderSettings

NO_PROJECT = "Name a folder that holds an MLproject file, or the URL of a git repository."
FETCH_ERRORS = ErrorTable("Project backend", [ErrorRow("git.exc.GitError", "RESOURCE_DOES_NOT_EXIST", NO_PROJECT)])


class ReferenceSubmittedRun(SubmittedRun):
    """A project that runs in the process group of `process`."""

    def __init__(self, run_id: str, process: subprocess.Popen[bytes], client: MlflowClient) -> None:
        self._run_id = run_id
        self._process = process
        self._client = client

    @property
    def run_id(self) -> str:
        return self._run_id

    def wait(self) -> bool:
        succeeded = self._process.wait() == 0
        self._end_run("FINISHED" if succeeded else "FAILED")
        return succeeded

    def get_status(self) -> str:
        code = self._process.poll()
        if code is None:
            return RunStatus.to_string(RunStatus.RUNNING)
        return str(self._client.get_run(self._run_id).info.status) if code < 0 else "FAILED" if code else "FINISHED"

    def cancel(self) -> None:
        if self._process.poll() is None:
            _stop(self._process)
            self._end_run("KILLED")

    def _end_run(self, status: str) -> None:
        if not RunStatus.is_terminated(RunStatus.from_string(self._client.get_run(self._run_id).info.status)):
            self._client.set_terminated(self._run_id, status)


class ReferenceBackend(AbstractBackend):
    """`mlflow run -b reference`: the project's entry point, run by `mlflow run --backend local`."""

    def run(
        self,
        project_uri: str,
        entry_point: str,
        params: dict[str, Any] | None,
        version: str | None,
        backend_config: dict[str, Any],
        tracking_uri: str,
        experiment_id: str,
    ) -> ReferenceSubmittedRun:
        with FETCH_ERRORS.applied(f"fetch the project {project_uri!r}"):
            work_dir = fetch_and_validate_project(project_uri, version, entry_point, params)
        load_project(work_dir).get_entry_point(entry_point)
        run = get_or_create_run(
            backend_config.get(MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG),
            project_uri,
            experiment_id,
            work_dir,
            version,
            entry_point,
            params,
        )
        run_id = str(run.info.run_id)
        command = [sys.executable, "-m", "mlflow", "run", work_dir, "--entry-point", entry_point, "--run-id", run_id]
        command += ["--experiment-id", str(run.info.experiment_id), "--backend", "local", "--env-manager", "local"]
        command += [part for name, value in (params or {}).items() for part in ("-P", f"{name}={value}")]
        # A project says `python train.py`: let that be this Python, also where its environment is not activated.
        path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
        environment = {**os.environ, "MLFLOW_TRACKING_URI": _from_anywhere(tracking_uri), "PATH": path}
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        return ReferenceSubmittedRun(run_id, process, MlflowClient(tracking_uri))


def _from_anywhere(tracking_uri: str) -> str:
    """The URI with an absolute folder, since the project runs in a folder of its own."""
    is_ours = tracking_uri.startswith("file-plugin:")
    return FolderSettings.from_uri(tracking_uri).absolute_uri if is_ours else tracking_uri


def _stop(process: subprocess.Popen[bytes], patience: float = 10.0) -> None:
    """End the process and its children: politely, and after `patience` seconds for good."""
    for end in (signal.SIGTERM, getattr(signal, "SIGKILL", signal.SIGTERM)):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, end)
        else:
            process.send_signal(end)
        try:
            process.wait(patience)
            return
        except subprocess.TimeoutExpired:
            continue
