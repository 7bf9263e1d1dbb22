"""Real `mlflow server` processes for tests: started on a free loopback port, always stopped by pid."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing, suppress
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from urllib.parse import urljoin

import requests

from mlflow_plugkit.uri import redact_text

QUIET = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PYTHONUNBUFFERED": "1",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
}
LOOPBACK = "127.0.0.1"
_TAKEN = ("address already in use", "connection in use", "errno 98", "errno 48", "winerror 10048")
_ANNOUNCEMENTS = ("listening at: ", "running on ", "serving on ")
_ATTEMPTS = 5


class ServerError(RuntimeError):
    """The server did not start; the message ends with its log."""


def free_port() -> int:
    """A loopback port that was free a moment ago. Another process may take it: be ready to ask again."""
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return int(probe.getsockname()[1])


def plugin_env(paths: Iterable[str | Path] = (), env: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a process that runs MLflow: this one's, without telemetry.

    Args:
        paths: folders put in front of PYTHONPATH, such as one that holds a plugin under test.
        env: further variables; they win.
    """
    own = {name: value for name, value in os.environ.items() if not name.startswith("_MLFLOW_")}
    python_path = [*map(str, paths), *filter(None, [own.get("PYTHONPATH")])]
    return own | QUIET | {"PYTHONPATH": os.pathsep.join(python_path)} | dict(env or {})


def fresh_database(folder: Path, name: str = "mlflow.db") -> str:
    """The URI of a new, empty SQLite database with MLflow's tables, in `folder`.

    The tables are made once for each test process and copied: MLflow's migrations take seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(_database_template(), folder / name)
    return f"sqlite:///{(folder / name).as_posix()}"


@lru_cache(maxsize=1)
def _database_template() -> Path:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    folder = Path(tempfile.mkdtemp(prefix="plugkit-database-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "template.db"
    store = SqlAlchemyStore(f"sqlite:///{path.as_posix()}", (folder / "artifacts").as_uri())
    store.engine.dispose()
    # The default experiment holds this folder as its location: whoever opens a copy makes its own.
    with closing(sqlite3.connect(path)) as connection, connection:
        for table in ("experiment_tags", "experiments"):
            connection.execute(f"DELETE FROM {table}")  # noqa: S608 # two constants
    return path


def run_cli(
    arguments: Sequence[str], *, env: Mapping[str, str], cwd: Path, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run `python -m <arguments>` to its end, output captured; it is killed by pid after `timeout` seconds.

    Raises:
        subprocess.TimeoutExpired: it took longer.
    """
    return subprocess.run(
        [sys.executable, "-m", *arguments],
        env=dict(env), cwd=cwd, capture_output=True, text=True, errors="replace", timeout=timeout, check=False,
    )  # fmt: skip


def is_healthy(url: str) -> bool:
    """Whether MLflow's `/health` answers 200 below `url`, or at its root (MLflow 2 under a static prefix)."""
    root = urljoin(url, "/health")
    try:
        return any(requests.get(address, timeout=5).status_code == 200 for address in (f"{url}/health", root))
    except requests.RequestException:
        return False


def answers(url: str) -> bool:
    """Whether anything answers HTTP at `url`, be it an error."""
    try:
        requests.get(f"{url}/health", timeout=5)
    except requests.RequestException:
        return False
    return True


class MlflowServer:
    """A real `mlflow server` on the loopback interface, as a context manager.

    Args:
        options: options of `mlflow server`. Host, port, one worker and a fresh SQLite database as
            backend store are added where they are not given.
        folder: an existing folder for the log, the database and as the working directory.
        env: the whole environment, made by `plugin_env`; that function's default if left out.
        ready: tells from the base URL whether the server is up; `is_healthy` if left out.
        deadline: seconds until `ready` must hold.

    Attributes:
        url: the base URL, without a trailing slash; with the `--static-prefix` where one is given.
        log_path: what the server and its workers printed.

    Example:
        with MlflowServer(["--serve-artifacts"], folder=tmp_path) as server:
            requests.get(f"{server.url}/version")
    """

    def __init__(
        self,
        options: Sequence[str] = (),
        *,
        folder: Path,
        env: Mapping[str, str] | None = None,
        ready: Callable[[str], bool] = is_healthy,
        deadline: float = 120,
    ) -> None:
        self.options = list(options)
        self.folder = folder
        self.env = dict(env) if env is not None else plugin_env()
        self.ready = ready
        self.deadline = deadline
        self.log_path = folder / "server.log"
        self.url = ""
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MlflowServer:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> MlflowServer:
        """Start the server and wait until it is ready.

        A port that another process takes in the meantime is replaced by another one.

        Raises:
            ServerError: it ended early or was not ready in time; the message holds the log's end.
        """
        backend = [] if "--backend-store-uri" in self.options else ["--backend-store-uri", fresh_database(self.folder)]
        for _ in range(_ATTEMPTS):
            port = free_port()
            self._spawn([*backend, *self.options], port)
            problem = self._wait(port)
            if problem is None:
                return self
            self.stop()
            if not self._port_was_taken():
                break
        raise ServerError(f"mlflow server {problem}. Its log ends with:\n{self.log()[-6000:]}")

    def stop(self) -> None:
        """End the server and the workers in its process group: asked first, killed after ten seconds."""
        process, self.process = self.process, None
        if process is None:
            return
        if os.name == "nt":
            process.terminate()
            process.wait(10)
            return
        _signal_group(process, signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        _signal_group(process, signal.SIGKILL)
        process.wait(10)

    def log(self) -> str:
        """What the server printed so far, secrets of a known shape redacted."""
        return redact_text(self.raw_log())

    def raw_log(self) -> str:
        """What the server printed so far, as it stands in the file. Look for secrets here."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _spawn(self, options: list[str], port: int) -> None:
        prefix = options[options.index("--static-prefix") + 1] if "--static-prefix" in options else ""
        self.url = f"http://{LOOPBACK}:{port}{prefix}"
        workers = [] if "--workers" in options else ["--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "server", "--host", LOOPBACK, "--port", str(port)]
        with self.log_path.open("wb") as log:
            self.process = subprocess.Popen(
                [*command, *workers, *options],
                env=self.env, cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    def _wait(self, port: int) -> str | None:
        """None once the server is ready, else what went wrong."""
        assert self.process is not None
        end = time.monotonic() + self.deadline
        ready_since: float | None = None
        while time.monotonic() < end:
            code = self.process.poll()
            if code is not None:
                return f"ended with exit status {code} before it was ready"
            if self.ready(self.url):
                ready_since = ready_since or time.monotonic()
                # Another process on a port that we lost would answer, too: wait for our own server's word.
                # Options may silence it, so that after a while the answer alone must do.
                if self._announced(port) or time.monotonic() - ready_since > 15:
                    return None
            time.sleep(0.1)
        return f"was not ready after {self.deadline:g} seconds"

    def _announced(self, port: int) -> bool:
        address = f"{LOOPBACK}:{port}"
        lines = (line.lower() for line in self.raw_log().splitlines() if address in line)
        return any(word in line for line in lines for word in _ANNOUNCEMENTS)

    def _port_was_taken(self) -> bool:
        log = self.raw_log().lower()
        return any(text in log for text in _TAKEN)


def _signal_group(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process group that `process` leads (it was started as the leader of its own session)."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
