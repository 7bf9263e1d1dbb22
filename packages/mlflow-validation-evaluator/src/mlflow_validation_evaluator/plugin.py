"""What the entry point names: the standard library only, everything else on first use (PEP 562)."""

from __future__ import annotations

from typing import Any


def __getattr__(name: str) -> Any:
    if name != "ValidationEvaluator":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from mlflow_validation_evaluator.evaluator import ValidationEvaluator

    return ValidationEvaluator
