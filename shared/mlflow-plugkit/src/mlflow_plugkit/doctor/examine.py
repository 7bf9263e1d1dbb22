"""Gather the facts, run the checks, make the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence

from packaging.version import Version

from mlflow_plugkit.doctor import check_configuration, check_loading, check_metadata, check_names
from mlflow_plugkit.doctor.connecting import connections
from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.environment import GROUP_OF_KIND, configured_uris, known_secrets
from mlflow_plugkit.doctor.findings import Finding, Report, finding, in_order
from mlflow_plugkit.doctor.groups import FALLBACK_BUILTINS, FALLBACK_EAGER
from mlflow_plugkit.doctor.installed import Plugin, PluginEntryPoint, read_installed
from mlflow_plugkit.doctor.probe import MLFLOW_IMPORT_SECONDS, EntryResult, Examiner, import_with_plugins

DEFAULT_SECONDS = 20.0
DEFAULT_MAX_IMPORT_MS = 100.0
_MEASUREMENTS = 3  # a busy machine slows one measurement; of several, the least is the plugin's own cost
_ALWAYS_WANTED = {*GROUP_OF_KIND.values(), "mlflow.scorer_store", "mlflow.request_auth_provider"}

Progress = Callable[[str], None]


def examine(
    *,
    seconds: float = DEFAULT_SECONDS,
    max_import_ms: float = DEFAULT_MAX_IMPORT_MS,
    connect: bool = False,
    progress: Progress = lambda _: None,
) -> Report:
    """Examine this environment.

    Args:
        seconds: time limit for each entry point, and for each service with `connect`.
        max_import_ms: from what cost on a plugin is called slow.
        connect: ask the configured tracking server and registry for one experiment and one model.
        progress: told what is being done, for a status line.
    """
    ctx = gather(seconds=seconds, max_import_ms=max_import_ms, progress=progress)
    findings = [
        *_importing(ctx),
        *check_metadata.check(ctx),
        *check_loading.check(ctx),
        *check_names.check(ctx),
        *check_configuration.check(ctx),
    ]
    answers = []
    if connect:
        progress("asking the configured services")
        answers = connections(ctx, seconds)
        findings += [
            finding("connect-fails", f"{c.kind} {c.uri}", f"No answer: {c.answer}.") for c in answers if not c.ok
        ]
    return Report(
        mlflow=ctx.installed.mlflow,
        plugins=len(ctx.installed.plugins),
        entry_points=len(ctx.installed.entry_points),
        uris=len(ctx.uris),
        findings=in_order(findings),
        connections=answers,
    )


def gather(
    *, seconds: float, max_import_ms: float = DEFAULT_MAX_IMPORT_MS, measurements: int = 1, progress: Progress
) -> Context:
    """Read the metadata and the environment, and load every entry point in a probe.

    Args:
        seconds: time limit for each entry point.
        max_import_ms: plugins above it are measured again.
        measurements: how often each plugin is measured at least.
        progress: see `examine`.
    """
    environ = dict(os.environ)
    ctx = Context(
        read_installed(), environ, configured_uris(environ), known_secrets(environ), max_import_ms=max_import_ms
    )
    ctx.builtins, ctx.eager = dict(FALLBACK_BUILTINS), FALLBACK_EAGER
    if ctx.installed.mlflow is None:
        return ctx
    progress("importing MLflow without plugins")
    groups = {e.group for e in ctx.installed.entry_points} | _ALWAYS_WANTED
    passed = {"artifact": artifact_keywords(ctx.mlflow)}
    with Examiner(groups, passed, seconds) as examiner:
        if examiner.failure is not None:
            ctx.mlflow_failure = examiner.failure
            return ctx
        ctx.eager, ctx.builtins = examiner.eager, {**ctx.builtins, **examiner.builtins}
        for plugin in ctx.installed.plugins:
            progress(f"loading {plugin.name}")
            ctx.results.update(_measured(examiner, plugin, ctx, measurements))
    if any(e.group in ctx.eager for e in ctx.installed.entry_points) and not check_loading.breaks_import(ctx):
        progress("importing MLflow with plugins")
        ctx.plugins_failure = _import_with_plugins()
    return ctx


def artifact_keywords(mlflow: Version) -> list[str]:
    """What this MLflow passes to an artifact repository beside the URI (read in the released wheels)."""
    if mlflow >= Version("3.5"):
        return ["tracking_uri", "registry_uri"]
    return ["tracking_uri"] if mlflow >= Version("3.1.1") else []


def _measured(
    examiner: Examiner, plugin: Plugin, ctx: Context, measurements: int
) -> Mapping[PluginEntryPoint, EntryResult]:
    entries = [e for e in plugin.entry_points if check_loading.is_well_formed(e)]
    results = examiner.examine(entries)
    done = 1
    while not any(r.ended for r in results) and (
        done < measurements or (done < _MEASUREMENTS and _eager_cost(entries, results, ctx) > ctx.max_import_ms)
    ):
        for result, again in zip(results, examiner.examine(entries), strict=True):
            if result.wall_ms is not None and again.wall_ms is not None:
                result.wall_ms = min(result.wall_ms, again.wall_ms)
            if result.cpu_ms is not None and again.cpu_ms is not None:
                result.cpu_ms = min(result.cpu_ms, again.cpu_ms)
        done += 1
    return dict(zip(entries, results, strict=True))


def _eager_cost(entries: Sequence[PluginEntryPoint], results: Sequence[EntryResult], ctx: Context) -> float:
    return sum(r.wall_ms or 0 for e, r in zip(entries, results, strict=True) if e.group in ctx.eager)


def _import_with_plugins() -> dict[str, object] | None:
    with import_with_plugins() as probe:
        try:
            event = probe.receive(MLFLOW_IMPORT_SECONDS)
        except TimeoutError:
            return {"type": "TimeoutError", "text": f"it did not end within {MLFLOW_IMPORT_SECONDS:.0f} s"}
        if event is None:
            return {"type": "SystemExit", "text": f"the process ended ({probe.exit_text()})"}
        return event if event["event"] == "failed" else None


def _importing(ctx: Context) -> list[Finding]:
    if ctx.mlflow_failure is not None:
        told = f"{ctx.mlflow_failure['type']}: {ctx.mlflow_failure['text']}"
        return [finding("mlflow-import-fails", "mlflow", ctx.shown(f"`import mlflow` raises {told}."))]
    if ctx.plugins_failure is not None:
        told = f"{ctx.plugins_failure['type']}: {ctx.plugins_failure['text']}"
        return [finding("mlflow-import-breaks", "mlflow", ctx.shown(f"With all plugins, it raises {told}."))]
    return []
