"""For administrators: the tables as SQL or created, and a clean-up.

python -m mlflow_sqlserver_artifacts create-tables --url URI [--execute] [--user NAME]
python -m mlflow_sqlserver_artifacts clean --url URI
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_sqlserver_artifacts.settings import DatabaseSettings


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; answer its exit status. Errors are one line on standard error."""
    from mlflow.exceptions import MlflowException

    from mlflow_sqlserver_artifacts.errors import SQL_ERRORS
    from mlflow_sqlserver_artifacts.settings import read_settings

    given = _parser().parse_args(arguments)
    try:
        settings = read_settings(given.url)
        with SQL_ERRORS.applied(given.command, settings.secrets()):
            lines = clean(settings) if given.command == "clean" else create(settings, given.user, execute=given.execute)
    except MlflowException as exc:
        sys.stderr.write(f"{exc.message}\n")
        return 1
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0


def create(settings: DatabaseSettings, user: str | None, *, execute: bool) -> list[str]:
    """The SQL that creates the tables and grants a user its rights; with `execute`, create them instead."""
    from mlflow_sqlserver_artifacts.database import Database
    from mlflow_sqlserver_artifacts.schema import create_tables, ddl, grants
    from mlflow_sqlserver_artifacts.urls import dialect_of

    if execute:
        create_tables(Database(settings))
        return [f"The tables are in {settings.location}."]
    dialect = dialect_of(settings)
    rights = [] if settings.family == "sqlite" else grants(settings, dialect, user or settings.username or "the_user")
    return [f"{statement};" for statement in [*ddl(settings, dialect), *rights]]


def clean(settings: DatabaseSettings) -> list[str]:
    """Remove what crashes and interrupted deletions left behind."""
    from mlflow_sqlserver_artifacts.cleaning import Cleaner
    from mlflow_sqlserver_artifacts.database import Database
    from mlflow_sqlserver_artifacts.schema import settings_tables
    from mlflow_sqlserver_artifacts.statements import Statements

    removed = Cleaner(Database(settings), Statements(settings_tables(settings))).clean()
    return [f"Removed {removed} unfinished or obsolete uploads from {settings.location}."]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m mlflow_sqlserver_artifacts", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    commands = parser.add_subparsers(dest="command", required=True)
    create_tables = commands.add_parser("create-tables", help="print the SQL that creates the tables")
    create_tables.add_argument("--execute", action="store_true", help="create them now, with this login")
    create_tables.add_argument("--user", help="the user whose grants are printed")
    for command in (create_tables, commands.add_parser("clean", help="remove what nothing shows any more")):
        command.add_argument("--url", required=True, help="the artifact URI, without user and password")
    return parser


if __name__ == "__main__":
    sys.exit(main())
