"""The SubmittedRun of a Slurm job: wait, get_status, cancel."""

from __future__ import annotations

import codecs
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from mlflow.projects.submitted_run import SubmittedRun

from mlflow_plugkit.errors import mlflow_error
from mlflow_slurm_backend.errors import SLURM_ERRORS
from mlflow_slurm_backend.folder import Job, Task
from mlflow_slurm_backend.record import Recorder, combined
from mlflow_slurm_backend.states import Observation, job_state
from mlflow_slurm_backend.watcher import Watched, Watcher


class SlurmSubmittedRun(SubmittedRun):
    """A Slurm job, or job array, that has been submitted.

    From the moment it is made a thread of this process watches the job and records what happens to it in the
    run. The job does not depend on that: `attach` takes it up again.
    """

    def __init__(
        self,
        job: Job,
        recorder: Recorder,
        watcher: Watcher,
        *,
        stream: bool = True,
        patience: float = 300.0,
        ended_in: Mapping[str, str] | None = None,
    ) -> None:
        """Watch a submitted job.

        Args:
            job: with Slurm's id.
            recorder: of the store that holds the job's runs.
            watcher: of the cluster.
            stream: whether `wait()` shows the output.
            patience: seconds that `cancel()` waits for the controller, and for the job's end.
            ended_in: Slurm's state by run id, for tasks whose end has been recorded already.
        """
        self.job = job
        self._recorder = recorder
        self._watcher = watcher
        self._stream = stream
        self._patience = patience
        self._parent_lock = threading.Lock()
        self._parent_status = ""
        self._watched = [self._watch(task, (ended_in or {}).get(task.run_id)) for task in job.tasks]
        watcher.watch([watched for watched in self._watched if not watched.recorded.is_set()])
        self._update_parent()

    def _watch(self, task: Task, ended_in: str | None) -> Watched:
        def on_change(seen: Observation) -> None:
            try:
                if seen.ended:
                    self._recorder.ended(self.job, task, seen)
                else:
                    self._recorder.changed(task, seen)
            finally:
                watched.told = seen
                self._update_parent()

        watched = Watched(self.job.slurm_id(task), task.exit_file, self.job.requeue, on_change)
        if ended_in:
            watched.seen = watched.told = Observation(job_state(ended_in))
            watched.recorded.set()
        return watched

    def _update_parent(self) -> None:
        """Give the parent run of an array the status that follows from what was recorded of its tasks."""
        if not self.job.is_array:
            return
        with self._parent_lock:
            told = [watched.told for watched in self._watched]
            status = combined(seen.state.status for seen in told)
            if status != self._parent_status:
                self._parent_status = status
                self._recorder.parent_changed(self.job, status, told)

    @property
    def run_id(self) -> str:
        return self.job.run_id

    @property
    def job_id(self) -> str:
        """Slurm's id of the job or the array."""
        return self.job.job_id

    def get_status(self) -> str:
        """The name of the RunStatus, as last seen; a newer look is ordered."""
        if not all(watched.seen.ended for watched in self._watched):
            self._watcher.poke()
        return combined(watched.seen.state.status for watched in self._watched)

    def state(self) -> dict[str, str]:
        """Slurm's state, as last seen, by Slurm's job id."""
        return {watched.slurm_id: watched.seen.state.name for watched in self._watched}

    def wait(self) -> bool:
        """Wait until the job has ended and that has been recorded; meanwhile show its output, if wanted.

        Returns:
            Whether all of it succeeded.
        """
        outputs = self._outputs() if self._stream else []
        for watched in self._watched:
            while not watched.recorded.wait(0.2):
                for output in outputs:
                    output.copy()
        for output in outputs:
            output.copy()
        return self.get_status() == "FINISHED"

    def cancel(self) -> None:
        """Cancel the job, wait for its end, and mark the run KILLED. One that has ended stays as it is.

        Raises:
            MlflowException: the controller refused or did not answer, or the job did not end; it may still run.
        """
        open_ones = [watched for watched in self._watched if not watched.seen.ended]
        if open_ones:
            whole = len(open_ones) == len(self._watched) and len(self.job.tasks) > 1
            with SLURM_ERRORS.applied(f"cancel job {self.job.job_id}"):
                for job_id in [self.job.job_id] if whole else [watched.slurm_id for watched in open_ones]:
                    self._watcher.slurm.cancel(job_id, self._patience)
        deadline = time.monotonic() + self._patience
        for watched in self._watched:
            while not watched.recorded.wait(0.5):
                self._watcher.poke()
                if time.monotonic() > deadline:
                    raise mlflow_error(
                        f"Slurm job {watched.slurm_id} was cancelled, but has not ended within {self._patience:g} "
                        f"seconds; its state is {watched.seen.state.name}. Look at it with: scontrol show job "
                        f"{watched.slurm_id}",
                        "TEMPORARILY_UNAVAILABLE",
                    )

    def look(self, seconds: float = 60.0) -> None:
        """Wait until Slurm has been asked once, or `seconds` have passed."""
        deadline = time.monotonic() + seconds
        for watched in self._watched:
            while not (watched.asked.is_set() or watched.recorded.is_set()) and time.monotonic() < deadline:
                watched.asked.wait(0.2)

    def rename(self, name: str) -> None:
        """Give the run a name."""
        self._recorder.rename(self.run_id, name)

    def _outputs(self) -> list[_Output]:
        named = len(self.job.tasks) > 1
        files = (("stdout.log", sys.stdout), ("stderr.log", sys.stderr))
        return [
            _Output(task.folder / name, stream, f"[{task.index}] " if named else "")
            for task in self.job.tasks
            for name, stream in files
        ]


class _Output:
    """A file that grows, copied to a stream piece by piece; with a prefix, line by line."""

    def __init__(self, path: Path, stream: TextIO, prefix: str) -> None:
        self._path, self._stream, self._prefix = path, stream, prefix
        self._position = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._at_line_start = True

    def copy(self) -> None:
        """Copy what has been added."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._position)
                added = file.read()
        except OSError:
            return  # not there yet, or out of reach for a moment
        if not added:
            return
        self._position += len(added)
        text = self._decoder.decode(added)
        if self._prefix:
            lines = text.splitlines(keepends=True)
            starts = [self._at_line_start, *(line.endswith("\n") for line in lines[:-1])]
            self._at_line_start = bool(lines) and lines[-1].endswith("\n")
            text = "".join((self._prefix if start else "") + line for start, line in zip(starts, lines, strict=False))
        self._stream.write(text)
        self._stream.flush()
