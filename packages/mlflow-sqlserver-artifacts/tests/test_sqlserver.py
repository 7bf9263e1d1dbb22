"""SQL Server without a SQL Server: every statement is compiled for its dialect, parsed as T-SQL and looked at.

This shows that the SQL is what was meant, not that a server does with it what was meant.
"""

from __future__ import annotations

import re
import warnings
from functools import cached_property

import pytest
import sqlalchemy as sa
import sqlglot

from mlflow_sqlserver_artifacts.schema import _LOCKS, ddl
from mlflow_sqlserver_artifacts.settings import read_settings
from mlflow_sqlserver_artifacts.statements import Statements
from mlflow_sqlserver_artifacts.tables import tables
from mlflow_sqlserver_artifacts.urls import dialect_of

SETTINGS = read_settings("mssql+pyodbc://h/db/root?schema=ml", {})
DIALECT = dialect_of(SETTINGS)
STATEMENTS = Statements(tables("mlflow_artifact_", "ml"))
NAMES = [name for name, value in vars(Statements).items() if isinstance(value, cached_property)]
P = "ml.mlflow_artifact_"


def compiled(name: str) -> str:
    """A statement as the server gets it, in one line, with short names of tables and lists by their names."""
    statement = getattr(STATEMENTS, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # compiled without the values that an execution adds
        columns = {c.name for c in statement.table.c} if isinstance(statement, sa.Insert) else None
        keys = sorted(columns - {"id", "created", "started", "touched"}) if columns else None
        sql = statement.compile(dialect=DIALECT, column_keys=keys)

    def value(match: re.Match[str]) -> str:
        """A number as it is sent, a list by its name."""
        given = sql.params[match[1]]
        return str(given) if isinstance(given, int) else f":{match[1]}"

    text = re.sub(r"__\[POSTCOMPILE_(\w+)\]", value, re.sub(r"\s+", " ", str(sql)).replace(P, ""))
    return re.sub(r"\b(?:files|folders|uploads|chunks|version)\.(?=[\[a-z])", "", text)


@pytest.mark.parametrize("name", NAMES)
def test_each_statement_is_t_sql(name: str) -> None:
    """A parser that is not SQLAlchemy's reads each statement, and it takes no more than 2,100 parameters."""
    text = re.sub(r"(?<!:):\w+", "?", compiled(name))
    assert sqlglot.parse_one(text, read="tsql") is not None
    assert "LIMIT" not in text
    assert "FOR UPDATE" not in text
    assert "RETURNING" not in text


@pytest.mark.parametrize("statement", ddl(SETTINGS, DIALECT))
def test_each_statement_that_makes_the_tables_is_t_sql(statement: str) -> None:
    assert sqlglot.parse_one(statement, read="tsql") is not None


@pytest.mark.parametrize(
    ("name", "expected"),
    {
        "find_upload_of_file": "SELECT upload FROM files WITH (UPDLOCK, HOLDLOCK) "
        "WHERE folder = :folder_ AND [file] = :file_",
        "lock_folders": "SELECT folder FROM folders WITH (UPDLOCK, HOLDLOCK) WHERE folder IN (:folders_)",
        "lock_files": "SELECT [file], upload FROM files WITH (UPDLOCK) WHERE folder = :folder_ AND [file] IN (:files_)",
        "list_files": "SELECT TOP 1000 [file], name, upload, size, sha256, chunk_size, part_size FROM files "
        "WHERE folder = :folder_ AND [file] > :after ORDER BY [file]",
        "list_folders": "SELECT TOP 1000 folder, path FROM folders "
        "WHERE parent = :folder_ AND folder > :after ORDER BY folder",
        "first_chunks": "SELECT TOP 256 part, number FROM chunks WHERE upload = :upload_ ORDER BY part, number",
        "read_chunks": "SELECT number, data FROM chunks WHERE upload = :upload_ AND part = :part_ "
        "AND number BETWEEN :first AND :last ORDER BY number",
        "add_upload": "INSERT INTO uploads (content_type, path, sha256, started, state, touched) OUTPUT inserted.id "
        "VALUES (:content_type, :path, :sha256, SYSUTCDATETIME(), :state, SYSUTCDATETIME())",
        "add_chunk": "INSERT INTO chunks (data, number, part, sha256, size, upload) "
        "VALUES (:data, :number, :part, :sha256, :size, :upload)",
    }.items(),
)
def test_the_statements_that_locks_and_pages_depend_on(name: str, expected: str) -> None:
    """Locks are hints, a page is TOP over an index's order, a new id comes from OUTPUT."""
    text = compiled(name)
    if name.startswith("add_"):  # the order of an INSERT's columns is SQLAlchemy's affair
        assert sorted(re.findall(r"\w+", text)) == sorted(re.findall(r"\w+", expected))
    else:
        assert text == expected


def columns(table: str) -> dict[str, str]:
    """The columns of a table's CREATE statement, name to type."""
    statement = next(s for s in ddl(SETTINGS, DIALECT) if s.startswith(f"CREATE TABLE {P}{table} "))
    lines = [line.strip(" ,\t") for line in statement.splitlines()[1:]]
    return dict(line.replace("[", "").replace("]", "").split(" ", 1) for line in lines if " " in line)


def test_the_types_are_those_that_sql_server_needs() -> None:
    """Content is VARBINARY(max), sizes are BIGINT, names NVARCHAR with a binary collation, keys BINARY(32)."""
    assert columns("chunks")["data"] == "VARBINARY(max) NOT NULL"
    assert columns("files")["size"] == "BIGINT NOT NULL"
    assert columns("files")["name"] == "NVARCHAR(1024) COLLATE Latin1_General_100_BIN2 NOT NULL"
    assert columns("folders")["path"] == "NVARCHAR(4000) COLLATE Latin1_General_100_BIN2 NOT NULL"
    assert columns("uploads")["id"] == "BIGINT NOT NULL IDENTITY"
    assert columns("uploads")["touched"] == "DATETIME2(3) NOT NULL"
    assert columns("files")["file"] == columns("folders")["folder"] == "BINARY(32) NOT NULL"


def test_every_key_fits_sql_server() -> None:
    """A clustered key may have 900 bytes, another index 1,700: ours have at most 64."""
    widths = {"BINARY(32)": 32, "BIGINT": 8, "INTEGER": 4, "SMALLINT": 2}
    for table in STATEMENTS.tables.metadata.sorted_tables:
        for index in [table.primary_key, *table.indexes]:
            kinds = [c.type.dialect_impl(DIALECT).compile(dialect=DIALECT) for c in index.columns]
            assert sum(widths[kind] for kind in kinds) <= 64, f"{index.name}: {kinds}"


def test_the_server_compares_each_chunk_with_its_checksum() -> None:
    """HASHBYTES takes more than 8,000 bytes since SQL Server 2016."""
    statement = next(s for s in ddl(SETTINGS, DIALECT) if "chunks (" in s)
    assert "CHECK (sha256 = CONVERT(BINARY(32), HASHBYTES('SHA2_256', data)))" in statement


def test_the_schema_lock_belongs_to_the_session() -> None:
    """With implicit transactions nothing has begun one before the lock: one of the transaction would be refused."""
    least, take, give_back = _LOCKS["mssql"]
    assert least == 0
    assert "@LockOwner = N'Session'" in take
    assert "@LockOwner = N'Session'" in give_back
    assert take.startswith("SET NOCOUNT ON;")


def test_the_driver_gets_the_connection_string_that_was_meant() -> None:
    """SQLAlchemy's own dialect quotes user, password and keywords."""
    environ = {"MLFLOW_SQLSERVER_ARTIFACTS_USERNAME": "bob", "MLFLOW_SQLSERVER_ARTIFACTS_PASSWORD": "a;b}c"}
    settings = read_settings("mssql+pyodbc://db.example.com:1444/models/root?ApplicationIntent=ReadOnly", environ)
    from mlflow_sqlserver_artifacts.urls import database_url

    (text,), _ = DIALECT.create_connect_args(database_url(settings))
    assert text == (
        "DRIVER={ODBC Driver 18 for SQL Server};Server=db.example.com,1444;Database=models;UID=bob;PWD={a;b}}c};"
        "Encrypt=yes;TrustServerCertificate=no;ApplicationIntent=ReadOnly"
    )
