"""The table: what databases and their drivers say, and MLflow's error codes.

The numbers are those of sys.messages (SQL Server) and of "Transient errors" in the documentation of Azure
SQL Database, PostgreSQL's appendix A, MariaDB's and MySQL's server error reference and SQLite's result codes.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import Any

from mlflow_plugkit.errors import ErrorRow, ErrorTable

# Native numbers in a driver's text: "... Login failed for user 'x'. (18456) (SQLDriverConnect)".
_NATIVE = re.compile(r"\((\d{1,6})\)")
_SQLSTATE = re.compile(r"\b(?:\[|SQLSTATE[ :=]*)([0-9A-Z]{5})\b")
_SQLITE_TEXTS = {
    "database is locked": "SQLITE_BUSY",
    "database table is locked": "SQLITE_BUSY",
    "unable to open database file": "SQLITE_CANTOPEN",
    "attempt to write a readonly database": "SQLITE_READONLY",
    "database or disk is full": "SQLITE_FULL",
    "disk I/O error": "SQLITE_IOERR",
    "file is not a database": "SQLITE_NOTADB",
    "no such table": "no such table",
}
_TABLES = "To create them, have a DBA run: python -m mlflow_sqlserver_artifacts create-tables --url URI"


def _matches(
    sql_server: str = "", states: str = "", mariadb: str = "", others: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The rows' names for native numbers of SQL Server, SQLSTATEs, native numbers of MariaDB, and others."""
    named = (("SQL Server", sql_server), ("SQLSTATE", states), ("MariaDB", mariadb))
    return (*(f"{kind} {code}" for kind, codes in named for code in codes.split()), *others)


@dataclass(frozen=True)
class _Meaning:
    """MLflow's error code, the hint, what means it, and whether another attempt can help."""

    code: str
    hint: str
    matches: tuple[str, ...]
    may_pass: bool = False


