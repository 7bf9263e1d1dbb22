"""CI system, workflow engine and scheduler: read from the environment, anew for each run."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from mlflow_run_context.tables import CI, SCHEDULERS, WORKFLOWS, System

Found = dict[str, str]
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


def ci(environ: Mapping[str, str] = os.environ) -> Found:
    """`ci.*` of the CI system and `workflow.*` of the workflow engine, the first of each table that is present."""
    found: Found = {}
    system = next(present(CI, environ), None)
    if system:
        found = {"ci.system": system.name} | rows(system, "ci", environ)
        if system.name == "github-actions" and {"ci.server", "ci.project", "ci.run"} <= found.keys():
            found["ci.url"] = f"{found['ci.server']}/{found['ci.project']}/actions/runs/{found['ci.run']}"
    engine = next(present(WORKFLOWS, environ), None)
    if engine:
        found |= {"workflow.system": engine.name} | rows(engine, "workflow", environ)
    return found


def scheduler(environ: Mapping[str, str] = os.environ) -> Found:
    """`scheduler`, the names of all that are present, and `<name>.*` of each: Ray runs on Kubernetes or in Slurm."""
    found: Found = {}
    names = []
    for system in present(SCHEDULERS, environ):
        names.append(system.name)
        found |= rows(system, system.name, environ)
    if names:
        found["scheduler"] = ", ".join(names)
    if "kubernetes" in names and "kubernetes.namespace" not in found and (namespace := _namespace()):
        found["kubernetes.namespace"] = namespace
    return found


def present(systems: Iterable[System], environ: Mapping[str, str]) -> Iterator[System]:
    """The systems of a table one of whose markers is set."""
    return (system for system in systems if any(environ.get(marker) for marker in system.markers))


def rows(system: System, prefix: str, environ: Mapping[str, str]) -> Found:
    """A system's tags."""
    found: Found = {}
    for tag, variables in system.rows.items():
        value = next((v for v in map(environ.get, variables) if v), None)
        if value:
            found[f"{prefix}.{tag}"] = value
    return found


def _namespace() -> str:
    try:
        with NAMESPACE_FILE.open("rb", buffering=0) as file:
            return file.read(300).decode("utf-8", "replace").strip()
    except OSError:
        return ""
