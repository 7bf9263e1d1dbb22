"""The method ledger: what becomes of every member of MLflow's abstract store.

Each is implemented, inherited on purpose, or answers 501 with a reason. Anything else is a gap: MLflow's bases do not
enforce their abstract methods, so a missing one would silently return None.

    python -m mlflow_plugkit_elasticsearch.ledger mlflow_elasticsearch_tracking.inventory

prints the ledger of the installed MLflow as JSON. The named module has `STORE`, `BASE`, `INHERITED` and `HIDDEN`.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Iterable, Mapping
from importlib import import_module
from typing import Any, Literal, NamedTuple

Verdict = Literal["implemented", "inherited", "501", "missing"]


class Row(NamedTuple):
    """One member.

    Attributes:
        name: the method or property.
        verdict: what becomes of it.
        note: why it is inherited or answers 501; "" otherwise.
    """

    name: str
    verdict: Verdict
    note: str = ""


def ledger(store: type, base: type, inherited: Mapping[str, str], hidden: Iterable[str] = ()) -> list[Row]:
    """The ledger of a store, by name.

    Args:
        store: our store.
        base: MLflow's abstract store.
        inherited: members of the base that are right as they are, and why.
        hidden: methods that MLflow calls without declaring them.
    """
    return [_row(store, base, name, inherited) for name in sorted({*members(base), *hidden})]


def members(base: type) -> list[str]:
    """The members of MLflow's abstract store and its mixins, without what every object has."""
    return [name for name in dir(base) if not name.startswith("__") and not hasattr(object, name)]


def signature_differences(store: type, base: type) -> list[str]:
    """Where a method of ours could not be called as the base's: each as a sentence."""
    found = []
    for name in members(base):
        ours, theirs = inspect.getattr_static(store, name, None), inspect.getattr_static(base, name)
        if ours is theirs or ours is None or hasattr(ours, "refusal"):
            continue
        if isinstance(theirs, property) != isinstance(ours, property):
            found.append(f"{name} is a property in only one of them")
        elif inspect.isfunction(theirs) and (problem := _problem(ours, theirs)):
            found.append(f"{name}: {problem}")
    return found


def _row(store: type, base: type, name: str, inherited: Mapping[str, str]) -> Row:
    ours = inspect.getattr_static(store, name, None)
    if ours is None:
        return Row(name, "missing", "MLflow calls it, and the store has none")
    if reason := getattr(ours, "refusal", ""):
        return Row(name, "501", reason)
    if ours is not inspect.getattr_static(base, name, None):
        return Row(name, "implemented")
    return (
        Row(name, "inherited", inherited[name]) if name in inherited else Row(name, "missing", "only the base has it")
    )


def _problem(ours: Any, theirs: Any) -> str:
    own, base = inspect.signature(ours).parameters, inspect.signature(theirs).parameters
    takes_all = any(p.kind is p.VAR_KEYWORD for p in own.values())
    for position, (name, parameter) in enumerate(base.items()):
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        mine = own.get(name)
        if mine is None:
            if takes_all and parameter.kind is parameter.KEYWORD_ONLY:
                continue
            return f"lacks the parameter {name!r}"
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and list(own).index(name) != position:
            return f"has {name!r} at another place"
        if parameter.default is not parameter.empty and mine.default is mine.empty:
            return f"requires {name!r}, which has a default in MLflow"
    extra = [n for n, p in own.items() if n not in base and p.default is p.empty and p.kind not in (2, 4)]
    return f"requires {', '.join(extra)}, which MLflow does not pass" if extra else ""


def main() -> None:
    """Print the ledger of the installed MLflow."""
    module: Any = import_module(sys.argv[1])
    rows = ledger(module.STORE, module.BASE, module.INHERITED, module.HIDDEN)
    sys.stdout.write(json.dumps([list(row) for row in rows]) + "\n")


if __name__ == "__main__":
    main()
