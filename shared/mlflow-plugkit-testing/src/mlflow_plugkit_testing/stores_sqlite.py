"""MLflow's own database store on fresh SQLite files, as the oracle that other stores are compared with.

Migrating an empty file takes MLflow a second or more, so it is done once in a process; each fresh
database is a copy of that file.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any


@lru_cache(maxsize=1)
def _template() -> Path:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry

    folder = Path(tempfile.mkdtemp(prefix="plugkit-template-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    path = folder / "template.db"
    engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{path}")
    _initialize_tables(engine)
    engine.dispose()
    return path


def fresh_sqlite_uri(folder: Path) -> str:
    """The URI of a new SQLite file in `folder` that has MLflow's tables and no row."""
    handle, name = tempfile.mkstemp(suffix=".db", dir=folder)
    with open(handle, "wb") as target, _template().open("rb") as source:
        shutil.copyfileobj(source, target)
    return f"sqlite:///{name}"


def sqlite_tracking_store(folder: Path) -> Any:
    """MLflow's `SqlAlchemyStore` of the tracking service on a fresh SQLite file."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(fresh_sqlite_uri(folder), str(folder / "artifacts"))


def sqlite_registry_store(folder: Path) -> Any:
    """MLflow's `SqlAlchemyStore` of the model registry on a fresh SQLite file."""
    from mlflow.store.model_registry.sqlalchemy_store import SqlAlchemyStore

    return SqlAlchemyStore(fresh_sqlite_uri(folder))


def own_tracking_store_refuses(folder: Path, call: Callable[[Any], object]) -> bool:
    """Whether the installed MLflow's own store raises `MlflowException` for a call."""
    from mlflow.exceptions import MlflowException

    own = sqlite_tracking_store(folder)
    try:
        call(own)
    except MlflowException:
        return True
    finally:
        dispose(own)
    return False


def dispose(store: Any) -> None:
    """Close what a store keeps open, if it is a database store of MLflow and was used."""
    engine = vars(store).get("engine")
    if engine is not None:
        engine.dispose()
        engines = getattr(type(store), "_engine_map", None)
        if engines is not None:
            engines.pop(vars(store).get("db_uri"), None)
