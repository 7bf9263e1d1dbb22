"""The indices of the installed store packages, found by an entry-point group, so that no package imports another.

A package lists its `Index` constants, or the modules that hold them:

    [project.entry-points."mlflow_plugkit.elasticsearch_indices"]
    registry = "mlflow_elasticsearch_registry.indices:INDICES"
    tracking = "mlflow_elasticsearch_tracking.indices"
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.schema import Index

GROUP = "mlflow_plugkit.elasticsearch_indices"


def installed_indices() -> list[Index]:
    """All indices of the installed packages, by name; one that several packages share stands once.

    Raises:
        MlflowException: `INVALID_STATE` where two packages describe an index differently, or none is installed.
    """
    found: dict[str, Index] = {}
    for entry in entry_points(group=GROUP):
        for index in _listed(entry.load()):
            if found.setdefault(index.name, index) != index:
                raise mlflow_error(
                    f"Two installed packages describe the index {index.name!r} differently ({entry.value} is one). "
                    "Install versions of the Elasticsearch stores that belong together.",
                    "INVALID_STATE",
                )
    if not found:
        raise mlflow_error(
            "No Elasticsearch store is installed. Install mlflow-elasticsearch-tracking, "
            "mlflow-elasticsearch-registry, or both.",
            "INVALID_STATE",
        )
    return [found[name] for name in sorted(found)]


def _listed(loaded: Any) -> Iterable[Index]:
    if isinstance(loaded, ModuleType):
        return [value for value in vars(loaded).values() if isinstance(value, Index)]
    return list(loaded)
