"""Loads the entry points of one distribution in a process of its own and reports what happened, as JSON.

`python -m mlflow_plugkit_testing.wheels_probe <mode> <distribution> <modules, comma-separated>`

Modes: `alone` imports the entry-point modules without MLflow and says which of the given modules came
along; `load` loads them beside MLflow, timed; `blocked` does so where the given modules cannot be imported.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint
from typing import Any

SCRIPTS = ("console_scripts", "gui_scripts")
SERVER_GROUPS = ("mlflow.app", "mlflow.app.client", *SCRIPTS)

# What MLflow has imported itself when it loads a group: not the plugin's cost.
_BASES = {
    "mlflow.deployments": "mlflow.deployments",
    "mlflow.model_evaluator": "mlflow.models.evaluation",
    "mlflow.project_backend": "mlflow.projects",
    "mlflow.request_auth_provider": "mlflow.tracking.request_auth.registry",
    "mlflow.request_header_provider": "mlflow.tracking.request_header.registry",
    "mlflow.gateway.providers": "mlflow.gateway.providers.base",
}
_PROVIDERS = {
    "mlflow.request_auth_provider": ("get_name", "get_auth"),
    "mlflow.request_header_provider": ("in_context", "request_headers"),
    "mlflow.run_context_provider": ("in_context", "tags"),
    "mlflow.default_experiment_provider": ("in_context", "get_experiment_id"),
    "mlflow.project_backend": ("run",),
    "mlflow.model_evaluator": ("can_evaluate", "evaluate"),
}
_Call = tuple[tuple[Any, ...], dict[str, Any]]
_CALLS: dict[str, list[_Call]] = {
    "mlflow.tracking_store": [((), {"store_uri": "", "artifact_uri": None})],
    "mlflow.artifact_repository": [
        (("",), {}),
        (("", None), {}),
        (("",), {"tracking_uri": None, "registry_uri": None}),
    ],
    "mlflow.scorer_store": [((), {"tracking_uri": ""})],
    "mlflow.labeling_store": [((), {"tracking_uri": ""})],
    "mlflow.workspace_provider": [((), {"workspace_uri": ""})],
    "mlflow.job_executors": [(({},), {})],
    **{group: [((), {})] for group in _PROVIDERS},
}


class Hiding:
    """Stands before a finder of `sys.meta_path` and finds none of the given top-level modules.

    Not found, rather than refused: `importlib.util.find_spec`, with which MLflow asks for its optional
    packages, must answer None as it does where they are not installed.
    """

    def __init__(self, finder: Any, names: frozenset[str]) -> None:
        self.finder = finder
        self.names = names

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """What the finder finds, unless the module is hidden."""
        return None if name.partition(".")[0] in self.names else self.finder.find_spec(name, path, target)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.finder, name)


@contextmanager
def hidden(names: Iterable[str]) -> Iterator[None]:
    """A context in which the given top-level modules seem not to be installed."""
    before = list(sys.meta_path)
    sys.meta_path[:] = [Hiding(finder, frozenset(names)) for finder in before]  # type: ignore[misc] # delegates the rest
    try:
        yield
    finally:
        sys.meta_path[:] = before


def points_of(distribution: str) -> list[EntryPoint]:
    """The distribution's entry points that MLflow or the user's shell load."""
    found = importlib.metadata.distribution(distribution).entry_points
    return [p for p in found if p.group.startswith("mlflow.") or p.group in SCRIPTS]


def import_mlflow_without_plugins() -> None:
    """Import MLflow with its own entry points only, so that no plugin is loaded with it."""
    every: Callable[..., Any] = importlib.metadata.entry_points

    def own(**params: Any) -> Any:
        kept = [p for p in every(**params) if p.dist is not None and p.dist.name in ("mlflow", "mlflow-skinny")]
        return importlib.metadata.EntryPoints(kept)

    importlib.metadata.entry_points = own  # type: ignore[assignment] # MLflow calls it with group= only
    import mlflow  # noqa: F401 # imported for its effect


def probe_alone(distribution: str, forbidden: list[str]) -> dict[str, Any]:
    """Which forbidden modules each entry-point module brings, and whether it needs MLflow at import."""
    modules = sorted({p.module for p in points_of(distribution) if p.group not in SERVER_GROUPS})
    results: dict[str, Any] = {}
    waiting = []
    with hidden(["mlflow"]):
        for module in modules:
            if _failure(lambda module=module: importlib.import_module(module)):  # type: ignore[misc] # bound per turn
                waiting.append(module)
            else:
                results[module] = sorted(set(forbidden) & sys.modules.keys())
    if waiting:
        import_mlflow_without_plugins()
    before = set(sys.modules)
    for module in waiting:
        _failure(lambda module=module: importlib.import_module(module))  # type: ignore[misc] # reported by `load`
        results[module] = sorted(set(forbidden) & (sys.modules.keys() - before))
    return {"forbidden": {module: found for module, found in results.items() if found}}


def probe_load(distribution: str, _: list[str]) -> dict[str, Any]:
    """What loading, timing and the signatures of the entry points say, and the names that MLflow has itself."""
    points = points_of(distribution)
    import_mlflow_without_plugins()
    for base in {_BASES[p.group] for p in points if p.group in _BASES}:
        _failure(lambda base=base: importlib.import_module(base))  # type: ignore[misc] # absent in some MLflows
    loaded: dict[str, Any] = {}
    errors: dict[str, list[str]] = {}
    start = time.process_time()
    for point in sorted(points, key=lambda p: p.group in SERVER_GROUPS):
        if point.group in SERVER_GROUPS and "cost_ms" not in loaded:
            loaded["cost_ms"] = (time.process_time() - start) * 1000
        error = _failure(lambda point=point: loaded.__setitem__(_key(point), point.load()))  # type: ignore[misc]
        if error is not None:
            errors[_key(point)] = error
    cost = loaded.pop("cost_ms", (time.process_time() - start) * 1000)
    found = {_key(p): loaded[_key(p)] for p in points if _key(p) in loaded}
    contracts = {_key(p): contract(p, found[_key(p)]) for p in points if _key(p) in found}
    made = {
        key: error
        for key, thing in found.items()
        if key.partition(":")[0] in _PROVIDERS and (error := _failure(thing)) is not None
    }
    return {
        "errors": errors,
        "cost_ms": cost,
        "contracts": {key: problems for key, problems in contracts.items() if problems},
        "constructors": made,
        "builtins": builtin_names(),
    }


def probe_blocked(distribution: str, blocked: list[str]) -> dict[str, Any]:
    """What the entry points raise where the given modules are not installed."""
    points = [p for p in points_of(distribution) if p.group not in SERVER_GROUPS]
    with hidden(blocked):
        import_mlflow_without_plugins()
        errors = {_key(p): _failure(p.load) for p in points}
    return {"errors": {key: error for key, error in errors.items() if error is not None}}


def contract(point: EntryPoint, found: Any) -> list[str]:
    """How an entry point's object differs from what MLflow does with it."""
    if point.group == "mlflow.deployments":
        return _deployment_contract(found)
    if point.group == "mlflow.dataset_constructor":
        return _constructor_contract(point.name, found)
    if point.group == "mlflow.app":
        return [] if point.attr and callable(found) else ["must be a callable, named as module:object"]
    if not callable(found):
        return ["must be a class or a function"]
    problems = [f"cannot be called as {text}" for text in _refused_calls(point.group, found)]
    methods = _PROVIDERS.get(point.group, ())
    if inspect.isclass(found):
        problems += [f"has no method {name}" for name in methods if not callable(getattr(found, name, None))]
    return problems


