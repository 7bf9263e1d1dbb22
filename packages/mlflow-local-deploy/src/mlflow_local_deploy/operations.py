"""What clients do with the state of deployments and endpoints: ask for a change, and wait until it is so."""

from __future__ import annotations

import dataclasses
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped] # its stubs are a package of their own

from mlflow_local_deploy import logs
from mlflow_local_deploy import place as places
from mlflow_local_deploy.config import Config
from mlflow_local_deploy.errors import DEPLOYMENT_ERRORS
from mlflow_local_deploy.place import Place, Spec, Status, locked, try_lock
from mlflow_local_deploy.plan import GRACE_SECONDS
from mlflow_local_deploy.slots import Command, Page, Slot, State, read_page, slot_files
from mlflow_local_deploy.succession import environment, launch, write_launcher
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import redact_text

LOOK_SECONDS = 0.05
#: What a client waits longer than the deployment itself may take.
MARGIN_SECONDS = 30.0
#: A worker that is silent for so long may be stopped, and start no supervisor.
STILL_SECONDS = 5.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Home:
    """The state folder: all deployments and endpoints of one user.

    Args:
        root: the folder; made on first use.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, kind: str) -> Path:
        """Where the deployments, or the endpoints, are."""
        return self.root / f"{kind}s"

    def place(self, kind: str, name: str) -> Place:
        """The place of a name.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a name that can be no folder's and no URL's.
        """
        if not NAME.fullmatch(str(name)):
            raise mlflow_error(
                f"{name!r} is no name for a {kind}: take letters, digits, '-', '_' and '.', at most 63, and begin with "
                "a letter or digit."
            )
        return Place(self.folder(kind) / name)

    def lock(self, kind: str, name: str) -> AbstractContextManager[None]:
        """One change at a time: held while a deployment is changed."""
        return locked(self.root / "locks" / f"{kind}-{name}.lock")

    def make(self) -> None:
        """Make the state folder, for this user alone."""
        with DEPLOYMENT_ERRORS.applied(f"make the state folder {str(self.root)!r}"):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            for folder in ("deployments", "endpoints", "locks"):
                (self.root / folder).mkdir(mode=0o700, exist_ok=True)

    def existing(self, kind: str, name: str) -> tuple[Place, Spec]:
        """The place and what is wanted there.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        place = self.place(kind, name)
        spec = place.spec()
        if spec is None or spec.desired == places.DELETED:
            known = ", ".join(p.name for p, _ in self.all(kind)) or "none"
            raise mlflow_error(f"There is no {kind} {name!r}. There are: {known}.", "RESOURCE_DOES_NOT_EXIST")
        return place, spec

    def all(self, kind: str) -> Iterator[tuple[Place, Spec]]:
        """Every deployment or endpoint, by name."""
        folder = self.folder(kind)
        for child in sorted(folder.iterdir()) if folder.is_dir() else []:
            spec = Place(child).spec()
            if spec is not None and spec.desired != places.DELETED:
                yield Place(child), spec


def begin(place: Place) -> None:
    """Make an empty place, after whatever an interrupted client has left there.

    Raises:
        MlflowException: `RESOURCE_ALREADY_EXISTS`.
    """
    spec = place.spec()
    if spec is not None and spec.desired != places.DELETED:
        raise mlflow_error(
            f"There is a {spec.kind} {place.name!r} already. Update it, or delete it first.", "RESOURCE_ALREADY_EXISTS"
        )
    remove(place)
    with DEPLOYMENT_ERRORS.applied(f"make a folder for {place.name!r}"):
        place.make()
        places.write_text(place.token_file, secrets.token_urlsafe(32))


def spec_of(place: Place, kind: Any, config: Config, generation: int, revision: str, shown: dict[str, Any]) -> Spec:
    """What is wanted, from a configuration."""
    return Spec(
        name=place.name,
        kind=kind,
        generation=generation,
        revision=revision,
        workers=config.workers,
        standby=config.standby,
        host=config.host,
        port=config.port,
        start_seconds=config.start_seconds,
        drain_seconds=config.drain_seconds,
        hang_seconds=config.hang_seconds,
        shown=shown,
    )


