"""Project backends that are wrong, each in the way that its name says."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from mlflow.projects.utils import get_or_create_run
from mlflow.tracking import MlflowClient

from mlflow_plugkit_testing.projects import ProjectBackendConformance

sys.path.insert(0, str(Path(__file__).parent))

from plain_projects import PlainBackend, PlainRun


class Rules(ProjectBackendConformance):
    backend_name = "broken"
    backend_class = PlainBackend
    settling = 0.5


class TestNameThatNobodyRegistered(Rules):
    breaks = {"test_backend_loads_by_name": "MLflow knows no project backend 'broken'"}
    backend_class = None


class TestIncompleteSubmittedRun(Rules):
    breaks = {"test_submitted_run_is_complete": "without ['get_status']"}

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            get_status = None


class TestWaitWithoutAnAnswer(Rules):
    breaks = {
        "test_success_is_reported": "wait() returned None for a project that succeeded",
        "test_failure_is_reported": "wait() returned None for a project that exited with 3",
    }

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            def wait(self):
                super().wait()


class TestStatusThatIsNeverReported(Rules):
    breaks = {
        "test_success_is_reported": "the run in the tracking store is RUNNING, expected was FINISHED",
        "test_cancel_ends_the_work": "the run in the tracking store is RUNNING, expected was KILLED or FAILED",
    }

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            def report(self, status):
                pass


class TestFailureTakenForSuccess(Rules):
    breaks = {
        "test_failure_is_reported": "wait() returned True for a project that exited with 3",
        "test_waiting_run_raises_for_a_failure": "returned as if it had succeeded",
    }

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            def wait(self):
                super().wait()
                return True


class TestParametersForTheShell(Rules):
    breaks = {"test_parameters_arrive_unmangled": "a shell executed a part of a parameter"}

    class backend_class(PlainBackend):
        def command(self, project, entry_point, params):
            quoted = {k: f'"{v}"' for k, v in (params or {}).items()}
            return project.get_entry_point(entry_point).command.format(**quoted)


class TestParametersWithoutTheirBlanks(Rules):
    breaks = {"test_parameters_arrive_unmangled": "parameters arrived changed"}

    class backend_class(PlainBackend):
        def command(self, project, entry_point, params):
            return super().command(project, entry_point, {k: v.strip() for k, v in (params or {}).items()})


class TestRunWithoutParameters(Rules):
    breaks = {"test_parameters_are_logged": "given was number=0.5"}

    class backend_class(PlainBackend):
        def create_run(self, run_id, uri, experiment_id, *args):
            return MlflowClient().create_run(experiment_id)


class TestProjectWithoutItsRun(Rules):
    breaks = {"test_project_sees_its_run": "the project does not know its run"}

    class backend_class(PlainBackend):
        def variables(self, run_id, experiment_id):
            return {}


class TestRunInTheDefaultExperiment(Rules):
    breaks = {"test_run_is_in_the_experiment": "instead of"}

    class backend_class(PlainBackend):
        def create_run(self, run_id, uri, experiment_id, *args):
            return get_or_create_run(run_id, uri, "0", *args)


class TestGivenRunIgnored(Rules):
    breaks = {"test_given_run_is_used": "was given;"}

    class backend_class(PlainBackend):
        def create_run(self, run_id, *args):
            return get_or_create_run(None, *args)


class TestStatusThatIsAlwaysFinished(Rules):
    breaks = {"test_submission_does_not_wait": "get_status() is 'FINISHED' of a running project"}

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            def get_status(self):
                return "FINISHED"


class TestCancelThatOnlySaysSo(Rules):
    breaks = {"test_cancel_ends_the_work": "went on"}

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            def cancel(self):
                self.report("KILLED")


class TestCancelThatExpectsAProcess(Rules):
    breaks = {"test_cancel_after_the_end_is_harmless": "cancel() raised although the project had ended"}

    class backend_class(PlainBackend):
        class submitted(PlainRun):
            def cancel(self):
                os.killpg(self.process.pid, signal.SIGTERM)


class TestMistakesOfTheSystem(Rules):
    breaks = {"test_mistakes_are_explained": "MLflow expects an MlflowException"}

    class backend_class(PlainBackend):
        def check(self, project_uri):
            os.listdir(project_uri)


class TestTokenOnTheCommandLine(Rules):
    breaks = {"test_credentials_are_not_on_a_command_line": "stands on the command line of ['bash']"}

    class backend_class(PlainBackend):
        def command(self, project, entry_point, params):
            token = os.environ["MLFLOW_TRACKING_TOKEN"]
            return f"export MLFLOW_TRACKING_TOKEN={token}; {super().command(project, entry_point, params)}; exit $?"
