"""The command `mlflow-local-deploy`: what MLflow's own command line has no words for."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from mlflow_local_deploy import operations
from mlflow_local_deploy.operations import Home
from mlflow_local_deploy.place import Place, Spec
from mlflow_local_deploy.settings import LocalSettings

_NAME = click.argument("name")
_TARGET = click.option("--target", "-t", default="local", show_default=True, help="Target URI.")
_KIND = click.option("--endpoint", "kind", flag_value="endpoint", help="NAME is an endpoint.")


@click.group()
def main() -> None:
    """Deployments on this machine, beside `mlflow deployments ... -t local`."""


@main.command()
@_TARGET
def up(target: str) -> None:
    """Start everything that should run, and wait for it: for the machine's start-up."""
    home = _home(target)
    found = [*home.all("deployment"), *home.all("endpoint")]
    with _errors():
        for place, spec in found:
            operations.revive(place, spec)
        for place, spec in found:
            if not operations.is_stopped(spec):
                status = operations.wait(place, spec)
                click.echo(f"{spec.kind} {spec.name}: {status.phase} {status.url}")


@main.command()
@_TARGET
@click.option("--json", "as_json", is_flag=True, help="All that is known, as JSON.")
def status(target: str, as_json: bool) -> None:
    """Show all deployments and endpoints. Nothing is started."""
    home = _home(target)
    found = [operations.describe(*pair) for kind in ("deployment", "endpoint") for pair in home.all(kind)]
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for about in found:
        workers = f"{len(about['workers'])} workers, {len(about['standby'])} on standby"
        click.echo(f"{about['name']}: {about['status']} {about['url']} ({workers}, {about['restarts']} restarts)")


@main.command("create-endpoint")
@_NAME
@click.option("--config", "-C", "pairs", multiple=True, metavar="KEY=VALUE", help="As for `mlflow deployments`.")
@_TARGET
def create_endpoint(name: str, pairs: tuple[str, ...], target: str) -> None:
    """Put an endpoint in front of deployments, as `mlflow deployments create-endpoint` cannot up to MLflow 3.17."""
    from mlflow_local_deploy.deployment import LocalDeploymentClient

    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"-C takes key=value, not {pair!r}.")
    with _errors():
        config = {key: value for key, _, value in (pair.partition("=") for pair in pairs)}
        about = LocalDeploymentClient(target).create_endpoint(name, config)
    click.echo(f"{name}: {about['status']} {about['url']}")


@main.command()
@_NAME
@click.argument("workers", type=int)
@click.option("--standby", type=int, help="How many wait with the model loaded.")
@_TARGET
def scale(name: str, workers: int, standby: int | None, target: str) -> None:
    """Change the number of a deployment's workers; no request fails meanwhile."""
    from mlflow_local_deploy.deployment import LocalDeploymentClient

    with _errors():
        about = LocalDeploymentClient(target).scale_deployment(name, workers, standby)
    click.echo(f"{name}: {len(about['workers'])} workers")


@main.command()
@_NAME
@_KIND
@click.option("--lines", "-n", default=100, show_default=True, help="How many of each log.")
@_TARGET
def logs(name: str, kind: str | None, lines: int, target: str) -> None:
    """Show the end of the logs."""
    with _errors():
        place, _ = _home(target).existing(kind or "deployment", name)
        click.echo(operations.log_text(place, lines))


@main.command()
@_NAME
@_KIND
@_TARGET
def stop(name: str, kind: str | None, target: str) -> None:
    """End the processes, keep the deployment and its address."""
    with _changing(name, kind, target) as (place, spec):
        operations.stop(place, spec)
    click.echo(f"{name}: stopped")


@main.command()
@_NAME
@_KIND
@_TARGET
def start(name: str, kind: str | None, target: str) -> None:
    """Start what was stopped, and wait until it answers."""
    with _changing(name, kind, target) as (place, spec):
        operations.start(place, spec)
        found = place.status()
    click.echo(f"{name}: {found.phase} {found.url}" if found else name)


def _home(target: str) -> Home:
    with _errors():
        return Home(LocalSettings.of_target(target).root)


@contextmanager
def _changing(name: str, kind: str | None, target: str) -> Iterator[tuple[Place, Spec]]:
    home, kind = _home(target), kind or "deployment"
    with _errors():
        home.existing(kind, name)
        with home.lock(kind, name):
            yield home.existing(kind, name)


@contextmanager
def _errors() -> Iterator[None]:
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as exc:
        raise click.ClickException(_text(exc)) from exc


def _text(exc: Any) -> str:
    return str(exc.message)