def apply(place: Place, spec: Spec) -> None:
    """Ask for `spec`, and wait until it serves and what served before has ended.

    Raises:
        MlflowException: `INTERNAL_ERROR` with the worker's own words where it does not become ready. What served
            before goes on serving then, and is what is wanted again.
    """
    before = place.spec()
    with DEPLOYMENT_ERRORS.applied(f"write the state of {place.name!r}"):
        places.write(place.spec_file, spec)
    status = wait(place, spec)
    if status.phase == places.READY:
        return
    if before is not None:
        again = dataclasses.replace(before, generation=spec.generation + 1)
        places.write(place.spec_file, again)
        wait(place, again)
    raise mlflow_error(_failure(place, spec, status), "INTERNAL_ERROR")


def _failure(place: Place, spec: Spec, status: Status) -> str:
    written = [file for file in place.logs.glob(f"{spec.revision}.*.log") if file.stat().st_size]
    lines = logs.tail(max(written, key=lambda file: file.stat().st_mtime), 15) if written else []
    reason = status.error if status.phase == places.FAILED else f"it is {status.phase} after {spec.start_seconds:g} s"
    words = "\n".join(["", "The end of the worker's log:", *lines]) if lines else ""
    return f"The {spec.kind} {place.name!r} did not become ready: {reason}.{words}"


def wait(place: Place, spec: Spec) -> Status:
    """Wait until a generation is ready or has failed, keeping a supervisor alive; returns the last status."""
    began = time.monotonic()
    patience = spec.start_seconds + spec.drain_seconds + GRACE_SECONDS + MARGIN_SECONDS
    status = None
    while time.monotonic() < began + patience:
        ensure_supervisor(place)
        status = place.status()
        if status and status.generation >= spec.generation and _is_final(status):
            return status
        time.sleep(LOOK_SECONDS)
    return status or Status(0, places.STARTING, spec.host, spec.port, error="no supervisor has answered")


def _is_final(status: Status) -> bool:
    return status.phase == places.FAILED or (status.phase == places.READY and not status.leaving)


def ensure_supervisor(place: Place) -> bool:
    """Start a supervisor where there is none; returns whether there was none.

    Where workers live that can do so, they are left to: they have the listening socket, which a client has not.
    """
    try:
        lock = try_lock(place.supervisor_lock)
    except FileNotFoundError:
        return False
    if lock is None:
        _end_what_stands_still(place)
        return False
    with DEPLOYMENT_ERRORS.applied(f"start the supervisor of {place.name!r}"):
        try:
            if _has_successor(place):
                return True
            write_launcher(place)
            status = place.status()
            if status:  # what an earlier supervisor wrote is no longer so
                places.write(place.status_file, dataclasses.replace(status, generation=0, phase=places.STARTING))
            child = launch(place, lock, None, environment())
        finally:
            os.close(lock)
    # While this process lives the supervisor is its child: it is waited for, so that it leaves no zombie.
    threading.Thread(target=child.wait, name="supervisor", daemon=True).start()
    return True


def revive(place: Place, spec: Spec) -> None:
    """Start again what should run and does not: after a reboot, or when everything was killed."""
    if spec.desired == places.RUNNING:
        ensure_supervisor(place)


def remove(place: Place) -> None:
    """End whatever runs at a place, and remove it. Nothing happens where there is nothing.

    Raises:
        MlflowException: `TEMPORARILY_UNAVAILABLE` where it does not end in time.
    """
    if not place.folder.exists():
        return
    spec = place.spec()
    if spec is not None:
        place.workers.mkdir(exist_ok=True)
        places.write(place.spec_file, dataclasses.replace(spec, desired=places.DELETED, generation=spec.generation + 1))
    patience = (spec.drain_seconds if spec else 0.0) + GRACE_SECONDS + MARGIN_SECONDS
    until = time.monotonic() + patience
    while time.monotonic() < until:
        try:
            lock = try_lock(place.supervisor_lock)
        except FileNotFoundError:
            break
        if lock is None:
            time.sleep(LOOK_SECONDS)
            continue
        try:
            if spec is None or not _living(place):
                shutil.rmtree(place.folder, ignore_errors=True)
                return
        finally:
            os.close(lock)
        ensure_supervisor(place)
    if place.folder.exists():
        text = (
            f"The {spec.kind if spec else 'deployment'} {place.name!r} has not ended after {patience:g} s. Try again."
        )
        raise mlflow_error(text, "TEMPORARILY_UNAVAILABLE")