_MEANINGS = (
    _Meaning(
        "TEMPORARILY_UNAVAILABLE",
        "The transaction was chosen as a deadlock's victim or could not be serialized.",
        _matches("1205 3960", "40001 40P01", "1213 1020"),
        may_pass=True,
    ),
    _Meaning(
        "TEMPORARILY_UNAVAILABLE",
        "The database or the network is slow or busy. It was tried several times; try again later.",
        _matches(
            "1222",
            "55P03 57014 HYT00 HYT01",
            "1205 1969 3024",
            ("SQLite SQLITE_BUSY", "SQLite SQLITE_LOCKED", "timeout", "sqlalchemy.exc.TimeoutError"),
        ),
        may_pass=True,
    ),
    _Meaning(
        "TEMPORARILY_UNAVAILABLE",
        "Azure SQL is failing over or throttles this database. It was tried several times; try again later.",
        _matches("4221 10928 10929 40197 40501 40540 40613 40615 42108 42109 49918 49919 49920"),
        may_pass=True,
    ),
    _Meaning(
        "TEMPORARILY_UNAVAILABLE",
        "The connection broke. It was tried several times; check the server's log and the network.",
        _matches(
            "64 121 233 10053 10054 10060",
            "08S01 08S02 08003 08006 08007 08P01 57P01 57P02 57P03",
            "2006 2013 2014 1927",
        ),
        may_pass=True,
    ),
    _Meaning(
        "TEMPORARILY_UNAVAILABLE",
        "Check host and port, that the server runs and listens there, and that no firewall is in between.",
        _matches("10061", "08001 08004", "2002 2003", ("unreachable",)),
        may_pass=True,
    ),
    _Meaning(
        "TEMPORARILY_UNAVAILABLE",
        "The server takes no more connections: lower MLFLOW_SQLSERVER_ARTIFACTS_CONNECTIONS or raise its limit.",
        _matches("17809", "53300", "1040 1203 1226"),
        may_pass=True,
    ),
    _Meaning(
        "UNAUTHENTICATED",
        "Check MLFLOW_SQLSERVER_ARTIFACTS_USERNAME and MLFLOW_SQLSERVER_ARTIFACTS_PASSWORD (or _PASSWORD_FILE).",
        _matches("18452 18456 18470 18486 18487 18488", "28000 28P01", "1045 1698", ("login refused",)),
    ),
    _Meaning(
        "RESOURCE_DOES_NOT_EXIST",
        "Create the database and let this user in, or correct the first part of the URI's path, which names it.",
        _matches("911 4060 4063 4064", "3D000", "1049", ("SQLite SQLITE_CANTOPEN", "SQLite SQLITE_NOTADB")),
    ),
    _Meaning(
        "RESOURCE_DOES_NOT_EXIST",
        f"The tables are missing. {_TABLES}",
        _matches("208 2760", "42P01 42S02 3F000", "1146", ("SQLite no such table",)),
    ),
    _Meaning(
        "PERMISSION_DENIED",
        f"Grant this user its rights on the tables (see 'Least privilege' in the README). {_TABLES}",
        _matches("229 230 262 916 15247", "42501 25006", "1044 1142 1143 1227 1290", ("SQLite SQLITE_READONLY",)),
    ),
    _Meaning("PERMISSION_DENIED", "The database is read-only: name its primary replica.", _matches("3906 978")),
    _Meaning(
        "RESOURCE_EXHAUSTED",
        "The database is out of space: free or add some.",
        _matches("1101 1105 9002 40544", "53100", "1021 1114", ("SQLite SQLITE_FULL",)),
    ),
    _Meaning("RESOURCE_EXHAUSTED", "The database server is out of memory.", _matches("701 8645", "53200", "1037 1038")),
    _Meaning(
        "FEATURE_DISABLED",
        "Install Microsoft's ODBC driver, or name the one that `odbcinst -q -d` shows in the URI's option 'driver'.",
        _matches("", "IM002 IM003 01000"),
    ),
    _Meaning(
        "FEATURE_DISABLED",
        "Install what the driver needs: pip install 'mlflow-sqlserver-artifacts[mssql-python]'.",
        ("sqlalchemy.exc.NoSuchModuleError",),
    ),
    _Meaning(
        "PERMISSION_DENIED",
        "The TLS connection failed. Set MLFLOW_SQLSERVER_ARTIFACTS_CA_FILE to the certificate to trust; if the network "
        "can be trusted, set MLFLOW_SQLSERVER_ARTIFACTS_TLS=require.",
        _matches("", "", "2026", ("TLS",)),
    ),
    _Meaning(
        "INVALID_PARAMETER_VALUE",
        "Lower MLFLOW_SQLSERVER_ARTIFACTS_CHUNK_SIZE, or raise the server's max_allowed_packet.",
        _matches("", "54000", "1153"),
    ),
    _Meaning(
        "IO_ERROR",
        "The database's disk reports an error: see its log.",
        _matches("823 824 825", "58030", "", ("SQLite SQLITE_IOERR",)),
    ),
    _Meaning("DATA_LOSS", "Content was damaged on its way: check the network.", ("damaged",), may_pass=True),
    _Meaning(
        "RESOURCE_CONFLICT",
        "Other processes wrote to the same place again and again: try again.",
        ("constraint",),
        may_pass=True,
    ),
    _Meaning("RESOURCE_CONFLICT", "Another process replaced or deleted it: try again.", ("changed",)),
    _Meaning("RESOURCE_CONFLICT", "It made no progress for too long and was removed: try again.", ("upload gone",)),
)


class DatabaseError(Exception):
    """What a database or its driver said, without the statement and its parameters.

    Attributes:
        code: a name that a row of `SQL_ERRORS` matches, or the driver's own where none does.
    """

    def __init__(self, message: str, code: str) -> None:
        super().__init__(message)
        self.code = code


SQL_ERRORS = ErrorTable(
    "SQL artifact store",
    [ErrorRow(match, meaning.code, meaning.hint) for meaning in _MEANINGS for match in meaning.matches],
    code_of=lambda exc: exc.code if isinstance(exc, DatabaseError) else None,
)
DEADLOCKS = frozenset(_MEANINGS[0].matches)
RETRYABLE = frozenset(match for meaning in _MEANINGS if meaning.may_pass for match in meaning.matches)


