"""Conformance of project backends (entry points `mlflow.project_backend`).

`mlflow.run(..., backend=name)` loads the backend by name, calls `run()` and, unless it is told not to wait,
`wait()` on the returned SubmittedRun (mlflow/projects/__init__.py). All rules run a real MLproject, whose
script needs nothing but Python.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.local import LocalTracking
from mlflow_plugkit_testing.providers import must_not_raise, registered_in

TOKEN = "plugkit-tracking-t0ken"  # noqa: S105 # a planted value that must not travel
ENDED = ("FINISHED", "FAILED", "KILLED")
AWKWARD = {
    "quotes": """it's "quoted" `touch pwned`""",
    "shell": "$(touch pwned); touch pwned && touch pwned | $HOME %PATH% \\ * ~ #x",
    "text": "  caf\u00e9 \u6f22\u5b57 \U0001f600  ",
    "dash": "--dash=1",
    "lines": "two\nlines",
}
MLPROJECT = """\
name: plugkit
entry_points:
  main:
    parameters:
      {parameters}
    command: {command}
  record:
    command: {record}
  wait:
    command: {wait}
  fail:
    command: {fail}
  needs:
    parameters:
      number: {{type: float}}
    command: "{python} -c pass {{number}}"
"""
SCRIPT = """\
import json, os, pathlib, sys, time
here = pathlib.Path(__file__).resolve().parent
mode, values = sys.argv[1], sys.argv[2:]
seen = {"pid": os.getpid(), "values": values, "environment": {k: v for k, v in os.environ.items() if "MLFLOW" in k}}
(here / "seen.tmp").write_text(json.dumps(seen), encoding="utf-8")
(here / "seen.tmp").replace(here / "seen.json")
if mode == "fail":
    sys.exit(3)
deadline = time.monotonic() + 60
while mode == "wait" and not (here / "go").exists() and time.monotonic() < deadline:
    time.sleep(0.02)
"""


@dataclass(frozen=True)
class ProjectFolder:
    """A real MLproject that writes down what it sees."""

    folder: Path

    @property
    def uri(self) -> str:
        """What `mlflow.run` takes."""
        return str(self.folder)

    def seen(self, seconds: float) -> dict[str, Any]:
        """What the running script saw: its pid, its arguments, its MLFLOW variables."""
        path = self.folder / "seen.json"
        assert until(path.exists, seconds), f"the project's entry point was not started within {seconds} seconds"
        seen: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return seen

    def let_go(self) -> None:
        """Let the entry point `wait` end."""
        (self.folder / "go").touch()


