"""The ladder: sacct, scontrol, squeue and the exit-code file, each asked for what the one before did not know.

sacct knows jobs for ever, but many sites keep no accounting, and it learns of a job with some delay. scontrol
and squeue know what the controller does, until `MinJobAge` (300 s by default) after a job's end. The exit-code
file is written by the job script. Each rung answers for all jobs in one call.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from mlflow_plugkit.logs import get_logger
from mlflow_slurm_backend.commands import Slurm
from mlflow_slurm_backend.errors import NO_ANSWER, SlurmCommandError
from mlflow_slurm_backend.states import LOST, Observation, job_state

Found = dict[str, Observation]
SACCT_FIELDS = "JobID,State,ExitCode,ElapsedRaw,NodeList,MaxRSS,Reason"
SQUEUE_FORMAT = "%i|%T|%N|%M|%r"
MISSES = 3
"""How many rounds in a row nobody may know a job before it is given up."""
_UNITS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}
_EMPTY = ("", "None", "(null)", "Unknown", "None assigned", "N/A")

_logger = get_logger("mlflow_slurm_backend")


def read_sacct(text: str) -> Found:
    """Parse `sacct --parsable2 --noheader --format=SACCT_FIELDS`. A job's peak memory is its largest step's."""
    found: Found = {}
    peaks: dict[str, int] = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) != len(SACCT_FIELDS.split(",")):
            continue
        job, state, code, elapsed, nodes, memory, reason = fields
        owner, _, step = job.partition(".")
        if step:
            peaks[owner] = max(peaks.get(owner, 0), read_memory(memory) or 0)
            continue
        seen = Observation(job_state(state), code, _told(nodes), _number(elapsed), None, _told(reason), 0, "sacct")
        found |= dict.fromkeys(job_ids(job), seen)
    return {job: replace(seen, peak_memory=peaks.get(job) or None) for job, seen in found.items()}


def read_scontrol(text: str) -> Found:
    """Parse `scontrol --oneliner show job`."""
    found: Found = {}
    for line in text.splitlines():
        job, array, task = _field(line, "JobId"), _field(line, "ArrayJobId"), _field(line, "ArrayTaskId")
        if not job:
            continue
        seen = Observation(
            job_state(_field(line, "JobState")),
            _field(line, "ExitCode"),
            _told(_field(line, "NodeList")),
            read_duration(_field(line, "RunTime")),
            None,
            _told(_field(line, "Reason")),
            int(_field(line, "Restarts") or 0),
            "scontrol",
        )
        found |= dict.fromkeys(job_ids(f"{array}_{task}" if task else job), seen)
    return found


def read_squeue(text: str) -> Found:
    """Parse `squeue --states=all --noheader --format=SQUEUE_FORMAT`: it tells no exit code."""
    found: Found = {}
    for line in text.splitlines():
        fields = line.split("|")
        if len(fields) == len(SQUEUE_FORMAT.split("|")):
            job, state, nodes, elapsed, reason = fields
            seen = Observation(
                job_state(state), "", _told(nodes), read_duration(elapsed), None, _told(reason), 0, "squeue"
            )
            found |= dict.fromkeys(job_ids(job), seen)
    return found


def read_exit_file(file: Path) -> Observation | None:
    """What the job script wrote when the project ended: exit code, seconds, node. None where there is nothing.

    A full disk can leave the file empty; that says nothing, either.
    """
    try:
        words = file.read_text(encoding="utf-8").split()
    except OSError:
        return None
    if not words or not words[0].isdigit():
        return None
    code = int(words[0])
    elapsed = float(words[1]) if len(words) > 1 and words[1].isdigit() else None
    node = words[2] if len(words) > 2 else ""
    return Observation(job_state("FAILED" if code else "COMPLETED"), f"{code}:0", node, elapsed, source="exit file")


def read_memory(text: str) -> int | None:
    """Bytes of `1234K`, `1.5M`; None for an empty field."""
    found = re.fullmatch(r"(?P<number>\d+(\.\d+)?)(?P<unit>[KMGT]?)", text.strip())
    return int(float(found["number"]) * _UNITS[found["unit"]]) if found else None


def read_duration(text: str) -> float | None:
    """Seconds of `[days-][hours:]minutes:seconds`; None where Slurm prints none."""
    found = re.fullmatch(r"(?:(?P<d>\d+)-)?(?:(?P<h>\d+):)?(?P<m>\d+):(?P<s>\d+)", text.strip())
    if not found:
        return None
    days, hours, minutes, seconds = (int(found[name] or 0) for name in "dhms")
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def job_ids(text: str) -> Iterator[str]:
    """The ids that Slurm shows as one: `7_[2-4,6%2]` and `7_2-4` are tasks that wait; `7_2` and `7` are themselves."""
    job, _, tasks = text.partition("_")
    if not tasks:
        yield job
    for part in tasks.strip("[]").partition("%")[0].split(","):
        first, _, last = part.partition("-")
        if first.isdigit():
            stop, _, step = (last or first).partition(":")
            yield from (f"{job}_{n}" for n in range(int(first), int(stop) + 1, int(step or 1)))


class Ladder:
    """Asks the rungs in turn. A rung that is not there is left out for ten minutes, a broken one for one."""

    def __init__(self, slurm: Slurm) -> None:
        self._slurm = slurm
        self._closed_until: dict[str, float] = {}
        self._misses: dict[str, int] = {}
        self._silent = False

    def ask(self, jobs: Mapping[str, Path], may_requeue: Collection[str] = ()) -> Found:
        """What is known of the jobs.

        Args:
            jobs: job id to the path of its exit-code file.
            may_requeue: those of them that may be queued again: where accounting says that they ended without
                success, the controller has the last word.
        """
        found: Found = {}
        answered = False
        for rung in ("sacct", "scontrol", "squeue"):
            unsure = {j for j, o in found.items() if j in may_requeue and o.ended and o.state.status != "FINISHED"}
            wanted = [job for job in jobs if job not in found or (rung == "scontrol" and job in unsure)]
            if wanted and time.monotonic() >= self._closed_until.get(rung, 0.0):
                answer = self._asked(rung, wanted)
                answered = answered or (answer is not None and rung != "sacct")
                found |= {
                    job: seen.after(found.get(job, seen)) for job, seen in (answer or {}).items() if job in wanted
                }
        self._note_silence(answered or len(found) == len(jobs))
        for job in jobs.keys() - found.keys():
            seen = read_exit_file(jobs[job]) or self._missed(job, answered)
            found |= {job: seen} if seen else {}
        for job in [job for job, seen in found.items() if seen is not LOST]:
            self._misses.pop(job, None)
        return found

    def _asked(self, rung: str, jobs: list[str]) -> Found | None:
        """The answer of a rung, or None where it gave none."""
        listed = f"--jobs={','.join(sorted({job.partition('_')[0] for job in jobs}))}"
        try:
            if rung == "sacct":
                return read_sacct(
                    self._slurm.status("sacct", listed, "--parsable2", "--noheader", f"--format={SACCT_FIELDS}")
                )
            if rung == "scontrol":  # it takes one id, or shows all jobs
                return read_scontrol(
                    self._slurm.status("scontrol", "--oneliner", "show", "job", *jobs[: len(jobs) == 1])
                )
            return read_squeue(
                self._slurm.status(
                    "squeue", listed, "--states=all", "--array", "--noheader", f"--format={SQUEUE_FORMAT}"
                )
            )
        except SlurmCommandError as exc:
            if exc.code == "ESLURM_INVALID_JOB_ID":
                return {}
            if exc.code in ("ACCOUNTING_DISABLED", "COMMAND_MISSING"):
                self._closed_until[rung] = time.monotonic() + 600
            elif exc.code not in NO_ANSWER or rung == "sacct":
                _logger.info("%s gives no status for now: %s", rung, exc)
                self._closed_until[rung] = time.monotonic() + 60
            return None

    def _missed(self, job: str, answered: bool) -> Observation | None:
        """Count a round in which the controller answered and did not know the job; LOST when it is enough."""
        self._misses[job] = self._misses.get(job, 0) + answered
        return LOST if self._misses[job] >= MISSES else None

    def _note_silence(self, answered: bool) -> None:
        if answered and self._silent:
            _logger.warning("Slurm's controller answers again")
        elif not answered and not self._silent:
            _logger.warning(
                "Slurm's controller does not answer; the jobs go on, and their status will be asked for again"
            )
        self._silent = not answered


def _field(line: str, name: str) -> str:
    found = re.search(rf"(?:^|\s){name}=(\S*)", line)
    return found[1] if found else ""


def _told(text: str) -> str:
    return "" if text in _EMPTY else text


def _number(text: str) -> float | None:
    return float(text) if text.isdigit() else None
