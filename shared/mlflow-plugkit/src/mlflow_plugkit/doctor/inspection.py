"""In the probe: does a loaded object meet what MLflow asks of its entry-point group?

Each check returns problems as (rule id, detail) pairs. Objects are called only where MLflow calls them while
it registers them: the provider classes, which it makes without arguments.
"""

from __future__ import annotations

import inspect
import time
import types
from collections.abc import Callable
from typing import Any

Problem = tuple[str, str]

_URI = "scheme://host"
_PROVIDERS: dict[str, tuple[str, ...]] = {
    "mlflow.run_context_provider": ("in_context", "tags"),
    "mlflow.default_experiment_provider": ("in_context", "get_experiment_id"),
    "mlflow.request_header_provider": ("in_context", "request_headers"),
    "mlflow.request_auth_provider": ("get_name", "get_auth"),
}
# What MLflow passes, by group (see the registry classes named after the groups in MLflow's source).
_CALLS: dict[str, dict[str, str | None]] = {
    "mlflow.tracking_store": {"store_uri": _URI, "artifact_uri": None},
    "mlflow.scorer_store": {"tracking_uri": _URI},
    "mlflow.labeling_store": {"tracking_uri": _URI},
    "mlflow.workspace_provider": {"workspace_uri": _URI},
    "mlflow.project_backend": {},
    "mlflow.model_evaluator": {},
}
_FILE_STORES = ("mlflow.store.tracking.file_store", "mlflow.store.model_registry.file_store")


def inspect_object(group: str, name: str, loaded: Any, passed: dict[str, list[str]]) -> dict[str, Any]:
    """The problems of one object, and facts that checks across plugins need.

    Args:
        group: of the entry point.
        name: of the entry point.
        loaded: what it names.
        passed: "artifact": the keyword arguments that the installed MLflow passes to artifact repositories.
    """
    facts: dict[str, Any] = {}
    problems: list[Problem] = []
    if group in _CALLS:
        problems += _call_problems(loaded, _CALLS[group])
    if group in _PROVIDERS:
        problems += _provider(group, loaded, facts)
    checks: dict[str, Callable[[], list[Problem]]] = {
        "mlflow.model_registry_store": lambda: _registry_store(loaded),
        "mlflow.artifact_repository": lambda: _artifact_repository(loaded, passed["artifact"]),
        "mlflow.deployments": lambda: _deployments(loaded),
        "mlflow.app": lambda: _app(loaded),
        "mlflow.dataset_constructor": lambda: _dataset_constructor(name, loaded),
    }
    if group in checks:
        problems += checks[group]()
    if group in ("mlflow.tracking_store", "mlflow.model_registry_store") and _is_file_store(loaded):
        problems.append(("file-store-refused", f"{loaded.__name__} derives from MLflow's FileStore"))
    return {"problems": problems, "facts": facts}


def _call_problems(loaded: Any, keywords: dict[str, str | None], *positional: str) -> list[Problem]:
    if not callable(loaded):
        return [("factory-signature", f"it is a {type(loaded).__name__}, which cannot be called")]
    reason = _refusal(loaded, keywords, *positional)
    if reason is None:
        return []
    arguments = ", ".join([*positional, *(f"{k}=..." for k in keywords)])
    return [("factory-signature", f"MLflow calls it as ({arguments}), but it does not take that: {reason}")]


def _refusal(loaded: Any, keywords: dict[str, Any], *positional: str) -> str | None:
    try:
        signature = inspect.signature(loaded)
    except (TypeError, ValueError):  # a callable without a readable signature is given the benefit of the doubt
        return None
    try:
        signature.bind(*positional, **keywords)
    except TypeError as exc:
        return str(exc)
    return None


def _registry_store(loaded: Any) -> list[Problem]:
    try:
        names = set(inspect.signature(loaded).parameters)
    except (TypeError, ValueError):
        names = set()
    keywords: dict[str, str | None] = {"store_uri": _URI}
    if {"store_uri", "tracking_uri"} <= names:
        keywords["tracking_uri"] = _URI
    return _call_problems(loaded, keywords)


def _artifact_repository(loaded: Any, passed: list[str]) -> list[Problem]:
    if not callable(loaded):
        return _call_problems(loaded, {})
    for keywords in (passed, ["tracking_uri", "registry_uri"]):
        reason = _refusal(loaded, dict.fromkeys(keywords, _URI), _URI)
        if reason is not None:
            now = "now" if keywords is passed else "newer"
            return [("artifact-repository-signature", f"{now}:{reason}")]
    return []


