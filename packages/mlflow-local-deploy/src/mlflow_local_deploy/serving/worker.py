"""A worker: loads what its revision says, waits until it is told to serve, and ends without failing a request."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import socket
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn

from mlflow_local_deploy.place import Place
from mlflow_local_deploy.serving.gate import Gate
from mlflow_local_deploy.slots import Command, Page, Slot, State
from mlflow_local_deploy.succession import Candidate

TICK_SECONDS = 0.05
#: How long a worker that ends keeps idle connections, answering with `Connection: close`: the time for their clients to
#: come back and hear it. What stays idle for longer is closed.
IDLE_SECONDS = 2.0
#: Longer than what clients keep, so that they and not the worker close an idle connection.
KEEP_ALIVE_SECONDS = 75


class Listener(socket.socket):
    """The deployment's socket, of which each worker has a copy. The supervisor has set the length of its queue."""

    def listen(self, backlog: int = 0, /) -> None:
        """Leave the queue as it is."""


class WorkerServer(uvicorn.Server):
    """uvicorn, told by the worker's page when to serve and when to end."""

    def __init__(self, config: uvicorn.Config, gate: Gate, page: Page, candidate: Candidate) -> None:
        super().__init__(config)
        self._gate, self._page, self._candidate = gate, page, candidate

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Wait until told to serve."""
        self._page.state = State.STANDBY
        while self._page.command == Command.WAIT and not self.should_exit:
            self._page.heartbeat = time.monotonic()
            await asyncio.sleep(TICK_SECONDS)
        if self._page.command == Command.DRAIN or self.should_exit:
            self.should_exit = True
            return
        await super().startup(sockets)
        self._page.state = State.SERVING

    async def on_tick(self, counter: int) -> bool:
        """Tell how it is, ten times a second; look whether to end."""
        self._page.heartbeat = time.monotonic()
        self._page.connections = len(self.server_state.connections)
        if self._page.command == Command.DRAIN:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept nothing more; let clients come back on their connections once and take leave of them."""
        self._candidate.withdraw()
        self._page.state = State.DRAINING
        self._page.drain_since = self._page.drain_since or time.monotonic()
        for server in self.servers:
            server.close()
        self._gate.closes = True
        until = time.monotonic() + IDLE_SECONDS
        while self.server_state.connections and time.monotonic() < until:
            self._page.connections = len(self.server_state.connections)
            await asyncio.sleep(TICK_SECONDS)
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """End in order, also when asked twice: the supervisor is who may be impatient."""
        self.should_exit = True


def application(place: Place, about: dict[str, Any], page: Page) -> Gate:
    """What a revision serves: a model, or an endpoint's router."""
    if about["kind"] == "endpoint":
        from mlflow_local_deploy.serving.router import Router

        return Gate(Router(place, about, page), place, about, page)
    from mlflow_local_deploy.serving.model import ModelApp

    return Gate(ModelApp(about), place, about, page)


def serve(place: Place, slot: Slot, listen_fd: int, candidate: Candidate) -> None:
    """Load, wait, serve, drain."""
    page = slot.page
    page.state = State.LOADING
    began = time.monotonic()
    about = place.revision(slot.revision)
    gate = application(place, about, page)
    page.load_seconds = time.monotonic() - began
    config = uvicorn.Config(
        gate,
        log_level="warning" if not about["access_log"] else "info",
        access_log=about["access_log"],
        # asyncio accepts as many connections at a time as its backlog: one, so that the other workers get theirs.
        # uvloop hands the number to the system, as the length of the queue.
        backlog=2048 if importlib.util.find_spec("uvloop") else 1,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=max(round(about["drain_seconds"]), 1),
        server_header=False,
    )
    listener = Listener(fileno=listen_fd)
    WorkerServer(config, gate, page, candidate).run(sockets=[listener])


def main(folder: str, identity: str, listen_fd: int, environ: dict[str, str]) -> None:
    """What `boot.py` runs."""
    os.set_inheritable(listen_fd, False)
    place = Place(Path(folder))
    try:
        slot = Slot(place.workers / identity)
        slot.occupy()
    except FileNotFoundError:
        sys.exit(0)  # given up before it had begun
    os.register_at_fork(after_in_child=slot.close)
    candidate = Candidate(place, listen_fd, environ)
    candidate.start()
    try:
        serve(place, slot, listen_fd, candidate)
    except BaseException as exc:  # noqa: BLE001 # a model's code may raise anything: the supervisor gets to know what
        candidate.withdraw()
        if not isinstance(exc, (KeyboardInterrupt, SystemExit)):
            traceback.print_exc()
            slot.page.error = _in_words(exc).encode()[:3999]
            slot.page.state = State.FAILED
        raise SystemExit(3) from None


def _in_words(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}"[:3000]