class ProjectBackendConformance(LocalTracking):
    """The rules for a project backend.

    Override `backend_name`; for a backend without an entry point also `backend_class`. A backend whose jobs do
    not see pytest's temporary folder overrides the fixture `shared_folder`.
    """

    backend_name: ClassVar[str] = ""
    backend_class: ClassVar[Callable[[], Any] | None] = None
    patience: ClassVar[float] = 60
    """Seconds that a queued job may take to start, and a started one to end."""
    settling: ClassVar[float] = 15
    """Seconds until an ended or cancelled job shows: its process is gone, its run has ended."""

    @property
    def backend_config(self) -> Mapping[str, Any]:
        """What the user gives as `backend_config`."""
        return {}

    @property
    def supports_asynchronous_runs(self) -> bool:
        """Whether `run()` returns before the project ends, as AbstractBackend.run is expected to."""
        return True

    @property
    def supports_cancel(self) -> bool:
        """Whether `cancel()` ends the work."""
        return True

    @property
    def supports_given_run(self) -> bool:
        """Whether a run id in the configuration is used (MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG)."""
        return True

    @pytest.fixture
    def shared_folder(self, tmp_path: Path) -> Path:
        """A folder that the jobs of the backend see, too."""
        return tmp_path

    @pytest.fixture
    def project(self, shared_folder: Path, tracking_uri: str) -> Iterator[ProjectFolder]:
        """The MLproject, with MLflow set to a fresh local store."""
        project = write_project(shared_folder / "project")
        with self.registered():
            yield project
        project.let_go()

    @contextmanager
    def registered(self) -> Iterator[None]:
        """Have MLflow find `backend_class` under `backend_name`, where no entry point does."""
        if type(self).backend_class is None:
            yield
            return
        from mlflow.projects.backend import loader

        with registered_in(loader.MLFLOW_BACKENDS, self.backend_name, type(self).backend_class):
            yield

    def start(self, project: ProjectFolder, entry_point: str, **kwargs: Any) -> Any:
        """`mlflow.run` without waiting; returns the SubmittedRun."""
        import mlflow

        config = {**self.backend_config, **kwargs.pop("backend_config", {})}
        options = {"uri": project.uri, "backend": self.backend_name, "env_manager": "local", "synchronous": False}
        return mlflow.projects.run(entry_point=entry_point, backend_config=config, **{**options, **kwargs})

    def wait(self, submitted: Any) -> Any:
        """What `wait()` returns, within `patience`."""
        result: list[Any] = []
        thread = threading.Thread(target=lambda: result.append(submitted.wait()), daemon=True)
        thread.start()
        thread.join(self.patience)
        assert result, f"wait() raised or did not return within {self.patience} seconds"
        return result[0]

    def test_backend_loads_by_name(self, project: ProjectFolder) -> None:
        """`mlflow run -b name` finds it; for an unknown name MLflow only logs a warning and goes on without."""
        from mlflow.projects.backend.loader import load_backend

        backend = load_backend(self.backend_name)
        assert backend is not None, f"MLflow knows no project backend {self.backend_name!r}"
        assert callable(getattr(backend, "run", None)), f"the backend {self.backend_name!r} has no method run()"

    def test_submitted_run_is_complete(self, project: ProjectFolder) -> None:
        """`run()` returns a SubmittedRun with wait, get_status, cancel, and the id of a run that exists."""
        import mlflow

        submitted = self.start(project, "record")
        missing = [m for m in ("wait", "get_status", "cancel") if not callable(getattr(submitted, m, None))]
        assert not missing, f"run() returned a {type(submitted).__name__} without {missing}; derive it of SubmittedRun"
        self.wait(submitted)
        assert mlflow.get_run(submitted.run_id).info.run_id == submitted.run_id

    def test_success_is_reported(self, project: ProjectFolder) -> None:
        """A project that ends with 0: `wait()` is True, the status and the run in the store are FINISHED."""
        submitted = self.start(project, "record")
        result = self.wait(submitted)
        assert result is True, f"wait() returned {result!r} for a project that succeeded; MLflow expects True"
        assert status_of(submitted) == "FINISHED", f"get_status() is {submitted.get_status()!r} after success"
        self.stored_status_becomes(submitted, "FINISHED")

    def test_failure_is_reported(self, project: ProjectFolder) -> None:
        """A project that ends with 3: `wait()` is False, the status and the run in the store are FAILED."""
        submitted = self.start(project, "fail")
        result = self.wait(submitted)
        assert result is False, f"wait() returned {result!r} for a project that exited with 3; MLflow expects False"
        assert status_of(submitted) == "FAILED", f"get_status() is {submitted.get_status()!r} after a failure"
        self.stored_status_becomes(submitted, "FAILED")

    def test_waiting_run_raises_for_a_failure(self, project: ProjectFolder) -> None:
        """`mlflow.run(..., synchronous=True)` of a failing project raises ExecutionException."""
        from mlflow.exceptions import ExecutionException

        try:
            self.start(project, "fail", synchronous=True)
        except ExecutionException:
            return
        raise AssertionError("mlflow.run waited for a failing project and returned as if it had succeeded")

    def test_parameters_arrive_unmangled(self, project: ProjectFolder) -> None:
        """Quotes, blanks, `$(...)`, line breaks and non-ASCII text arrive as given; no shell runs them."""
        submitted = self.start(project, "main", parameters=AWKWARD)
        self.wait(submitted)
        pwned = [str(p) for p in project.folder.parent.rglob("pwned")]
        assert not pwned, f"a shell executed a part of a parameter: {pwned}"
        values = dict(zip(AWKWARD, project.seen(self.patience)["values"], strict=False))
        assert values == AWKWARD, f"parameters arrived changed: {values}"

    def test_parameters_are_logged(self, project: ProjectFolder) -> None:
        """The run holds the parameters that the user gave, as with MLflow's own backends."""
        import mlflow

        submitted = self.start(project, "needs", parameters={"number": "0.5"})
        self.wait(submitted)
        found = mlflow.get_run(submitted.run_id).data.params
        assert found == {"number": "0.5"}, f"the run's parameters are {found}, given was number=0.5"

    def test_project_sees_its_run(self, project: ProjectFolder) -> None:
        """MLFLOW_RUN_ID, MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_ID tell the project where to log."""
        import mlflow

        experiment_id = mlflow.create_experiment("projects")
        submitted = self.start(project, "record", experiment_id=experiment_id)
        self.wait(submitted)
        seen = project.seen(self.patience)["environment"]
        wanted = {
            "MLFLOW_RUN_ID": submitted.run_id,
            "MLFLOW_TRACKING_URI": mlflow.get_tracking_uri(),
            "MLFLOW_EXPERIMENT_ID": experiment_id,
        }
        wrong = {name: seen.get(name) for name, value in wanted.items() if seen.get(name) != value}
        assert not wrong, f"the project does not know its run; it sees {wrong} and should see {wanted}"

    def test_run_is_in_the_experiment(self, project: ProjectFolder) -> None:
        """The run is created in the experiment that the user named."""
        import mlflow

        experiment_id = mlflow.create_experiment("projects")
        submitted = self.start(project, "record", experiment_id=experiment_id)
        self.wait(submitted)
        found = mlflow.get_run(submitted.run_id).info.experiment_id
        assert found == experiment_id, f"the run was created in experiment {found} instead of {experiment_id}"

    def test_given_run_is_used(self, project: ProjectFolder) -> None:
        """A run that exists already (mlflow.projects.utils.MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG) is used."""
        if not self.supports_given_run:
            pytest.skip("the backend always creates its run")
        import mlflow
        from mlflow.projects.utils import MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG

        run_id = mlflow.MlflowClient().create_run("0").info.run_id
        submitted = self.start(project, "record", backend_config={MLFLOW_LOCAL_BACKEND_RUN_ID_CONFIG: run_id})
        self.wait(submitted)
        seen = project.seen(self.patience)["environment"].get("MLFLOW_RUN_ID")
        assert submitted.run_id == run_id == seen, f"run {run_id} was given; {submitted.run_id} and {seen} were used"

    def test_submission_does_not_wait(self, project: ProjectFolder) -> None:
        """`run()` returns while the project runs, and `get_status()` says that it does."""
        if not self.supports_asynchronous_runs:
            pytest.skip("the backend waits for the project")
        submitted = self.start(project, "wait", synchronous=False)
        project.seen(self.patience)
        status = status_of(submitted)
        project.let_go()
        self.wait(submitted)
        assert status in ("RUNNING", "SCHEDULED"), f"run() waited, or get_status() is {status!r} of a running project"

    def test_cancel_ends_the_work(self, project: ProjectFolder) -> None:
        """`cancel()` ends the real process, and the run does not stay RUNNING or become FINISHED."""
        if not (self.supports_cancel and self.supports_asynchronous_runs):
            pytest.skip("the backend cannot cancel")
        submitted = self.start(project, "wait")
        pid = project.seen(self.patience)["pid"]
        submitted.cancel()
        gone = until(lambda: not is_running(pid), self.settling)
        project.let_go()
        assert gone, f"cancel() returned, but the project's process {pid} went on"
        assert self.wait(submitted) is False, "wait() is True although the project was cancelled"
        self.stored_status_becomes(submitted, "KILLED", "FAILED")

    def test_cancel_after_the_end_is_harmless(self, project: ProjectFolder) -> None:
        """`cancel()` of a project that has ended raises nothing and changes no status."""
        if not self.supports_cancel:
            pytest.skip("the backend cannot cancel")
        submitted = self.start(project, "record")
        self.wait(submitted)
        with must_not_raise("cancel() raised although the project had ended"):
            submitted.cancel()
        assert status_of(submitted) == "FINISHED", f"cancel() turned a finished run into {submitted.get_status()!r}"
        self.stored_status_becomes(submitted, "FINISHED")

    @pytest.mark.parametrize("mistake", ["entry point", "project", "parameter"])
    def test_mistakes_are_explained(self, project: ProjectFolder, mistake: str) -> None:
        """An unknown entry point, a missing project or parameter is an MlflowException that names it; no run stays."""
        import mlflow
        from mlflow.exceptions import MlflowException

        kwargs, word = {
            "entry point": ({"entry_point": "no_such_entry"}, "no_such_entry"),
            "project": ({"entry_point": "main", "uri": f"{project.uri}/no_such_folder"}, "no_such_folder"),
            "parameter": ({"entry_point": "needs"}, "number"),
        }[mistake]
        try:
            self.start(project, **kwargs)
            error: Exception | None = None
        except Exception as exc:  # noqa: BLE001 # judged below
            error = exc
        assert isinstance(error, MlflowException), f"a wrong {mistake}: {error!r}; MLflow expects an MlflowException"
        assert word in str(error), f"the error does not name the wrong {mistake} {word!r}: {error}"
        left = mlflow.MlflowClient().search_runs(["0"], "attributes.status = 'RUNNING'")
        assert not left, f"a wrong {mistake} left a run behind that stays RUNNING"

    def test_credentials_are_not_on_a_command_line(
        self, project: ProjectFolder, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Everybody on the machine can read command lines: no token or password in any of them, nor in the run."""
        if not Path("/proc/self/cmdline").exists():
            pytest.skip("command lines of other processes can be read from /proc only")
        import mlflow

        monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", TOKEN)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", TOKEN)
        submitted = self.start(project, "wait" if self.supports_asynchronous_runs else "record")
        project.seen(self.patience)
        shown = command_lines_with(TOKEN)
        project.let_go()
        self.wait(submitted)
        data = mlflow.get_run(submitted.run_id).data
        assert not shown, f"MLFLOW_TRACKING_TOKEN stands on the command line of {shown}; use the environment or a file"
        assert TOKEN not in f"{data.params} {data.tags}", "MLFLOW_TRACKING_TOKEN stands in the run's tags or parameters"

    def stored_status_becomes(self, submitted: Any, *statuses: str) -> None:
        """The run in the tracking store ends in one of `statuses`, within `settling`."""
        import mlflow

        def stored() -> str:
            return str(mlflow.get_run(submitted.run_id).info.status)

        until(lambda: stored() in ENDED, self.settling)
        assert stored() in statuses, (
            f"the run in the tracking store is {stored()}, expected was {' or '.join(statuses)}"
        )


def write_project(folder: Path) -> ProjectFolder:
    """Write the MLproject and its script."""
    folder.mkdir(parents=True)
    (folder / "script.py").write_text(SCRIPT, encoding="utf-8")
    call = f"{sys.executable} {folder / 'script.py'}"
    (folder / "MLproject").write_text(
        MLPROJECT.format(
            parameters="\n      ".join(f"{name}: string" for name in AWKWARD),
            command=json.dumps(f"{call} main " + " ".join(f"{{{name}}}" for name in AWKWARD)),
            record=json.dumps(f"{call} record"),
            wait=json.dumps(f"{call} wait"),
            fail=json.dumps(f"{call} fail"),
            python=sys.executable,
        ),
        encoding="utf-8",
    )
    return ProjectFolder(folder)


def status_of(submitted: Any) -> str:
    """The status by name; MLflow's own SubmittedRun types return the name, some plugins the number."""
    from mlflow.entities import RunStatus

    status = submitted.get_status()
    return RunStatus.to_string(status) if isinstance(status, int) else str(status)


def until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait until `condition` holds; False if it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def is_running(pid: int) -> bool:
    """Whether a process runs; one that ended and was not waited for does not."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def command_lines_with(text: str) -> list[str]:
    """The names of the processes on whose command line `text` stands."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if text.encode() in path.read_bytes():
                found.append((path.parent / "comm").read_text(encoding="utf-8").strip())
        except OSError:
            continue  # the process ended meanwhile, or belongs to somebody else
    return found
