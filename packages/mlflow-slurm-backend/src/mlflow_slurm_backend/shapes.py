"""What a value of the backend configuration may look like, and which further sbatch flags a user may add.

Everything reaches sbatch as one argument of its own, `--flag=value`, so nothing here guards against a shell.
The shapes find typing errors before Slurm does, and keep line breaks out of the script; the list of flags
keeps out those that run code, hand out the environment, act as somebody else, or are set by the backend
itself. It is a list of what is allowed, since sbatch also takes each unambiguous beginning of a flag's name.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

from mlflow_plugkit.errors import mlflow_error

NAMES = r"[\w.,+-]+"
TIME = r"\d+(:\d+){0,2}|\d+-\d+(:\d+){0,2}|INFINITE|UNLIMITED"
COUNT = r"\d+"
NODES = r"\d+[kKmM]?(-\d+[kKmM]?)?"
MEMORY = r"\d+[KMGT]?"
RESOURCES = r"[\w.:,/=()*-]+"
FEATURES = r"[\w.&|*!@,()\[\]+-]+"
HOSTS = r"[\w.,\[\]-]+"
SIGNAL = r"([RB]{1,2}:)?(?P<signal>(SIG)?[A-Z][A-Z0-9+-]*|\d{1,2})(@(?P<seconds>\d{1,5}))?"
MODULE = r"\w[\w.+/@:=-]*"
IDENTIFIER = r"\d+(_\d+)?|[0-9a-f]{32}"
PLAIN = r"[^\x00-\x1f\x7f-]([^\x00-\x1f\x7f]*)"
PATH = r"/[^\x00-\x1f\x7f%\\]*"
ANY = r"[\s\S]*"
#: What a user who got a value wrong may write instead.
EXAMPLES = {
    TIME: "30 (minutes), 2:00:00 or 1-12:00:00", COUNT: "4", NODES: "2 or 2-4", MEMORY: "4G", NAMES: "gpu,long",
    RESOURCES: "gpu:a100:2", FEATURES: "haswell&ib", HOSTS: "node[1-4]", SIGNAL: "USR1@120 or B:USR1@120",
    MODULE: "cuda/12.4", PATH: "/scratch/me", IDENTIFIER: "1234 or 1234_5",
}  # fmt: skip

SBATCH_FLAGS = (
    "acctg-freq", "batch", "begin", "contiguous", "core-spec", "cores-per-socket", "cpu-freq",
    "cpus-per-gpu", "deadline", "delay-boot", "distribution", "exclude", "exclusive", "extra-node-info",
    "gpu-bind", "gpu-freq", "gpus-per-node", "gpus-per-socket", "gpus-per-task", "gres-flags", "hint",
    "hold", "licenses", "mail-type", "mail-user", "mcs-label", "mem-bind", "mem-per-cpu", "mem-per-gpu",
    "mincpus", "network", "nice", "no-kill", "nodelist", "ntasks-per-core", "ntasks-per-gpu",
    "ntasks-per-node", "ntasks-per-socket", "overcommit", "oversubscribe", "power", "prefer", "priority",
    "profile", "reservation", "segment", "sockets-per-node", "spread-job", "switches", "thread-spec",
    "threads-per-core", "time-min", "tmp", "tres-bind", "tres-per-task", "use-min-nodes", "wait-all-nodes",
    "wckey",
)  # fmt: skip
APPTAINER_FLAGS = (
    "cleanenv", "contain", "containall", "fakeroot", "fusemount", "ipc", "no-home", "no-init", "no-mount",
    "nv", "nvccli", "overlay", "pid", "rocm", "scratch", "userns", "uts", "writable-tmpfs",
)  # fmt: skip
PYXIS_FLAGS = (
    "container-mount-home", "no-container-mount-home", "container-name", "container-readonly",
    "container-remap-root", "no-container-remap-root", "container-workdir", "container-writable",
)  # fmt: skip
_FLAG = re.compile(r"--(?P<name>[a-z][a-z0-9-]*)(=(?P<value>[\w.,:@%+/=\[\]()&|*! -]*))?")


def check_shape(name: str, value: object, shape: str) -> None:
    """Refuse a value that does not have the shape (a regular expression for all of it).

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, naming the key.
    """
    if not re.fullmatch(shape, str(value)):
        form = f"write it like {EXAMPLES[shape]}" if shape in EXAMPLES else "it holds characters that it may not"
        raise mlflow_error(f"The backend configuration's {name!r} is {str(value)!r}: {form}.")


def check_flags(key: str, flags: Iterable[str], allowed: Iterable[str]) -> None:
    """Refuse a flag that is not `--name` or `--name=value` with an allowed name.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, naming the flag and the nearest allowed one.
    """
    allowed = list(allowed)
    for flag in flags:
        found = _FLAG.fullmatch(flag)
        if found and found["name"] in allowed:
            continue
        if found is None:
            raise mlflow_error(
                f"{flag!r} in {key!r} is not of the form --name or --name=value, or its value holds a character "
                "that is not allowed."
            )
        near = difflib.get_close_matches(found["name"], allowed, n=1)
        hint = f"Did you mean '--{near[0]}'? " if near else ""
        raise mlflow_error(
            f"The flag '--{found['name']}' in {key!r} is not allowed. {hint}Flags that run code, pass on the "
            "environment or change the user are refused, and so are those that the backend sets itself or that "
            f"have a key of their own. Allowed are: {', '.join(allowed)}."
        )
