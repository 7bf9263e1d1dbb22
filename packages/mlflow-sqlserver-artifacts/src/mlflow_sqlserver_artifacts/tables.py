"""The tables, the same for every database but for the types.

Everything is found by hash: a folder by the SHA-256 of its path, a file by that of its own. So no key
depends on a collation (case, trailing blanks, normalisation) or on the length of a name, and each fits
SQL Server's 900 bytes of a clustered key.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import mssql, mysql, postgresql
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.elements import ColumnElement
from sqlalchemy.sql.functions import GenericFunction

SCHEMA_VERSION = 1
NAME_LENGTH, PATH_LENGTH = 1024, 4000  # UTF-16 units, as NVARCHAR counts them; 4000 is its most

# States of an upload.
OPEN, IN_PARTS, STORED, OBSOLETE = 0, 1, 2, 3


def _text(length: int) -> sa.types.TypeEngine[str]:
    return (
        sa.Text()
        .with_variant(mssql.NVARCHAR(length, collation="Latin1_General_100_BIN2"), "mssql")
        .with_variant(mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin"), "mysql", "mariadb")
    )


_mssql: Any = mssql  # partly untyped, as is DDL
_ddl: Any = sa.DDL
HASH = sa.BINARY(32).with_variant(postgresql.BYTEA(), "postgresql").with_variant(sa.LargeBinary(), "sqlite")
CONTENT = (
    sa.LargeBinary().with_variant(_mssql.VARBINARY("max"), "mssql").with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
)
NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime().with_variant(_mssql.DATETIME2(3), "mssql").with_variant(mysql.DATETIME(fsp=3), "mysql", "mariadb")

# Model files are compressed as a rule: PostgreSQL would try in vain to compress each chunk again.
UNCOMPRESSED = "ALTER TABLE %(fullname)s ALTER COLUMN data SET STORAGE EXTERNAL"


@dataclass(frozen=True)
class Tables:
    """The five tables of one artifact store."""

    metadata: sa.MetaData
    versions: sa.Table
    folders: sa.Table
    files: sa.Table
    uploads: sa.Table
    chunks: sa.Table


@lru_cache(maxsize=64)
def tables(prefix: str, schema: str | None) -> Tables:
    """The tables whose names begin with `prefix`, in a schema or in the user's default one."""
    metadata = sa.MetaData(schema=schema)
    versions = _table(metadata, f"{prefix}version", _number("version", primary_key=True))
    folders = _folders(prefix, metadata)
    files = _table(
        metadata,
        f"{prefix}files",
        sa.Column("folder", HASH, sa.ForeignKey(folders.c.folder, name=f"{prefix}files_folder"), primary_key=True),
        sa.Column("file", HASH, primary_key=True),
        sa.Column("name", _text(NAME_LENGTH), nullable=False),
        sa.Column("upload", NUMBER, nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("sha256", HASH, nullable=True),
        sa.Column("content_type", _text(255), nullable=True),
        _number("chunk_size"),
        sa.Column("part_size", sa.BigInteger, nullable=False),
        sa.Column("created", TIME, nullable=False),
    )
    return Tables(metadata, versions, folders, files, _uploads(prefix, metadata), _chunks(prefix, metadata))


def _folders(prefix: str, metadata: sa.MetaData) -> sa.Table:
    own = f"{metadata.schema}.{prefix}folders" if metadata.schema else f"{prefix}folders"
    folders = _table(
        metadata,
        f"{prefix}folders",
        sa.Column("folder", HASH, primary_key=True),
        sa.Column("parent", HASH, nullable=True),
        sa.Column("path", _text(PATH_LENGTH), nullable=False),
        sa.ForeignKeyConstraint(["parent"], [f"{own}.folder"], name=f"{prefix}folders_parent_folder"),
    )
    sa.Index(f"{prefix}folders_parent", folders.c.parent, folders.c.folder)
    return folders


def _uploads(prefix: str, metadata: sa.MetaData) -> sa.Table:
    uploads = _table(
        metadata,
        f"{prefix}uploads",
        sa.Column("id", NUMBER, sa.Identity(), primary_key=True),
        sa.Column("state", sa.SmallInteger, nullable=False),
        sa.Column("path", _text(PATH_LENGTH), nullable=False),
        sa.Column("sha256", HASH, nullable=True),
        sa.Column("content_type", _text(255), nullable=True),
        sa.Column("started", TIME, nullable=False),
        sa.Column("touched", TIME, nullable=False),
        sqlite_autoincrement=True,  # an id must never come back: old chunks may still wait for their removal
    )
    sa.Index(f"{prefix}uploads_state", uploads.c.state, uploads.c.id)
    return uploads


def _chunks(prefix: str, metadata: sa.MetaData) -> sa.Table:
    chunks = _table(
        metadata,
        f"{prefix}chunks",
        sa.Column("upload", NUMBER, primary_key=True, autoincrement=False),
        _number("part", primary_key=True),
        _number("number", primary_key=True),
        _number("size"),
        sa.Column("sha256", HASH, nullable=False),
        sa.Column("data", CONTENT, nullable=False),
    )
    # The database itself compares what arrived with what was sent; SQLite has no such function and no network.
    sound = sa.CheckConstraint(chunks.c.sha256 == sha256(chunks.c.data), name=f"{prefix}chunks_sound")
    chunks.append_constraint(sound.ddl_if(callable_=lambda *_, dialect, **__: dialect.name != "sqlite"))
    sa.event.listen(chunks, "after_create", _ddl(UNCOMPRESSED).execute_if(dialect="postgresql"))
    return chunks


def _table(metadata: sa.MetaData, name: str, *columns: Any, **options: Any) -> sa.Table:
    return sa.Table(name, metadata, *columns, mysql_engine="InnoDB", mariadb_engine="InnoDB", **options)


def _number(name: str, *, primary_key: bool = False) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, primary_key=primary_key, autoincrement=False, nullable=False)


class utc_now(GenericFunction[Any]):  # noqa: N801 # a SQL function
    """The database's own clock, in UTC and without a time zone: clocks of clients may differ."""

    type = TIME
    inherit_cache = True


class sha256(GenericFunction[Any]):  # noqa: N801 # a SQL function
    """The SHA-256 of a binary value, computed by the database."""

    type = HASH
    inherit_cache = True


_NOW = {
    "mssql": "SYSUTCDATETIME()",
    "postgresql": "(clock_timestamp() AT TIME ZONE 'UTC')",
    "mysql": "UTC_TIMESTAMP(3)",
    "mariadb": "UTC_TIMESTAMP(3)",
    "sqlite": "strftime('%Y-%m-%d %H:%M:%S.000000', 'now')",
}
_SHA256 = {
    "mssql": "CONVERT(BINARY(32), HASHBYTES('SHA2_256', {}))",
    "postgresql": "sha256({})",
    "mysql": "UNHEX(SHA2({}, 256))",
    "mariadb": "UNHEX(SHA2({}, 256))",
}


@compiles(utc_now)
def _compile_now(element: ColumnElement[object], compiler: sa.Compiled, **_: object) -> str:
    return _NOW[compiler.dialect.name]


@compiles(sha256)
def _compile_sha256(element: sha256, compiler: sa.Compiled, **options: object) -> str:
    return _SHA256[compiler.dialect.name].format(compiler.process(element.clauses, **options))
