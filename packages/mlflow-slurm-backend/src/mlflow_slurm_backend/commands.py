"""Slurm's commands: argument lists, never a shell, and an environment without credentials.

sbatch hands the environment that it runs in to the job, through the controller. So the commands get only what
they need to find the cluster; the job reads everything else from files of mode 0600 in its folder.
"""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from mlflow_plugkit.logs import get_logger
from mlflow_slurm_backend.errors import NO_ANSWER, SlurmCommandError

STATUS_INTERVAL = 2.0
"""Seconds between the end of one status call of this process and the start of the next."""
KEPT = ("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "KRB5CCNAME")

_logger = get_logger("mlflow_slurm_backend")


def command_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What Slurm's commands see of the environment: how to find the cluster, the user and the programs.

    SLURM_JWT, where a site uses it, is among it: the commands cannot authenticate without. Variables of a job
    that this process itself runs in (SLURM_JOB_ID and so on) would change what they do, and are left out.
    """
    kept = {name: value for name, value in environ.items() if name in KEPT}
    names = ("SLURM_CONF", "SLURM_CLUSTERS", "SLURM_JWT", "SLURM_CONF_SERVER")
    return kept | {name: environ[name] for name in names if name in environ} | {"SLURM_TIME_FORMAT": "standard"}


class Slurm:
    """The cluster, as its commands show it. Safe to use from several threads."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environment = command_environment(environ)
        self._throttle = threading.Lock()
        self._free_at = 0.0

    def run(self, command: str, *arguments: str, timeout: float = 60.0, cwd: Path | None = None) -> str:
        """What the command prints.

        Raises:
            SlurmCommandError: it failed, is not there, or took longer than `timeout` seconds.
        """
        try:
            done = subprocess.run(
                [command, *arguments],
                env=self._environment,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=timeout,
                check=False,
            )
        except FileNotFoundError:
            raise SlurmCommandError(command, "there is no such command", "COMMAND_MISSING") from None
        except subprocess.TimeoutExpired:
            raise SlurmCommandError(command, f"no answer within {timeout:g} seconds", "COMMAND_TIMEOUT") from None
        if done.returncode:
            lines = [line.removeprefix(f"{command}: ").removeprefix("error: ") for line in done.stderr.splitlines()]
            raise SlurmCommandError(command, "; ".join(lines) or f"ended with exit code {done.returncode}")
        return done.stdout

    def status(self, command: str, *arguments: str) -> str:
        """Like `run`, at most once in `STATUS_INTERVAL` seconds for the whole process: others wait their turn."""
        with self._throttle:
            time.sleep(max(0.0, self._free_at - time.monotonic()))
            try:
                return self.run(command, *arguments, timeout=30.0)
            finally:
                self._free_at = time.monotonic() + STATUS_INTERVAL

    def submit(self, flags: Sequence[str], script: Path, name: str, patience: float) -> str:
        """Submit a job, once, and return its id.

        A submission without an answer may have happened: the job's name, which nobody else uses, tells. So a
        restart of the controller neither loses the job nor doubles it.

        Args:
            flags: further arguments of sbatch.
            script: the job script.
            name: the job's name, unique.
            patience: seconds to repeat it while the controller does not answer.

        Raises:
            SlurmCommandError: with sbatch's message.
        """
        deadline, wait, unanswered = time.monotonic() + patience, 1.0, False
        while True:
            try:
                found = self.find(name) if unanswered else None
                return found or self._sbatch(flags, script, name)
            except SlurmCommandError as exc:
                if exc.code not in NO_ANSWER:
                    raise
                unanswered = True
                if time.monotonic() + wait > deadline:
                    raise SlurmCommandError(
                        "sbatch",
                        f"{exc}; given up after {patience:g} seconds. Should it have been accepted all the same, "
                        f"`scancel --name={name}` removes it",
                        exc.code,
                    ) from exc
                _logger.warning("The submission of %s got no answer (%s); trying again in %g s", name, exc, wait)
                time.sleep(wait)
                wait = min(wait * 2, 15.0)

    def _sbatch(self, flags: Sequence[str], script: Path, name: str) -> str:
        printed = self.run("sbatch", "--parsable", f"--job-name={name}", *flags, "--", str(script), cwd=script.parent)
        job_id = printed.strip().rpartition("\n")[2].partition(";")[0]
        if not job_id.isdigit():
            raise SlurmCommandError("sbatch", f"printed no job id but {printed.strip()!r}")
        return job_id

    def find(self, name: str) -> str | None:
        """The id of the job with this name, also of one that has ended; None where Slurm knows none."""
        arguments = (f"--name={name}", "--states=all", "--noheader", "--format=%F")
        found = self.status("squeue", *arguments).split()
        if found:
            return found[0]
        try:
            told = self.status(
                "sacct", f"--name={name}", "--starttime=now-30days", "-X", "--noheader", "--parsable2", "--format=JobID"
            )
        except SlurmCommandError:
            return None  # no accounting, and the controller has just said that it knows no such job
        return told.split()[0].partition("_")[0] if told.split() else None

    def cancel(self, job_id: str, patience: float) -> None:
        """Cancel a job, or a task of an array; one that has ended is left alone.

        Raises:
            SlurmCommandError: scancel refused, or the controller did not answer for `patience` seconds.
        """
        deadline, wait = time.monotonic() + patience, 1.0
        while True:
            try:
                self.run("scancel", job_id)
                return
            except SlurmCommandError as exc:
                if exc.code == "ESLURM_INVALID_JOB_ID":
                    return
                if exc.code not in NO_ANSWER or time.monotonic() + wait > deadline:
                    raise
                time.sleep(wait)
                wait = min(wait * 2, 15.0)
