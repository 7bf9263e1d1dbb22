"""The group of commands. Each is imported when it is called, so that `list` does not pay for `new`."""

from __future__ import annotations

import importlib

import click

from mlflow_plugkit.cli import NEEDS_EXTRA

# command -> (module, attribute)
_COMMANDS = {
    "list": ("mlflow_plugkit.cli.list", "list_plugins"),
    "doctor": ("mlflow_plugkit.cli.doctor", "doctor"),
    "new": ("mlflow_plugkit.cli.new", "new"),
}


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[cmd_name]
        try:
            command = getattr(importlib.import_module(module), attribute)
        except ImportError as exc:
            return _unavailable(cmd_name, exc)
        assert isinstance(command, click.Command)
        return command


def _unavailable(name: str, reason: ImportError) -> click.Command:
    """A command that is listed, and says on use which package it lacks."""

    @click.command(name, help=f"Not available: {reason}.", context_settings={"ignore_unknown_options": True})
    @click.argument("arguments", nargs=-1)
    def command(arguments: tuple[str, ...]) -> None:
        raise click.UsageError(f"{name}: {reason}. {NEEDS_EXTRA}")

    return command


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="mlflow-plugkit")
def group() -> None:
    """Tools for MLflow plugins, whoever wrote them."""
