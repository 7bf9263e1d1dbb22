"""The subprocess in which plugin code runs; started by `probe.Probe`, never imported by the command line.

It talks JSON lines: a request on standard input, events on what was its standard output. What MLflow and
plugins print goes nowhere. Sockets are refused before anything else is imported, unless the request is to
connect. Modes:

- `examine`: import MLflow without plugins, then load the entry points of each job that arrives, in a forked
  child where the platform can fork, so that one import of MLflow serves every plugin;
- `import`: import MLflow as a user would, with every plugin;
- `connect`: with sockets, ask the configured services for one experiment and one registered model.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from mlflow_plugkit.doctor import blocked

Emit = Callable[..., None]


def main() -> None:
    """Serve the request on standard input."""
    emit = _take_standard_output()
    request = json.loads(sys.stdin.readline())
    if request["mode"] != "connect":
        blocked.refuse_connections()
    {"examine": _examine, "import": _import, "connect": _connect}[request["mode"]](request, emit)


def _take_standard_output() -> Emit:
    channel = os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)

    def emit(event: str, **values: Any) -> None:
        os.write(channel, (json.dumps({"event": event, **values}, default=str) + "\n").encode())

    return emit


def _import(request: dict[str, Any], emit: Emit) -> None:
    try:
        importlib.import_module("mlflow")
    except BaseException as exc:  # noqa: BLE001 # SystemExit from a plugin is a finding, too
        emit("failed", **describe(exc))
        return
    emit("ready")


def _examine(request: dict[str, Any], emit: Emit) -> None:
    from mlflow_plugkit.doctor import builtins, inspection

    groups = builtins.hide_plugins()
    try:
        importlib.import_module("mlflow")
    except BaseException as exc:  # noqa: BLE001 # whatever it is, the report names it
        emit("failed", **describe(exc))
        return
    eager = sorted(groups)
    emit("ready", eager=eager, builtins=builtins.names(request["groups"]))
    for line in sys.stdin:
        job = json.loads(line)
        if job["fork"]:
            pid = os.fork()
            if pid == 0:
                os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
                _examine_entries(job, emit, inspection.inspect_object)
                os._exit(0)
            emit("forked", pid=pid)
            _, status = os.waitpid(pid, 0)
            emit("end", status=status)
        else:
            _examine_entries(job, emit, inspection.inspect_object)
            emit("end", status=0)


def _examine_entries(job: dict[str, Any], emit: Emit, inspect_object: Callable[..., dict[str, Any]]) -> None:
    for index, entry in enumerate(job["entries"]):
        emit("start", entry=index)
        before = len(blocked.ATTEMPTS)
        cpu, wall = time.process_time(), time.perf_counter()
        failure, loaded = _load(entry["object"])
        result: dict[str, Any] = {"failure": failure, "problems": [], "facts": {}}
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        if failure is None:
            result.update(inspect_object(entry["group"], entry["name"], loaded, job["inspect"]))
        # The cost is what `import mlflow` pays: loading, and making the providers that it makes.
        result["cpu_ms"] = (cpu + result["facts"].pop("made_cpu", 0)) * 1000
        result["wall_ms"] = (wall + result["facts"].pop("made_wall", 0)) * 1000
        result["attempts"] = blocked.ATTEMPTS[before:]
        emit("entry", entry=index, **result)


def _load(reference: str) -> tuple[dict[str, Any] | None, Any]:
    module_name, _, attributes = reference.partition("[")[0].strip().partition(":")
    try:
        loaded: Any = importlib.import_module(module_name.strip())
    except BaseException as exc:  # noqa: BLE001 # a plugin may raise anything; the kind decides the finding
        return {"stage": "import", **describe(exc)}, None
    try:
        for attribute in filter(None, attributes.strip().split(".")):
            loaded = getattr(loaded, attribute)
    except BaseException as exc:  # noqa: BLE001 # a module's __getattr__ may raise anything
        return {"stage": "attribute", **describe(exc)}, None
    return None, loaded


def describe(exc: BaseException) -> dict[str, Any]:
    """An exception as data: its class, whether MLflow's registries swallow it, and whether the network was missed."""
    chain: list[BaseException] = []
    link: BaseException | None = exc
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or link.__context__
    lines = str(exc).strip().splitlines()
    return {
        "type": type(exc).__name__,
        "text": lines[0] if lines else "",
        "swallowed": isinstance(exc, (ImportError, AttributeError)),
        "network": any(isinstance(e, blocked.ConnectionRefusedByDoctorError) for e in chain),
    }


def _connect(request: dict[str, Any], emit: Emit) -> None:
    """Answer one question a line: {"kind", "uri", "tracking_uri"}."""
    try:
        importlib.import_module("mlflow")
    except BaseException as exc:  # noqa: BLE001 # reported as the answer
        emit("failed", **describe(exc))
        return
    emit("ready")
    for line in sys.stdin:
        question = json.loads(line)
        started = time.perf_counter()
        answer: dict[str, Any]
        try:
            answer = {"ok": True, "text": _ask(question["kind"], question["uri"], question["tracking_uri"])}
        except BaseException as exc:  # noqa: BLE001 # the answer of the service is the result, whatever it is
            answer = {"ok": False, **describe(exc)}
        emit("answer", ms=(time.perf_counter() - started) * 1000, **answer)


def _ask(kind: str, uri: str, tracking_uri: str | None) -> str:
    from mlflow import MlflowClient

    if kind == "tracking":
        experiments = MlflowClient(tracking_uri=uri).search_experiments(max_results=1)
        return f"experiment {experiments[0].name!r}" if experiments else "no experiment yet"
    models = MlflowClient(tracking_uri=tracking_uri, registry_uri=uri).search_registered_models(max_results=1)
    return f"registered model {models[0].name!r}" if models else "no registered model yet"