def _end_what_stands_still(place: Place) -> None:
    """End workers that hang where no supervisor can: one that was stopped just as it took over keeps the lock."""
    status, spec = place.status(), place.spec()
    if status is None or spec is None or not spec.hang_seconds or psutil.pid_exists(status.supervisor_pid):
        return
    for page in _living(place):
        silent = time.monotonic() - page.heartbeat
        if page.state in (State.STANDBY, State.SERVING) and silent > spec.hang_seconds:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(page.pid).kill()


def _has_successor(place: Place) -> bool:
    """Whether a worker lives that waits for the supervisor's lock: not one that ends, and none that stands still."""
    spec, now = place.spec(), time.monotonic()
    limit = spec.start_seconds if spec else 0.0
    for page in _living(place):
        if page.command == Command.DRAIN or page.state in (State.DRAINING, State.FAILED):
            continue
        loads = page.state in (State.STARTING, State.LOADING)
        if now - page.created < limit if loads else now - page.heartbeat < STILL_SECONDS:
            return True
    return False


def _living(place: Place) -> list[Page]:
    """The pages of the workers that live."""
    found = []
    for file in slot_files(place.workers):
        with suppress(FileNotFoundError):
            slot = Slot(file)
            try:
                if slot.is_occupied():
                    found.append(slot.page)
            finally:
                slot.close()
    return found


def stop(place: Place, spec: Spec) -> None:
    """End a deployment's processes, and keep it."""
    places.write(place.spec_file, dataclasses.replace(spec, desired=places.STOPPED, generation=spec.generation + 1))
    until = time.monotonic() + spec.drain_seconds + GRACE_SECONDS + MARGIN_SECONDS
    while time.monotonic() < until:
        lock = try_lock(place.supervisor_lock)
        if lock is not None:
            os.close(lock)
            if not _living(place):
                return
            ensure_supervisor(place)
        time.sleep(LOOK_SECONDS)
    raise mlflow_error(f"{place.name!r} has not ended. Try again.", "TEMPORARILY_UNAVAILABLE")


def start(place: Place, spec: Spec) -> None:
    """Start a stopped deployment, and wait until it serves."""
    apply(place, dataclasses.replace(spec, desired=places.RUNNING, generation=spec.generation + 1))


def describe(place: Place, spec: Spec) -> dict[str, Any]:
    """What `get_deployment` and `get_endpoint` show; no secret is in it."""
    status = place.status() or Status(0, places.STARTING, spec.host, spec.port)
    workers: dict[str, list[int]] = {"serving": [], "standby": [], "other": []}
    for file in slot_files(place.workers):
        page = read_page(file)
        if page is None or not page.pid:
            continue
        group = {State.SERVING: "serving", State.STANDBY: "standby"}.get(State(page.state), "other")
        workers[group].append(page.pid)
    return {
        "name": spec.name,
        **spec.shown,
        "status": status.phase,
        "url": status.url if status.port else None,
        "generation": spec.generation,
        "error": status.error or None,
        "restarts": status.restarts,
        "supervisor_pid": status.supervisor_pid or None,
        "workers": workers["serving"],
        "standby": workers["standby"],
        "other_workers": workers["other"],
        "folder": str(place.folder),
    }


def is_stopped(spec: Spec) -> bool:
    """Whether it was stopped on purpose."""
    return spec.desired == places.STOPPED


def log_text(place: Place, lines: int) -> str:
    """The last lines of each log, the one written last at the end."""
    files = sorted(place.logs.glob("*.log"), key=lambda file: file.stat().st_mtime)
    parts = [f"==> {file.stem} <==\n" + "\n".join(logs.tail(file, lines)) for file in files]
    return redact_text("\n\n".join(parts))
