"""The sources as jobs. Loading this module is cheap: slow sources start before the rest of the package is loaded."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import lru_cache, partial

from mlflow_run_context import container, environment, git, gpu, lockfiles, machine
from mlflow_run_context.collector import Collector, Found, Job, debug
from mlflow_run_context.tables import IMAGES

SOURCES = ("git", "ci", "scheduler", "container", "host", "cpu", "gpu", "python", "lock")
REFRESH = 60.0

collector = Collector()
_HOST_VARIABLES = ("KUBERNETES_SERVICE_HOST", "container", *IMAGES)
_IMMEDIATE = {"ci": environment.ci, "scheduler": environment.scheduler, "python": machine.python, "gpu": gpu.visible}


@lru_cache(maxsize=1)
def start_early() -> None:
    """Start the slow sources, once in a process, unless the user chose among the sources. Raises nothing."""
    if os.environ.get("MLFLOW_RUN_CONTEXT_SOURCES"):
        return
    try:
        collector.start(slow(frozenset(SOURCES), REFRESH))
    except Exception as exc:  # noqa: BLE001 # whatever it is, it is met again, and reported, with the tags
        debug("sources cannot be started: %s: %s", type(exc).__name__, exc)


def reset() -> None:
    """Forget what the process has collected."""
    collector.reset()
    _has_nvidia_smi.cache_clear()


def immediate(chosen: frozenset[str]) -> Found:
    """What takes no time: the environment and the interpreter."""
    found: Found = {}
    for name, ask in _IMMEDIATE.items():
        if name in chosen:
            found |= _asked(name, ask)
    return found


def _asked(name: str, ask: Callable[[], Found]) -> Found:
    try:
        return ask()
    except Exception as exc:  # noqa: BLE001 # nothing that a source meets may reach a training script
        debug("%s gives no tags: %s: %s", name, type(exc).__name__, exc)
        return {}


def git_head(chosen: frozenset[str]) -> Found:
    """What git's own files say, read anew when they change."""
    return _asked("git", _git_head) if "git" in chosen else {}


def _git_head() -> Found:
    repository = _repository()
    return git.head(repository, git.signature(repository)) if repository else {}


def _repository() -> git.Repository | None:
    start = git.start_folder()
    return git.find_repository(start) if start else None


def slow(chosen: frozenset[str], refresh: float, *, with_diff: bool = False) -> list[Job]:
    """The slow sources; where two give one tag, the later wins.

    Args:
        chosen: names of sources.
        refresh: seconds for which an answer about files stands.
        with_diff: ask for the uncommitted changes themselves, too.
    """
    jobs = []
    if "git" in chosen and (repository := _repository()):
        key = (str(repository.top), git.signature(repository))
        jobs.append(Job("git changes", key, partial(git.changes, repository), refresh))
        if with_diff:
            jobs.append(Job("git diff", key, partial(_git_diff, repository), refresh))
    if "gpu" in chosen:
        path, visible = os.environ.get("PATH"), os.environ.get("CUDA_VISIBLE_DEVICES")
        if gpu.has_drivers():
            jobs.append(Job("gpu", visible, gpu.from_files))
        if _has_nvidia_smi(path):
            jobs.append(Job("nvidia-smi", (path, visible), gpu.from_nvidia_smi))
    if "lock" in chosen and (start := git.start_folder()):
        jobs.append(Job("lock", str(start), partial(lockfiles.lock_files, start), refresh))
    if here := chosen & {"host", "cpu", "container"}:
        jobs.append(Job("machine", (here, tuple(map(os.environ.get, _HOST_VARIABLES))), partial(_machine, here)))
    return jobs


def _git_diff(repository: git.Repository) -> Found:
    return {"git.diff": git.diff_text(repository)}


def _machine(chosen: frozenset[str]) -> Found:
    found: Found = {}
    for name, ask in (("host", machine.host), ("cpu", machine.cpu), ("container", container.container)):
        found |= _asked(name, ask) if name in chosen else {}
    return found


@lru_cache(maxsize=4)
def _has_nvidia_smi(path: str | None) -> bool:
    return shutil.which("nvidia-smi", path=path) is not None
