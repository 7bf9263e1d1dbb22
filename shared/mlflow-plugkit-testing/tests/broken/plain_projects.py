"""A minimal project backend that keeps every rule; the broken ones change one thing each."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from mlflow.entities import RunStatus
from mlflow.projects.backend.abstract_backend import AbstractBackend
from mlflow.projects.submitted_run import SubmittedRun
from mlflow.projects.utils import (
    MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG,
    fetch_and_validate_project,
    get_entry_point_command,
    get_or_create_run,
    get_run_env_vars,
    load_project,
)
from mlflow.tracking import MlflowClient

from mlflow_plugkit.errors import mlflow_error


class PlainRun(SubmittedRun):
    def __init__(self, run_id, process):
        self._run_id, self.process = run_id, process

    @property
    def run_id(self):
        return self._run_id

    def wait(self):
        success = self.process.wait() == 0
        self.report("FINISHED" if success else "FAILED")
        return success

    def get_status(self):
        code = self.process.poll()
        return "RUNNING" if code is None else "FAILED" if code else "FINISHED"

    def cancel(self):
        if self.process.poll() is None:
            self.report("KILLED")
            os.killpg(self.process.pid, signal.SIGTERM)
            self.process.wait()

    def report(self, status):
        client = MlflowClient()
        if not RunStatus.is_terminated(RunStatus.from_string(client.get_run(self._run_id).info.status)):
            client.set_terminated(self._run_id, status)


class PlainBackend(AbstractBackend):
    submitted = PlainRun

    def run(self, project_uri, entry_point, params, version, backend_config, tracking_uri, experiment_id):
        self.check(project_uri)
        work_dir = fetch_and_validate_project(project_uri, version, entry_point, params)
        run_id = backend_config.get(MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG)
        run = self.create_run(run_id, project_uri, experiment_id, work_dir, version, entry_point, params)
        env = {**os.environ, **self.variables(run.info.run_id, run.info.experiment_id)}
        command = self.command(load_project(work_dir), entry_point, params)
        process = subprocess.Popen(["bash", "-c", command], cwd=work_dir, env=env, start_new_session=True)
        return self.submitted(run.info.run_id, process)

    def check(self, project_uri):
        if not Path(project_uri).is_dir():
            raise mlflow_error(f"There is no project folder {project_uri}.")

    def create_run(self, *args):
        return get_or_create_run(*args)

    def variables(self, run_id, experiment_id):
        return get_run_env_vars(run_id, experiment_id)

    def command(self, project, entry_point, params):
        return get_entry_point_command(project, entry_point, params or {}, None)[0]
