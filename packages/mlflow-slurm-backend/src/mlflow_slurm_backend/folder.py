"""The job folder: script, manifest, and for each task its command, environment, credentials and output.

<folder>/<run id>-<token>/          mode 0700
    job.sh  job.json
    project/                        only where the project was copied
    tasks/<index>/                  0 for a single job
        command  environment  credentials           mode 0600
        stdout.log  stderr.log  exit  peak          written by the job
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlflow_slurm_backend.script import exports


@dataclass(frozen=True)
class Task:
    """One run of the project: a whole job, or a task of an array.

    Attributes:
        index: its index in the array, None for a job that is no array.
        run_id: the MLflow run.
        folder: where its files are.
    """

    index: int | None
    run_id: str
    folder: Path

    @property
    def exit_file(self) -> Path:
        return self.folder / "exit"

    def peak_memory(self) -> int | None:
        """Bytes that the project's largest process used, as the job measured it; None where it could not."""
        try:
            return int((self.folder / "peak").read_text(encoding="utf-8")) * 1024
        except (OSError, ValueError):
            return None

    def told_by_slurmstepd(self) -> str:
        """Why Slurm killed the job for its memory, which it writes to the job's stderr; "" where it did not.

        Without cgroups (`JobAcctGatherParams=OverMemoryKill`) the state of such a job is no more than FAILED.
        """
        try:
            with (self.folder / "stderr.log").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
                text = file.read().decode(errors="replace")
        except OSError:
            return ""
        found = re.search(r"^slurmstepd\S*: error: (.*(?:memory limit|oom-kill).*)$", text, re.MULTILINE)
        return found[1] if found else ""

    def forget_credentials(self) -> None:
        """Remove the file with the credentials, where the job has not."""
        (self.folder / "credentials").unlink(missing_ok=True)


@dataclass(frozen=True)
class Job:
    """A submission: one Slurm job, or one job array.

    Attributes:
        name: the job's name in Slurm, unique.
        run_id: the MLflow run that the user sees: the task's, or the parent of the array's.
        folder: the job folder.
        tasks: at least one.
        requeue: whether Slurm may queue it again.
        job_id: Slurm's id, "" before the submission.
    """

    name: str
    run_id: str
    folder: Path
    tasks: tuple[Task, ...]
    requeue: bool = False
    job_id: str = ""

    @property
    def script(self) -> Path:
        return self.folder / "job.sh"

    @property
    def is_array(self) -> bool:
        """Whether its tasks have runs of their own, below that of the job."""
        return self.tasks[0].run_id != self.run_id

    def slurm_id(self, task: Task) -> str:
        """Slurm's id of a task: `12_3`, or `12` where there is no array."""
        return self.job_id if task.index is None else f"{self.job_id}_{task.index}"

    def output_flags(self) -> list[str]:
        """The flags of sbatch for the output, appended to when the job is queued again."""
        task = f"{self.folder}/tasks/{'%a' if self.is_array else '0'}"
        return [f"--output={task}/stdout.log", f"--error={task}/stderr.log", "--open-mode=append"]

    def write(self, script: str, commands: list[str], plain: Mapping[str, str], secret: Mapping[str, str]) -> None:
        """Write all files.

        Args:
            script: the job script.
            commands: the file `command` of each task.
            plain: the part of the environment that is no secret.
            secret: the other part.

        Raises:
            OSError: the disk is full, the folder cannot be written, ...
        """
        for task, command in zip(self.tasks, commands, strict=True):
            task.folder.mkdir(mode=0o700, parents=True)
            private_file(task.folder / "command", command)
            private_file(task.folder / "environment", exports(plain))
            private_file(task.folder / "credentials", exports(secret))
        tasks = [{"index": task.index, "run_id": task.run_id} for task in self.tasks]
        manifest = {"name": self.name, "run_id": self.run_id, "requeue": self.requeue, "tasks": tasks}
        private_file(self.folder / "job.json", json.dumps(manifest))
        private_file(self.script, script)


def read_job(folder: Path, job_id: str) -> Job:
    """The job that this folder's manifest describes.

    Raises:
        OSError, ValueError, KeyError: there is no manifest, or it is damaged.
    """
    manifest = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    tasks = tuple(Task(t["index"], t["run_id"], task_folder(folder, t["index"])) for t in manifest["tasks"])
    return Job(manifest["name"], manifest["run_id"], folder, tasks, manifest["requeue"], job_id)


def task_folder(folder: Path, index: int | None) -> Path:
    """The folder of the task with this index."""
    return folder / "tasks" / str(index or 0)


def private_file(path: Path, text: str) -> None:
    """Write a new file that only its owner can read: it has this mode from the first moment on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