def _is_file_store(loaded: Any) -> bool:
    return isinstance(loaded, type) and any(base.__module__ in _FILE_STORES for base in loaded.__mro__)


def _provider(group: str, loaded: Any, facts: dict[str, Any]) -> list[Problem]:
    from mlflow_plugkit.doctor.child import describe

    cpu, wall = time.process_time(), time.perf_counter()
    try:
        provider = loaded()
        facts.update(made_cpu=time.process_time() - cpu, made_wall=time.perf_counter() - wall)
    except BaseException as exc:  # noqa: BLE001 # MLflow makes it in the same way, and meets the same exception
        failure = describe(exc)
        if failure["network"]:
            return [("entry-point-needs-network", f"making {_name(loaded)}() opens a connection")]
        return [("provider-constructor", f"{_name(loaded)}() raises {failure['type']}: {failure['text']}")]
    missing = [m for m in _PROVIDERS[group] if not callable(getattr(provider, m, None))]
    if missing:
        return [("provider-methods-missing", f"{_name(loaded)} has no method {', '.join(missing)}")]
    if group == "mlflow.request_auth_provider":
        facts["auth_name"] = _quietly(provider.get_name)
    if group == "mlflow.request_header_provider" and _quietly(provider.in_context):
        facts["headers"] = [str(h) for h in _quietly(provider.request_headers) or {}]
    return []


def _quietly(call: Callable[[], Any]) -> Any:
    """The result of a provider's method, or None: without a network it may rightly raise, and MLflow logs it."""
    try:
        return call()
    except Exception:  # noqa: BLE001 # see above
        return None


def _deployments(loaded: Any) -> list[Problem]:
    from mlflow.deployments.base import BaseDeploymentClient

    rule = "deployment-plugin-shape"
    members = dict(inspect.getmembers(loaded))
    missing = [n for n in ("run_local", "target_help") if n not in members]
    clients = [
        n
        for n, m in members.items()
        if inspect.isclass(m) and issubclass(m, BaseDeploymentClient) and m is not BaseDeploymentClient
    ]
    if missing:
        kind = (
            "the module" if isinstance(loaded, types.ModuleType) else f"it is a {type(loaded).__name__}, no module, and"
        )
        return [(rule, f"{kind} has no {' and no '.join(missing)}")]
    if len(clients) != 1:
        found = ", ".join(clients) or "none"
        return [(rule, f"it must show exactly one subclass of BaseDeploymentClient, and shows {found}")]
    return []


def _app(loaded: Any) -> list[Problem]:
    """A factory is not called: it may create databases. Its return annotation is read instead."""
    if isinstance(loaded, types.FunctionType):
        returned = loaded.__annotations__.get("return")
        name = returned if isinstance(returned, str) else f"{getattr(returned, '__module__', '')}.Flask"
        is_flask = name.split(".")[-1] == "Flask" if isinstance(returned, str) else _derives_from_flask(returned)
        return [("app-not-asgi", f"the factory {_name(loaded)} returns a Flask application")] if is_flask else []
    if _derives_from_flask(type(loaded)):
        return [("app-not-asgi", "it is a Flask application")]
    return []


def _derives_from_flask(cls: Any) -> bool:
    return isinstance(cls, type) and any(c.__module__ == "flask.app" and c.__name__ == "Flask" for c in cls.__mro__)


def _dataset_constructor(name: str, loaded: Any) -> list[Problem]:
    from mlflow.data.dataset import Dataset

    rule = "dataset-constructor-refused"
    if not name.startswith(("from_", "load_")):
        return [(rule, f"the name {name!r} starts with neither 'from_' nor 'load_'")]
    if not callable(loaded):
        return [(rule, f"it is a {type(loaded).__name__}, which cannot be called")]
    signature = inspect.signature(loaded)
    by_keyword = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    missing = [p for p in ("name", "digest") if getattr(signature.parameters.get(p), "kind", None) not in by_keyword]
    if missing:
        return [(rule, f"it has no parameter {' and no parameter '.join(missing)}")]
    returned = signature.return_annotation
    if isinstance(returned, str):
        return [(rule, f"its return annotation is the string {returned!r}, not the class")]
    if not (isinstance(returned, type) and issubclass(returned, Dataset)):
        return [(rule, "its return annotation is missing or no subclass of mlflow.data.dataset.Dataset")]
    return []


def _name(loaded: Any) -> str:
    return str(getattr(loaded, "__name__", type(loaded).__name__))
