"""Optional packages: imported on first use, with a sentence that says how to get them."""

from __future__ import annotations

import importlib
from types import ModuleType

from mlflow_plugkit.errors import mlflow_error


def require(module: str, *, distribution: str, extra: str | None = None) -> ModuleType:
    """Import a module that a plugin needs but MLflow does not bring.

    Args:
        module: full name, such as `oss2` or `sqlalchemy.dialects.mssql`.
        distribution: the plugin's own name on the package index.
        extra: the plugin's extra that installs the module, where there is one.

    Raises:
        MlflowException: `FEATURE_DISABLED`, with the `pip install` command; the ImportError is its
            cause. A module that is there but fails in its own imports says so, too.
    """
    try:
        return importlib.import_module(module)
    except ImportError as exc:
        wanted = f"{distribution}[{extra}]" if extra else distribution
        missing = exc.name or module
        raise mlflow_error(
            f"{distribution} needs the Python package {missing!r}, which could not be imported ({exc}). "
            f"Install it with: pip install '{wanted}'",
            "FEATURE_DISABLED",
        ) from exc
