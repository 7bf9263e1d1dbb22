"""Slurm's job states, and the MLflow status of each.

The states are those of `squeue(1)`, "JOB STATE CODES", and of `sacct(1)`, of Slurm 22.05 to 25.05, each with
its compact code. A state that has not ended is RUNNING or SCHEDULED in MLflow. Of the ended ones COMPLETED is
FINISHED; KILLED, which MLflow documents as "run killed", is a job that somebody or the scheduler took away
though it had no fault of its own; the others are FAILED.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple


class JobState(NamedTuple):
    """A row of the table. `status` is the name of an MLflow RunStatus."""

    name: str
    code: str
    status: str
    meaning: str


STATES = (
    JobState("PENDING", "PD", "SCHEDULED", "waits for resources"),
    JobState("CONFIGURING", "CF", "SCHEDULED", "has its nodes, which start up"),
    JobState("POWER_UP_NODE", "PU", "SCHEDULED", "has its nodes, which are powered up"),
    JobState("REQUEUED", "RQ", "SCHEDULED", "completes, and will be queued again"),
    JobState("REQUEUE_FED", "RF", "SCHEDULED", "is queued again by its federation"),
    JobState("REQUEUE_HOLD", "RH", "SCHEDULED", "was queued again, and is held"),
    JobState("RESV_DEL_HOLD", "RD", "SCHEDULED", "is held, for its reservation was deleted"),
    JobState("SPECIAL_EXIT", "SE", "SCHEDULED", "was queued again in a special state, and is held"),
    JobState("EXPEDITING", "EX", "SCHEDULED", "was queued again with the highest priority"),
    JobState("RUNNING", "R", "RUNNING", "runs"),
    JobState("COMPLETING", "CG", "RUNNING", "ends; some of its processes may still run"),
    JobState("RESIZING", "RS", "RUNNING", "is about to change its size"),
    JobState("SIGNALING", "SI", "RUNNING", "is being signaled"),
    JobState("STAGE_OUT", "SO", "RUNNING", "stages out its files"),
    JobState("STOPPED", "ST", "RUNNING", "was stopped with SIGSTOP, and keeps its CPUs"),
    JobState("SUSPENDED", "S", "RUNNING", "is suspended, and has given back its CPUs"),
    JobState("UPDATE_DB", "UD", "RUNNING", "is being written to the accounting database"),
    JobState("COMPLETED", "CD", "FINISHED", "ended with exit code 0"),
    JobState("FAILED", "F", "FAILED", "ended with another exit code"),
    JobState("TIMEOUT", "TO", "FAILED", "reached its time limit"),
    JobState("OUT_OF_MEMORY", "OOM", "FAILED", "used more memory than it asked for"),
    JobState("NODE_FAIL", "NF", "FAILED", "lost a node"),
    JobState("BOOT_FAIL", "BF", "FAILED", "its nodes did not start up"),
    JobState("LAUNCH_FAILED", "LF", "FAILED", "could not be launched on its nodes"),
    JobState("RECONFIG_FAIL", "RC", "FAILED", "its nodes could not be configured"),
    JobState("DEADLINE", "DL", "FAILED", "could not end before its deadline"),
    JobState("CANCELLED", "CA", "KILLED", "was cancelled by its user or an administrator"),
    JobState("PREEMPTED", "PR", "KILLED", "was preempted by a job of higher priority"),
    JobState("REVOKED", "RV", "KILLED", "was started by another cluster of the federation"),
)

UNKNOWN = JobState("UNKNOWN", "", "FAILED", "Slurm has forgotten it, and it left no exit code")
_BY_NAME = {key: state for state in (*STATES, UNKNOWN) for key in (state.name, state.code) if key}
_BY_NAME |= {"NODE_FAILED": _BY_NAME["NODE_FAIL"], "OUT_OF_ME": _BY_NAME["OUT_OF_MEMORY"]}


def job_state(text: str) -> JobState:
    """The state that a Slurm command printed: a name or a code, also "CANCELLED by 1000" and "CANCELLED+".

    Slurm's newer commands print a state with its flags, as in "RUNNING,COMPLETING": a job with the flag
    COMPLETING or REQUEUED has not ended. A state that no row knows counts as RUNNING, so that a job is never
    given up because of a word from a newer Slurm.
    """
    words = [part.split()[0].rstrip("+").upper() for part in text.split(",") if part.strip()]
    known = [_BY_NAME[word] for word in words if word in _BY_NAME]
    flags = [state for state in known[1:] if not has_ended(state)]
    return (flags or known or [JobState(text.strip() or "RUNNING", "", "RUNNING", "a state of a newer Slurm")])[0]


def has_ended(state: JobState) -> bool:
    """Whether a job in this state will not run again."""
    return state.status in ("FINISHED", "FAILED", "KILLED")


@dataclass(frozen=True)
class Observation:
    """What is known of a job, or of a task of an array, at one moment.

    Attributes:
        state: its state.
        exit_code: as Slurm writes it: the exit code, a colon, the number of the signal; "" where unknown.
        nodes: the node list, "" before it has one.
        elapsed: seconds since its (last) start, None where unknown.
        peak_memory: bytes, None where unknown.
        reason: why it is in this state, in Slurm's words; "" where there is none.
        restarts: how often it was queued again.
        source: what said so: sacct, scontrol, squeue, exit file, or "" at submission.
    """

    state: JobState
    exit_code: str = ""
    nodes: str = ""
    elapsed: float | None = None
    peak_memory: int | None = None
    reason: str = ""
    restarts: int = 0
    source: str = ""

    @property
    def ended(self) -> bool:
        return has_ended(self.state)

    def after(self, earlier: Observation) -> Observation:
        """This observation, with what only the earlier one knew: each source knows other things."""
        return replace(
            self,
            nodes=self.nodes or earlier.nodes,
            peak_memory=self.peak_memory if self.peak_memory is not None else earlier.peak_memory,
            elapsed=self.elapsed if self.elapsed is not None else earlier.elapsed,
            restarts=max(self.restarts, earlier.restarts),
        )


def went_back(earlier: Observation, later: Observation) -> bool:
    """Whether a job that ran waits again."""
    return earlier.state.status == "RUNNING" and later.state.status == "SCHEDULED"


SUBMITTED = Observation(_BY_NAME["PENDING"])
LOST = Observation(UNKNOWN, reason=UNKNOWN.meaning)
