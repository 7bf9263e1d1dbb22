"""`mlflow-plugkit doctor`: what is wrong with the plugins of this environment."""

from __future__ import annotations

import json

import click
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from mlflow_plugkit.doctor.examine import DEFAULT_MAX_IMPORT_MS, DEFAULT_SECONDS, examine
from mlflow_plugkit.doctor.findings import Finding, Report
from mlflow_plugkit.doctor.rules import RULES


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")
@click.option("--connect", is_flag=True, help="Also ask the configured tracking server and model registry.")
@click.option(
    "--max-import-ms", type=click.FloatRange(min=0), default=DEFAULT_MAX_IMPORT_MS, show_default=True,
    help="Milliseconds that a plugin may add to `import mlflow`.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0.1), default=DEFAULT_SECONDS, show_default=True,
    help="Seconds until loading an entry point, or a service's answer, counts as hanging.",
)  # fmt: skip
def doctor(as_json: bool, connect: bool, max_import_ms: float, timeout: float) -> None:
    """Find what is wrong with the installed MLflow plugins and their configuration, and say how to mend it.

    Ends with status 1 when there is an error, with 0 when there is none or only warnings. Plugins are loaded in
    subprocesses that cannot open a connection; nothing is connected to unless --connect is given. Secrets are
    never printed.
    """
    status = Console(stderr=True)
    with status.status("reading metadata") as line:
        report = examine(seconds=timeout, max_import_ms=max_import_ms, connect=connect, progress=line.update)
    if as_json:
        click.echo(json.dumps(report.as_json(), indent=2))
    else:
        _print(report)
    raise SystemExit(1 if report.errors else 0)


def _print(report: Report) -> None:
    console = Console(highlight=False)
    for title, style, findings in (("Errors", "red", report.errors), ("Warnings", "yellow", report.warnings)):
        if findings:
            console.print(Text(f"{title} ({len(findings)})", style=f"bold {style}"))
            for found in findings:
                _print_finding(console, found, style)
    for connection in report.connections:
        outcome = "answered" if connection.ok else "failed"
        text = f"{connection.kind} {connection.uri} {outcome} in {connection.ms:.0f} ms: {connection.answer}"
        console.print(Text(text, style="green" if connection.ok else "red"))
    if not report.findings:
        console.print(Text("No problems found.", style="bold green"))
    checked = (
        f"MLflow {report.mlflow or 'not installed'}: checked {_count(report.plugins, 'plugin')}, "
        f"{_count(report.entry_points, 'entry point')} and {_count(report.uris, 'configured URI')} "
        f"against {len(RULES)} rules."
    )
    console.print(Text(checked))


def _print_finding(console: Console, found: Finding, style: str) -> None:
    console.print(Padding(Text.assemble((found.subject, "bold"), "  ", (f"[{found.id}]", style)), (0, 0, 0, 2)))
    console.print(Padding(Text(found.what), (0, 0, 0, 4)))
    console.print(Padding(Text.assemble(("Remedy: ", "bold"), found.remedy), (0, 0, 1, 4)))


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