def builtin_names() -> dict[str, list[str]]:
    """The names that MLflow serves without any plugin, by group."""
    from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
    from mlflow.tracking._model_registry.utils import _get_store_registry
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    names: dict[str, set[str]] = {
        "mlflow.artifact_repository": set(_artifact_repository_registry._registry),
        "mlflow.tracking_store": set(_tracking_store_registry._registry),
        "mlflow.model_registry_store": set(_get_store_registry()._registry),
        "mlflow.project_backend": {"local", "databricks"},
    }
    for distribution in ("mlflow", "mlflow-skinny"):
        try:
            points = importlib.metadata.distribution(distribution).entry_points
        except importlib.metadata.PackageNotFoundError:
            continue
        for point in points:
            names.setdefault(point.group, set()).add(point.name)
    return {group: sorted(found) for group, found in names.items()}


def _refused_calls(group: str, found: Any) -> list[str]:
    signature = inspect.signature(found)
    calls = _CALLS.get(group, [])
    if group == "mlflow.model_registry_store":
        both = {"store_uri", "tracking_uri"} <= signature.parameters.keys()
        calls = [((), {"store_uri": "", "tracking_uri": ""} if both else {"store_uri": ""})]
    refused = []
    for args, kwargs in calls:
        try:
            signature.bind(*args, **kwargs)
        except TypeError as exc:
            refused.append(f"({', '.join(['...'] * len(args) + [f'{name}=' for name in kwargs])}): {exc}")
    return refused


def _deployment_contract(module: Any) -> list[str]:
    from mlflow.deployments import BaseDeploymentClient

    if not inspect.ismodule(module):
        return ["must name a module, not an object in it"]
    problems = [f"has no function {name}" for name in ("target_help", "run_local") if not hasattr(module, name)]
    clients = [
        thing
        for _, thing in inspect.getmembers(module)  # as MLflow looks: a module may have a __dir__ of its own
        if inspect.isclass(thing) and issubclass(thing, BaseDeploymentClient) and thing is not BaseDeploymentClient
    ]
    return problems if len(clients) == 1 else [*problems, f"must show one deployment client, not {len(clients)}"]


def _constructor_contract(name: str, function: Any) -> list[str]:
    from mlflow.data.dataset import Dataset

    problems = [] if name.startswith(("from_", "load_")) else ["its name must start with from_ or load_"]
    signature = inspect.signature(function)
    problems += [f"has no parameter {wanted}" for wanted in ("name", "digest") if wanted not in signature.parameters]
    answer = signature.return_annotation
    if not (inspect.isclass(answer) and issubclass(answer, Dataset)):
        problems.append("its return annotation must be a Dataset subclass itself, not a string")
    return problems


def _key(point: EntryPoint) -> str:
    return f"{point.group}:{point.name}"


def _failure(call: Callable[[], Any]) -> list[str] | None:
    """The class, its bases, the message and the module that was missing, of what a call raises."""
    try:
        call()
    except Exception as exc:  # noqa: BLE001 # judged by the rules
        kind = "ImportError" if isinstance(exc, (ImportError, AttributeError)) else type(exc).__name__
        return [kind, f"{type(exc).__name__}: {exc}"[:400], getattr(exc, "name", None) or ""]
    return None


if __name__ == "__main__":
    _mode, _distribution, _names = sys.argv[1:]
    _probe = {"alone": probe_alone, "load": probe_load, "blocked": probe_blocked}[_mode]
    sys.stdout.write("\n" + json.dumps(_probe(_distribution, [n for n in _names.split(",") if n])) + "\n")
