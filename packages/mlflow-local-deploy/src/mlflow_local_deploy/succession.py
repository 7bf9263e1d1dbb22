"""How a supervisor is started, and by whom: a client, or the worker that first notices that there is none.

All of them wait for one lock. Whoever gets it has noticed, and hands the locked file on to the new supervisor, so that
there are never two. Standard library only: this runs in the model's environment, too.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from mlflow_local_deploy.place import Place, write

#: What must not reach a worker: its code has no use for the keys of the deployments.
HIDDEN_VARIABLES = ("MLFLOW_LOCAL_DEPLOY_API_KEY", "MLFLOW_LOCAL_DEPLOY_API_KEY_FILE")


def environment() -> dict[str, str]:
    """This process's environment without keys."""
    return {name: value for name, value in os.environ.items() if name not in HIDDEN_VARIABLES}


def write_launcher(place: Place) -> None:
    """Note how this Python starts a supervisor, for workers that run in another one."""
    source = str(Path(__file__).resolve().parent.parent)
    write(place.launcher_file, {"python": sys.executable, "path": source})


def launch(place: Place, lock_fd: int, listen_fd: int | None, environ: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a supervisor that owns the lock and, where there is one, the listening socket."""
    launcher = json.loads(place.launcher_file.read_text(encoding="utf-8"))
    code = "import sys; sys.path.append(sys.argv.pop(1)); from mlflow_local_deploy.supervisor import main; main()"
    command = [launcher["python"], "-c", code, launcher["path"], str(place.folder), str(lock_fd)]
    descriptors = [lock_fd]
    if listen_fd is not None:
        command.append(str(listen_fd))
        descriptors.append(listen_fd)
    log = os.open(place.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        return subprocess.Popen(
            command,
            env=environ,
            cwd=place.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=descriptors,
            start_new_session=True,
        )
    finally:
        os.close(log)


class Candidate(threading.Thread):
    """A worker's readiness to start a new supervisor."""

    def __init__(self, place: Place, listen_fd: int, environ: dict[str, str]) -> None:
        super().__init__(name="candidate", daemon=True)
        self._place, self._listen_fd, self._environ = place, listen_fd, environ
        self._withdrawn = threading.Event()
        self._lock_fd = -1
        # A child that the model's code forks must not keep the lock alive.
        os.register_at_fork(after_in_child=self._close)

    def withdraw(self) -> None:
        """Stand no more: this worker ends."""
        self._withdrawn.set()

    def run(self) -> None:
        """Wait for the supervisor's end, start another one, and wait again."""
        pause = 0.1
        while not self._withdrawn.is_set():
            try:
                self._lock_fd = os.open(self._place.supervisor_lock, os.O_RDWR | os.O_CLOEXEC)
            except FileNotFoundError:
                return  # the folder was removed; the worker's page is gone with it
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX)
            child = None
            try:
                if self._withdrawn.is_set():
                    return
                if not self._place.spec_file.exists():
                    os.kill(
                        os.getpid(), signal.SIGTERM
                    )  # the state was removed by hand: serve nothing that nobody knows
                    return
                child = launch(self._place, self._lock_fd, self._listen_fd, self._environ)
            except OSError as exc:
                print(f"could not start a supervisor: {exc}", file=sys.stderr, flush=True)  # noqa: T201 # the log
            finally:
                self._close()
            if child is None or self._ended_at_once(child, pause):
                self._withdrawn.wait(pause)
                pause = min(pause * 2, 10.0)
            else:
                pause = 0.1
                threading.Thread(target=child.wait, daemon=True).start()  # reaps it

    def _ended_at_once(self, child: subprocess.Popen[bytes], seconds: float) -> bool:
        try:
            return child.wait(seconds) is not None
        except subprocess.TimeoutExpired:
            return False

    def _close(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1
