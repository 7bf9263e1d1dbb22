"""The command `mlflow-elasticsearch import`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

_MOST_SHOWN = 100


@click.command("import")
@click.option(
    "--from",
    "source_uri",
    envvar="MLFLOW_ELASTICSEARCH_IMPORT_FROM",
    metavar="URI",
    required=True,
    help="What to read: sqlite:///mlflow.db, postgresql://..., http://server. With a password in it, better as the "
    "environment variable MLFLOW_ELASTICSEARCH_IMPORT_FROM.",
)
@click.option(
    "--to",
    "target_uri",
    envvar="MLFLOW_TRACKING_URI",
    metavar="STORE_URI",
    required=True,
    help="The store to fill, elasticsearch://host:9200/prefix. MLFLOW_TRACKING_URI where it is left out.",
)
@click.option("--resume", is_flag=True, help="Write over what the target has under the same ids; copy all again.")
@click.option("--verify-only", is_flag=True, help="Copy nothing; compare.")
@click.option("--no-verify", is_flag=True, help="Copy without comparing afterwards.")
@click.option(
    "--sample",
    default=3,
    show_default=True,
    type=click.IntRange(0),
    help="How many things of each page to compare in full; the numbers are compared in any case.",
)
def import_command(
    source_uri: str, target_uri: str, *, resume: bool, verify_only: bool, no_verify: bool, sample: int
) -> None:
    """Copy everything from another MLflow store, with ids, times and order as they are, and compare.

    Nobody should write to the source or to the target meanwhile. Killed, it goes on where it was when it is run
    again. Ends with 1 where something could not be copied or differs.
    """
    from mlflow_plugkit_elasticsearch.import_source import ImportSource

    with _errors_shown(()):
        source = ImportSource(source_uri)
    with _errors_shown(source.secrets):
        try:
            found = _carry_out(
                source,
                target_uri,
                resume=resume,
                copies=not verify_only,
                sample=sample,
                compares=verify_only or not no_verify,
            )
        finally:
            source.close()
    if found:
        raise SystemExit(1)


def _carry_out(source: Any, target_uri: str, *, resume: bool, copies: bool, compares: bool, sample: int) -> list[str]:
    from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
    from mlflow_plugkit_elasticsearch.import_parts import installed_importers
    from mlflow_plugkit_elasticsearch.import_progress import Progress
    from mlflow_plugkit_elasticsearch.import_run import copy, differences

    documents = Documents.of(ElasticsearchSettings.from_uri(target_uri))
    importers = installed_importers(source, target_uri, documents)
    if copies:
        progress = Progress("copying")
        if copy(source, documents, importers, progress, resume=resume):
            click.echo(f"{progress.total} things were copied from {source.location}.")
    for importer in importers:
        for note in importer.notes():
            click.echo(f"Note: {source.redact(note)}")
    if not compares:
        return []
    found = []
    for difference in differences(importers, Progress("comparing"), sample):
        found.append(difference)
        if len(found) <= _MOST_SHOWN:
            click.echo(f"Differs: {source.redact(difference)}")
    click.echo(f"{len(found)} differences." if found else "Source and target agree.")
    return found


@contextmanager
def _errors_shown(secrets: tuple[str, ...]) -> Iterator[None]:
    """Show what goes wrong as one sentence, without a traceback and without the source's password."""
    from mlflow.exceptions import MlflowException

    from mlflow_plugkit.logs import get_logger
    from mlflow_plugkit.uri import redact_text

    try:
        yield
    except (click.ClickException, click.Abort, KeyboardInterrupt, SystemExit):
        raise
    except MlflowException as exc:
        raise click.ClickException(redact_text(str(exc.message), secrets)) from None
    except Exception as exc:  # noqa: BLE001 # a database's driver raises what it likes, often with the URI in it
        get_logger("mlflow_plugkit_elasticsearch", secrets).debug("The import failed", exc_info=True)
        message = redact_text(str(exc), secrets).strip() or type(exc).__name__
        raise click.ClickException(f"{type(exc).__name__}: {message.splitlines()[0]}") from None
