"""Findings about loading entry points, and about what the loaded objects are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from packaging.version import Version

from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.environment import is_true
from mlflow_plugkit.doctor.findings import Finding
from mlflow_plugkit.doctor.installed import PluginEntryPoint
from mlflow_plugkit.doctor.probe import EntryResult

_REFERENCE = re.compile(r"[\w.]+\s*(:\s*[\w.]+\s*)?(\[.*\])?\s*")
_UVICORN_SINCE, _FILE_STORE_REFUSED_SINCE = Version("3.3"), Version("3.14")
_BREAKS_IMPORT = "this breaks `import mlflow` for everyone"


def is_well_formed(entry: PluginEntryPoint) -> bool:
    """Whether its object reference can be parsed (packaging.python.org, entry points specification)."""
    needs_object = entry.group == "mlflow.app"  # MLflow splits the text itself at ":"
    return bool(_REFERENCE.fullmatch(entry.object)) and (not needs_object or ":" in entry.object)


def check(ctx: Context) -> Iterator[Finding]:
    """One pass over all entry points."""
    for entry in ctx.installed.entry_points:
        if not is_well_formed(entry):
            yield ctx.about("entry-point-malformed", entry, f"Its object reference {entry.object!r} cannot be parsed.")
            continue
        result = ctx.results.get(entry)
        if result is None:
            continue
        yield from _loading(ctx, entry, result)
        yield from _shape(ctx, entry, result)
    yield from _slow(ctx)


def breaks_import(ctx: Context) -> bool:
    """Whether broken metadata or an eager entry point explains by itself that `import mlflow` fails."""
    if ctx.installed.broken:
        return True
    for entry, result in ctx.results.items():
        swallowed = result.failure is not None and result.failure["swallowed"]
        bad = result.ended or result.problems or (result.failure is not None and not swallowed)
        if entry.group in ctx.eager and bad:
            return True
    return False


def _loading(ctx: Context, entry: PluginEntryPoint, result: EntryResult) -> Iterator[Finding]:
    eager = entry.group in ctx.eager
    reach = _BREAKS_IMPORT if eager else "MLflow fails where it first uses it"
    if result.ended:
        rule = "entry-point-hangs" if result.ended == "hangs" else "entry-point-kills-python"
        detail = "did not end within the time limit" if result.ended == "hangs" else f"ended Python ({result.ended})"
        yield ctx.about(rule, entry, f"Loading {entry.object} {detail}; {reach}.")
        return
    failure = result.failure
    if failure is None:
        if result.attempts and not any(rule == "entry-point-needs-network" for rule, _ in result.problems):
            yield ctx.about("connects-on-import", entry, f"Loading {entry.object} connects to {result.attempts[0]}.")
        return
    told = f"{failure['type']}: {failure['text']}"
    if failure["network"]:
        yield ctx.about("entry-point-needs-network", entry, f"Loading {entry.object} needs a connection ({told}).")
    elif failure["stage"] == "attribute" and failure["type"] == "AttributeError":
        yield ctx.about("entry-point-attribute-missing", entry, f"There is no object {entry.object} ({told}).")
    elif failure["swallowed"]:
        yield ctx.about("entry-point-not-importable", entry, f"Loading {entry.object} raises {told}.")
    else:
        yield ctx.about("entry-point-raises", entry, f"Loading {entry.object} raises {told}; {reach}.")


def _shape(ctx: Context, entry: PluginEntryPoint, result: EntryResult) -> Iterator[Finding]:
    harmless = set()
    if ctx.mlflow < _UVICORN_SINCE:
        harmless.add("app-not-asgi")
    if ctx.mlflow < _FILE_STORE_REFUSED_SINCE or is_true(ctx.environ.get("MLFLOW_ALLOW_FILE_STORE")):
        harmless.add("file-store-refused")
    for rule, detail in result.problems:
        if rule == "artifact-repository-signature":
            yield _artifact_repository(ctx, entry, detail)
        elif rule not in harmless:
            yield ctx.about(rule, entry, f"{entry.object}: {detail.rstrip('.')}.")


def _artifact_repository(ctx: Context, entry: PluginEntryPoint, detail: str) -> Finding:
    when, _, reason = detail.partition(":")
    who, severity = ("MLflow", None) if when == "now" else ("A newer MLflow", "warning")
    what = f"{who} passes tracking_uri or registry_uri, which {entry.object} does not take: {reason.rstrip('.')}."
    return ctx.about("artifact-repository-signature", entry, what, severity=severity)


def _slow(ctx: Context) -> Iterator[Finding]:
    for plugin in ctx.installed.plugins:
        eager = [ctx.results[e] for e in plugin.entry_points if e.group in ctx.eager and e in ctx.results]
        cost = sum(r.wall_ms or 0 for r in eager)
        if cost > ctx.max_import_ms:
            what = f"It adds {cost:.0f} ms to `import mlflow`; the limit is {ctx.max_import_ms:.0f} ms."
            yield ctx.about_plugin("slow-import", plugin, what)
