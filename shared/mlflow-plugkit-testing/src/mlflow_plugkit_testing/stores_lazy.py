"""MLflow's own database stores, made lazy: correct stores against which the kit's rules are held.

They take SQLAlchemy URIs through the constructor arguments of a plugin, and do on first use what
MLflow's constructors do at once: connect, migrate, and create the default experiment.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from mlflow.store.model_registry.abstract_store import AbstractStore as AbstractRegistryStore
from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore as SqlRegistryStore
from mlflow.store.tracking.abstract_store import AbstractStore as AbstractTrackingStore
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore as SqlTrackingStore

from mlflow_plugkit.errors import not_implemented
from mlflow_plugkit_testing.stores import unanswered_members
from mlflow_plugkit_testing.stores_sqlite import opening

_first_use = threading.RLock()  # for all stores of the process: two on one file would migrate it together


class _Lazy:
    _opening = False

    def _open(self) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        """Open the store at the first access to an attribute that only MLflow's constructor sets."""
        if name.startswith("__"):
            raise AttributeError(name)
        with _first_use:
            if name not in vars(self):
                if self._opening:
                    raise AttributeError(name)
                self._opening = True
                try:
                    self._open()
                finally:
                    self._opening = False
        return object.__getattribute__(self, name)


class LazyTrackingStore(_Lazy, SqlTrackingStore):  # type: ignore[misc]
    """The tracking store; `artifact_uri` None means `mlruns` in the working directory."""

    def __init__(self, store_uri: str, artifact_uri: str | None = None) -> None:
        self._settings = (store_uri, artifact_uri or "mlruns")

    def _open(self) -> None:
        with opening(self, self._settings[0]):
            SqlTrackingStore.__init__(self, *self._settings)


class LazyRegistryStore(_Lazy, SqlRegistryStore):  # type: ignore[misc]
    """The model registry store."""

    def __init__(self, store_uri: str, tracking_uri: str | None = None) -> None:
        self._settings = (store_uri,)

    def __getstate__(self) -> dict[str, Any]:
        """Pickle the settings only: the copy opens its own connection."""
        return {"_settings": self._settings}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)

    def _open(self) -> None:
        with opening(self, self._settings[0]):
            SqlRegistryStore.__init__(self, *self._settings)


def _answer(name: str) -> Callable[..., Any]:
    def member(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise not_implemented(name, "MLflow's own database store does not offer it")

    member.__name__ = name
    return member


def _answer_all(store: type[Any], base: type[Any]) -> None:
    for entry in unanswered_members(store, base):
        name = entry.partition(" ")[0]
        setattr(store, name, _answer(name))


_answer_all(LazyTrackingStore, AbstractTrackingStore)
_answer_all(LazyRegistryStore, AbstractRegistryStore)
