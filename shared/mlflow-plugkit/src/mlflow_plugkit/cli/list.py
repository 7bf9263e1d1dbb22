"""`mlflow-plugkit list`: the MLflow plugins of this environment."""

from __future__ import annotations

import json
import platform
from typing import Any

import click
from rich.box import SIMPLE
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.examine import DEFAULT_SECONDS, gather
from mlflow_plugkit.doctor.findings import SCHEMA_VERSION
from mlflow_plugkit.doctor.installed import Plugin, contains

_MEASUREMENTS = 2  # the first may also compile the plugin's modules


@click.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=DEFAULT_SECONDS, show_default=True,
    help="Seconds until loading an entry point counts as hanging.",
)  # fmt: skip
def list_plugins(as_json: bool, timeout: float) -> None:
    """Show every installed MLflow plugin, its entry points and what importing it costs.

    The cost is measured in a subprocess that has imported MLflow without plugins and cannot open a connection.
    """
    status = Console(stderr=True)
    with status.status("reading metadata") as line:
        ctx = gather(seconds=timeout, measurements=_MEASUREMENTS, progress=line.update)
    listing = as_data(ctx)
    if as_json:
        click.echo(json.dumps(listing, indent=2))
    else:
        _print(listing)


def as_data(ctx: Context) -> dict[str, Any]:
    """The listing as plain data, in the shape that the README documents."""
    return {
        "schema": SCHEMA_VERSION,
        "mlflow": ctx.installed.mlflow,
        "python": platform.python_version(),
        "plugins": [_plugin(ctx, p) for p in ctx.installed.plugins],
    }


def _plugin(ctx: Context, plugin: Plugin) -> dict[str, Any]:
    declared = plugin.mlflow_range()
    inside = None
    if declared is not None and ctx.installed.mlflow:
        inside = contains(declared, ctx.installed.mlflow)
    entries = []
    for entry in plugin.entry_points:
        result = ctx.results.get(entry)
        failure = result.failure if result else None
        error = (result.ended if result else "not loaded") or None
        if failure:
            error = ctx.shown(f"{failure['type']}: {failure['text']}")
        entries.append({
            "group": entry.group,
            "name": entry.name,
            "object": entry.object,
            "eager": entry.group in ctx.eager,
            "import_ms": _rounded(result.wall_ms if result else None),
            "import_cpu_ms": _rounded(result.cpu_ms if result else None),
            "error": error,
        })  # fmt: skip
    return {
        "name": plugin.name,
        "version": plugin.version,
        "mlflow_range": None if declared is None else str(declared),
        "mlflow_inside": inside,
        "import_ms": _sum(e["import_ms"] for e in entries),
        "import_cpu_ms": _sum(e["import_cpu_ms"] for e in entries),
        "eager_ms": _sum(e["import_ms"] for e in entries if e["eager"]),
        "entry_points": entries,
    }


def _rounded(ms: float | None) -> float | None:
    return None if ms is None else round(ms, 2)


def _sum(costs: Any) -> float | None:
    known = [c for c in costs if c is not None]
    return round(sum(known), 2) if known else None


def _print(listing: dict[str, Any]) -> None:
    console = Console()
    title = f"MLflow {listing['mlflow'] or 'not installed'}, Python {listing['python']}"
    if not listing["plugins"]:
        console.print(f"{title}: no MLflow plugin is installed.")
        return
    console.print(title, highlight=False)
    for plugin in listing["plugins"]:
        console.print(_table(plugin))
    console.print("* loaded by every `import mlflow`. ms: time to load the entry point after MLflow itself.")
    if any(e["error"] for p in listing["plugins"] for e in p["entry_points"]):
        console.print("Run `mlflow-plugkit doctor` to see why entry points failed.")


def _table(plugin: dict[str, Any]) -> Table:
    eager = "none" if plugin["eager_ms"] is None else f"{plugin['eager_ms']:.1f} ms"
    heading = f"{plugin['name']} {plugin['version']}, MLflow {_range_text(plugin)}, cost to `import mlflow`: {eager}"
    table = Table(title=escape(heading), title_justify="left", title_style="bold", box=SIMPLE)
    for column in ("group", "name", "object"):
        table.add_column(column, overflow="fold")
    table.add_column("ms", justify="right", no_wrap=True)
    for entry in plugin["entry_points"]:
        cost = "failed" if entry["error"] else f"{entry['import_ms']:.1f}"
        group = entry["group"].removeprefix("mlflow.") + (" *" if entry["eager"] else "")
        table.add_row(*map(escape, (group, entry["name"], entry["object"], cost)))
    return table


def _range_text(plugin: dict[str, Any]) -> str:
    if plugin["mlflow_range"] is None:
        return "none declared"
    text = plugin["mlflow_range"] or "any"
    return text if plugin["mlflow_inside"] in (True, None) else f"{text} (does not admit this MLflow)"
