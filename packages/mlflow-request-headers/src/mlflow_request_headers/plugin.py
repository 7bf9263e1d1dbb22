"""What the entry point names. It is loaded with MLflow's HTTP client: the standard library only.

MLflow loads the class itself, so `__getattr__` imports its module when it is asked for (PEP 562).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {"RequestHeaders": "provider"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"mlflow_request_headers.{_HOMES[name]}"), name)
