"""The tables are created once, whoever comes first, and their version is checked before anything is done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect
from sqlalchemy.schema import CreateIndex, CreateTable

from mlflow_plugkit.errors import mlflow_error
from mlflow_sqlserver_artifacts.database import Database
from mlflow_sqlserver_artifacts.errors import DatabaseError
from mlflow_sqlserver_artifacts.layout import key_of
from mlflow_sqlserver_artifacts.settings import DatabaseSettings
from mlflow_sqlserver_artifacts.statements import Statements
from mlflow_sqlserver_artifacts.tables import SCHEMA_VERSION, UNCOMPRESSED, Tables, tables
from mlflow_sqlserver_artifacts.urls import database_url

MISSING_TABLES = frozenset(
    {"SQL Server 208", "SQLSTATE 42S02", "SQLSTATE 42P01", "MariaDB 1146", "SQLite no such table"}
)
# A lock of the session that holds it, so that the tables are created by one process at a time: how to take it
# within a minute (it answers a number from 0 or 1 on where that went well), and how to give it back.
_LOCKS = {
    "mssql": (
        0,
        (
            "SET NOCOUNT ON; DECLARE @got int; EXEC @got = sp_getapplock @Resource = N'{name}', "
            "@LockMode = N'Exclusive', @LockOwner = N'Session', @LockTimeout = 60000; SELECT @got"
        ),
        "EXEC sp_releaseapplock @Resource = N'{name}', @LockOwner = N'Session'",
    ),
    "postgresql": (
        1,
        "SELECT count(*) FROM pg_advisory_lock(hashtext('{name}'))",
        "SELECT pg_advisory_unlock(hashtext('{name}'))",
    ),
    "mysql": (1, "SELECT GET_LOCK('{name}', 60)", "SELECT RELEASE_LOCK('{name}')"),
}

_ready: set[tuple[object, ...]] = set()


def settings_tables(settings: DatabaseSettings) -> Tables:
    """The tables of the store that settings name."""
    return tables(settings.table_prefix, settings.schema)


def ensure_tables(database: Database) -> None:
    """Check the schema's version, and create the tables where they are missing. Once per process and store.

    Raises:
        DatabaseError: the database's own errors, also for missing tables that may not be created.
        MlflowException: `FEATURE_DISABLED`: the tables were made by a newer release.
    """
    if _key(database) in _ready:
        return
    if not tables_are_there(database):
        if not database.settings.create_tables:
            raise DatabaseError("the tables are missing, and creating them is switched off", "SQL Server 208")
        create_tables(database)
        _ready.add(_key(database))


def tables_are_there(database: Database) -> bool:
    """Whether there are tables to read from: reading creates none. Errors as for `ensure_tables`."""
    key = _key(database)
    if key not in _ready and _stored_version(database) is not None:
        _ready.add(key)
    return key in _ready


def forget_tables() -> None:
    """Check again on next use: for those who drop tables."""
    _ready.clear()


def create_tables(database: Database) -> None:
    """Create what is missing; several processes may do so at once."""
    made = settings_tables(database.settings)
    statements = Statements(made)
    with _exclusive(database, made.versions.fullname), database.write() as connection:
        made.metadata.create_all(connection, checkfirst=True)
        if connection.scalar(statements.find_folder, {"folder_": key_of("")}) is None:
            connection.execute(statements.add_folder, {"folder": key_of(""), "parent": None, "path": ""})
        if connection.scalar(statements.version) is None:
            connection.execute(statements.add_version, {"version": SCHEMA_VERSION})
    _stored_version(database)


def ddl(settings: DatabaseSettings, dialect: Dialect) -> list[str]:
    """The statements that create the tables, for a DBA to read and run."""
    made = settings_tables(settings)
    found = []
    for table in made.metadata.sorted_tables:
        found.append(str(CreateTable(table).compile(dialect=dialect)).strip())
        if table is made.chunks and dialect.name == "postgresql":
            found.append(UNCOMPRESSED % {"fullname": dialect.identifier_preparer.format_table(table)})
        found += [str(CreateIndex(index).compile(dialect=dialect)) for index in sorted(table.indexes, key=_name)]
    root = made.folders.insert().values(folder=key_of(""), parent=None, path="")
    version = made.versions.insert().values(version=SCHEMA_VERSION)
    return [*found, _literal(root, dialect), _literal(version, dialect)]


def grants(settings: DatabaseSettings, dialect: Dialect, user: str) -> list[str]:
    """The rights that a user needs once the tables are there, and no more."""
    made = settings_tables(settings)
    name = dialect.identifier_preparer.format_table
    user = dialect.identifier_preparer.quote_identifier(user)
    rights = "SELECT, INSERT, UPDATE, DELETE"
    work = [f"GRANT {rights} ON {name(t)} TO {user}" for t in (made.folders, made.files, made.uploads, made.chunks)]
    return [f"GRANT SELECT ON {name(made.versions)} TO {user}", *work]


def _key(database: Database) -> tuple[object, ...]:
    settings = database.settings
    return database_url(settings), settings.table_prefix, settings.schema


def _stored_version(database: Database) -> int | None:
    """The version of the tables, None where there are none.

    Raises:
        MlflowException: `FEATURE_DISABLED` for a version that this release does not know.
    """
    statements = Statements(settings_tables(database.settings))
    try:
        with database.read() as connection:
            versions = [int(row.version) for row in connection.execute(statements.version)]
    except DatabaseError as exc:
        if exc.code in MISSING_TABLES:
            return None
        raise
    if not versions:
        return None
    if max(versions) > SCHEMA_VERSION:
        raise mlflow_error(
            f"The tables {database.settings.table_prefix}* in {database.settings.location} have version "
            f"{max(versions)}; this release knows version {SCHEMA_VERSION}. Upgrade mlflow-sqlserver-artifacts.",
            "FEATURE_DISABLED",
        )
    return max(versions)


@contextmanager
def _exclusive(database: Database, name: str) -> Iterator[None]:
    """Hold the lock on a connection of its own: it must outlast the transaction that creates the tables."""
    if database.family not in _LOCKS:  # SQLite's write transaction excludes others by itself
        yield
        return
    least, take, give_back = _LOCKS[database.family]
    with database.read() as connection:
        got = connection.exec_driver_sql(take.format(name=name)).scalar()
        if got is None or got < least:
            raise DatabaseError("another process has been creating the tables for a minute", "timeout")
        try:
            yield
        finally:
            connection.exec_driver_sql(give_back.format(name=name))


def _literal(statement: sa.Insert, dialect: Dialect) -> str:
    """An INSERT with its values in it; SQLAlchemy has no literal for bytes."""
    key = key_of("").hex()
    hexadecimal = {"mssql": f"0x{key}", "postgresql": f"'\\x{key}'"}.get(dialect.name, f"x'{key}'")
    bound = statement.compile(dialect=dialect, compile_kwargs={"render_postcompile": True})
    table = dialect.identifier_preparer.format_table(statement.table)  # type: ignore[arg-type] # it is a Table
    values = {bytes: hexadecimal, str: "''", type(None): "NULL"}
    shown = [values.get(type(v), str(v)) for v in bound.params.values()]
    return f"INSERT INTO {table} ({', '.join(bound.params)}) VALUES ({', '.join(shown)})"  # noqa: S608 # no input in it


def _name(index: sa.Index) -> str:
    return str(index.name)