def database_error(exc: Any, family: str) -> DatabaseError:
    """The error for an exception of SQLAlchemy's that wraps a driver's.

    Args:
        exc: a `sqlalchemy.exc.DBAPIError`.
        family: `mssql`, `postgresql`, `mysql` or `sqlite`.
    """
    original = exc.orig if exc.orig is not None else exc
    text = " ".join(str(original).split())
    code = _code(original, text, family, is_integrity=type(exc).__name__ == "IntegrityError")
    return DatabaseError(text, code)


def is_retryable(error: BaseException) -> bool:
    """Whether trying again can help."""
    if isinstance(error, DatabaseError):
        return error.code in RETRYABLE
    row = SQL_ERRORS.row_for(error)
    return row is not None and row.match in RETRYABLE


def _code(original: Any, text: str, family: str, *, is_integrity: bool) -> str:
    if "chunks_sound" in text:
        return "damaged"  # the check of a chunk's checksum, which MariaDB counts as an operational error
    if is_integrity:
        return "constraint"
    known = {row.match for row in SQL_ERRORS.rows}
    candidates = list(_candidates(original, text, family))
    return next((c for c in candidates if c in known), candidates[0] if candidates else "unknown")


def _candidates(original: Any, text: str, family: str) -> list[str]:
    """The names that may stand for an error, the most telling first."""
    if family == "mysql":
        number = original.args[0] if getattr(original, "args", ()) else ""
        return ["TLS"] if _is_tls(text) else [f"MariaDB {number}"]
    if family == "sqlite":
        return [f"SQLite {_sqlite_name(original, text)}"]
    state = getattr(original, "sqlstate", None)
    if family == "postgresql":
        return [f"SQLSTATE {state}"] if state else [_libpq_meaning(text)]
    states = [str(a) for a in original.args[:1] if re.fullmatch(r"[0-9A-Z]{5}", str(a))] + _SQLSTATE.findall(text)
    found = [f"SQL Server {number}" for number in _NATIVE.findall(text) if number != "0"]
    if _is_tls(text):
        found.append("TLS")
    if "Data source name not found" in text or "Can't open lib" in text:
        found.insert(0, "SQLSTATE IM002")
    if "timeout expired" in text.lower():
        found.append("timeout")
    return [*found, *(f"SQLSTATE {s}" for s in states)]


def _is_tls(text: str) -> bool:
    return bool(re.search(r"SSL Provider|SSL error|certificate|CERTIFICATE_VERIFY|SSL connection|TLS", text))


def _libpq_meaning(text: str) -> str:
    """What a PostgreSQL client error without an SQLSTATE is about: libpq gives none where no server answered."""
    lower = text.lower()
    if "password authentication failed" in lower or "no password supplied" in lower or "no pg_hba" in lower:
        return "login refused"
    if 'database "' in lower and "does not exist" in lower:
        return "SQLSTATE 3D000"
    if "too many clients" in lower or "remaining connection slots" in lower:
        return "SQLSTATE 53300"
    if "starting up" in lower or "shutting down" in lower:
        return "SQLSTATE 57P03"
    if "certificate" in lower or "server does not support ssl" in lower:
        return "TLS"
    if "timeout expired" in lower:
        return "timeout"
    refused = ("connection refused", "could not translate", "no route", "name or service", "failed to resolve")
    return "unreachable" if any(word in lower for word in refused) else "SQLSTATE 08006"


def _sqlite_name(original: Any, text: str) -> str:
    """SQLite's name for an error; before Python 3.11 the driver gives no more than a text."""
    by_text = next((name for words, name in _SQLITE_TEXTS.items() if words in text), None)
    given = getattr(original, "sqlite_errorname", None) if isinstance(original, sqlite3.Error) else None
    return str(by_text or given or text)
