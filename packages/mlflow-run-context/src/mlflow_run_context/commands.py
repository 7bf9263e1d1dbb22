"""Commands that cannot hang, cannot flood the memory and outlive nobody."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

CHUNK = 64 * 1024
_LONGEST_VARIABLE = 32_000
# A child gets what it needs to run: an environment of megabytes cannot be passed on (execve: E2BIG).
_PASSED_ON = (
    "PATH", "HOME", "USER", "LOGNAME", "TMPDIR", "TEMP", "TMP", "SYSTEMROOT", "PATHEXT", "USERPROFILE", "APPDATA",
    "XDG_CONFIG_HOME", "LD_LIBRARY_PATH", "GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM",
    "GIT_CEILING_DIRECTORIES", "CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES",
)  # fmt: skip

_running: set[subprocess.Popen[bytes]] = set()
_starting = threading.Lock()  # held from the start of a command until it is among the running


class CommandError(Exception):
    """The command could not be run, took too long or failed; the message says which."""


def run(
    command: Sequence[str],
    take: Callable[[bytes], bool],
    *,
    folder: Path | None = None,
    timeout: float,
    statuses: Sequence[int] = (0,),
) -> bool:
    """Run a command and hand on its standard output in pieces.

    Args:
        command: the program, searched on the PATH, and its arguments.
        take: called with each piece; False ends the command, which is then no failure.
        folder: where it runs.
        timeout: seconds, after which the command and its children are killed.
        statuses: exit statuses that mean success.

    Returns:
        Whether the output was taken to its end.

    Raises:
        CommandError: it is not installed, cannot be started, took too long, or failed.
    """
    program = shutil.which(command[0])
    if program is None:
        raise CommandError(f"{command[0]} is not on the PATH")
    passed = {name: value for name in _PASSED_ON if (value := os.environ.get(name)) and len(value) < _LONGEST_VARIABLE}
    passed |= {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0"}
    process = _start([program, *command[1:]], folder, passed)
    late = threading.Event()
    timer = threading.Timer(timeout, _end, (process, late))
    timer.daemon = True
    try:
        timer.start()
        complete = _read(process, take)
        process.wait(timeout=timeout)
    except subprocess.TimeoutExpired:
        late.set()
    finally:
        timer.cancel()
        _kill(process)
        _running.discard(process)
    if late.is_set():
        raise CommandError(f"{command[0]} took longer than {timeout:g} s")
    if complete and process.returncode not in statuses:
        raise CommandError(f"{command[0]} failed with status {process.returncode}")
    return complete


def output(command: Sequence[str], *, limit: int, timeout: float, folder: Path | None = None) -> bytes:
    """The first `limit` bytes of a command's standard output; errors as for `run`."""
    pieces: list[bytes] = []

    def take(piece: bytes) -> bool:
        pieces.append(piece)
        return sum(map(len, pieces)) < limit

    run(command, take, folder=folder, timeout=timeout)
    return b"".join(pieces)[:limit]


def _start(command: Sequence[str], folder: Path | None, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    try:
        with _starting:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd=folder,
                env=environment,
                start_new_session=os.name == "posix",
                bufsize=0,
            )
            _running.add(process)
            return process
    except (OSError, ValueError) as exc:
        raise CommandError(f"{Path(command[0]).name} cannot be started: {exc}") from None


def _end(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    late.set()
    _kill(process)


def _read(process: subprocess.Popen[bytes], take: Callable[[bytes], bool]) -> bool:
    assert process.stdout is not None
    with process.stdout as stream:
        while piece := stream.read(CHUNK):
            if not take(piece):
                _kill(process)
                return False
    return True


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the command and what it started; it has a session of its own."""
    if process.poll() is not None:
        return
    try:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait(timeout=1)
    except (OSError, subprocess.TimeoutExpired):
        pass


def _kill_all() -> None:
    for process in list(_running):
        _kill(process)


def _at_exit() -> None:
    # Never let go of: from here on no command starts, and a thread that waits for its turn ends with the process.
    _starting.acquire(timeout=1)
    _kill_all()


def _forget() -> None:
    """In a forked child: the parent's commands are not the child's to end, and its lock may have been held."""
    global _starting
    _starting = threading.Lock()
    _running.clear()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
