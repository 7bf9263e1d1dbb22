"""The command `mlflow-elasticsearch`: what an administrator does with the indices of a store."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import click

from mlflow_plugkit_elasticsearch.cli_import import import_command

F = TypeVar("F", bound=Callable[..., Any])
_WIDTHS = "{:<28} {:<10} {:>7} {:>7} {:>12}"


def store_uri(function: F) -> F:
    """The argument that every command takes."""
    return click.argument("uri", metavar="STORE_URI")(function)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Set up, look at, fill and upgrade the Elasticsearch indices of MLflow's stores.

    STORE_URI is what MLflow is given, such as elasticsearch://host:9200/mlflow. Credentials come from the environment
    (MLFLOW_ELASTICSEARCH_API_KEY and others), never from the command line.
    """


main.add_command(import_command)


@main.command()
@store_uri
def status(uri: str) -> None:
    """Show the indices: their schema and how many documents they have.

    Ends with 1 if an index is of another schema than the installed packages know.
    """
    from mlflow_plugkit_elasticsearch.installed import installed_indices
    from mlflow_plugkit_elasticsearch.upgrade import state_of

    with _errors_shown():
        documents = _documents(uri)
        states = [state_of(documents, index) for index in installed_indices()]
    click.echo(_WIDTHS.format("index", "state", "stored", "known", "documents"))
    for state in states:
        stored = "-" if state.stored is None else state.stored
        name = documents.schema.alias(state.index)
        click.echo(_WIDTHS.format(name, state.verdict, stored, state.index.version, state.documents))
    if any(state.verdict in ("older", "newer") for state in states):
        click.echo("Run `mlflow-elasticsearch upgrade` for what is older; upgrade the packages for what is newer.")
        raise SystemExit(1)


@main.command()
@store_uri
def bootstrap(uri: str) -> None:
    """Create the indices that are missing, and their templates. May run twice, and on two machines at once."""
    from mlflow_plugkit_elasticsearch.installed import installed_indices

    with _errors_shown():
        documents = _documents(uri)
        for index in installed_indices():
            was_there = documents.schema.stored_version(index) is not None
            documents.schema.ensure(index)
            click.echo(f"{documents.schema.alias(index)}: {'was there' if was_there else 'created'}")


@main.command()
@store_uri
def upgrade(uri: str) -> None:
    """Bring indices of an older schema up to date; refuse a newer one.

    Additions are made in place. Where the index has to be rebuilt, it takes no writes until that is done: stop the
    servers first.
    """
    from mlflow_plugkit_elasticsearch.installed import installed_indices
    from mlflow_plugkit_elasticsearch.upgrade import upgrade as bring_up_to_date

    with _errors_shown():
        documents = _documents(uri)
        indices = installed_indices()
        for index in indices:  # nothing is touched where one of them is newer
            documents.schema.check(index)
        changed = [bring_up_to_date(documents, index, click.echo) for index in indices]
    click.echo(f"{sum(changed)} of {len(changed)} indices were upgraded.")


@main.command()
@store_uri
@click.option("--manage/--no-manage", default=True, help="Whether the role may also create and upgrade indices.")
def role(uri: str, manage: bool) -> None:
    """Print the least-privilege role for a store as JSON, for `PUT /_security/role/<name>` or an API key.

    Nothing is connected.
    """
    from mlflow_plugkit_elasticsearch.roles import role as role_for
    from mlflow_plugkit_elasticsearch.settings import ElasticsearchSettings

    with _errors_shown():
        settings = ElasticsearchSettings.from_uri(uri)
    click.echo(json.dumps(role_for(settings.prefix, manages=manage), indent=2))


def _documents(uri: str) -> Any:
    from mlflow_plugkit_elasticsearch.documents import Documents
    from mlflow_plugkit_elasticsearch.settings import ElasticsearchSettings

    settings = ElasticsearchSettings.from_uri(uri)
    return Documents(dataclasses.replace(settings, create=True))


@contextmanager
def _errors_shown() -> Iterator[None]:
    """Show an error of MLflow's kind as one sentence, without a traceback."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as exc:
        raise click.ClickException(str(exc.message)) from None


if __name__ == "__main__":
    main()
