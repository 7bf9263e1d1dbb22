"""The table: what databases and their drivers say, and MLflow's error codes.

The numbers are those of sys.messages (SQL Server) and of "Transient errors" in the documentation of Azure
SQL Database, PostgreSQL's appendix A, MariaDB's and MySQL's server error reference and SQLite's result codes.
"""

from __future__ import annotations

import re
import sqlite3
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
_TIMES = "The database or the network is slow or busy. It was tried several times; try again later."
_LOGIN = "Check MLFLOW_SQLSERVER_ARTIFACTS_USERNAME and MLFLOW_SQLSERVER_ARTIFACTS_PASSWORD (or _PASSWORD_FILE)."
_DATABASE = "Create the database, or correct the first part of the URI's path, which names it."
_RIGHTS = "Grant this user SELECT, INSERT, UPDATE and DELETE on the tables; see 'Least privilege' in the README."
_TABLES = "Have a DBA run: python -m mlflow_sqlserver_artifacts create-tables --url URI --dry-run"
_DISK = "The database is out of space: free or add some."
_REACH = "Check host and port, that the server runs and listens there, and that no firewall is in between."
_CERTIFICATE = (
    "The TLS connection failed. Set MLFLOW_SQLSERVER_ARTIFACTS_CA_FILE to the certificate to trust; if the network can be "
    "trusted, set MLFLOW_SQLSERVER_ARTIFACTS_TLS=require."
)
_DRIVER = "Install Microsoft's ODBC driver, or name the one that `odbcinst -q -d` shows in the URI's option 'driver'."

_UNAVAILABLE, _DENIED, _UNAUTHENTICATED = "TEMPORARILY_UNAVAILABLE", "PERMISSION_DENIED", "UNAUTHENTICATED"
_MISSING, _FULL, _CONFLICT = "RESOURCE_DOES_NOT_EXIST", "RESOURCE_EXHAUSTED", "RESOURCE_CONFLICT"

# MLflow's error code, the hint, whether another attempt can help, and the errors that mean it.
_MEANINGS: tuple[tuple[str, str, bool, tuple[str, ...]], ...] = (
    (
        _UNAVAILABLE,
        "The transaction was chosen as a deadlock's victim or could not be serialized.",
        True,
        ("SQL Server 1205", "SQL Server 3960", "SQLSTATE 40001", "SQLSTATE 40P01", "MariaDB 1213", "MariaDB 1020"),
    ),
    (
        _UNAVAILABLE,
        _TIMES,
        True,
        ("SQL Server 1222", "SQLSTATE 55P03", "SQLSTATE 57014", "MariaDB 1205", "MariaDB 1969", "MariaDB 3024")
        + ("SQLite SQLITE_BUSY", "SQLite SQLITE_LOCKED", "SQLSTATE HYT00", "SQLSTATE HYT01"),
    ),
    (
        _UNAVAILABLE,
        "Azure SQL is failing over or throttles this database. It was tried several times; try again later.",
        True,
        tuple(f"SQL Server {n}" for n in (4060, 4221, 10928, 10929, 40197, 40501, 40540, 40613, 40615))
        + tuple(f"SQL Server {n}" for n in (42108, 42109, 49918, 49919, 49920)),
    ),
    (
        _UNAVAILABLE,
        "The connection broke. It was tried several times; check the server's log and the network.",
        True,
        tuple(f"SQL Server {n}" for n in (64, 121, 233, 10053, 10054, 10060, 10061))
        + ("SQLSTATE 08S01", "SQLSTATE 08S02", "SQLSTATE 08003", "SQLSTATE 08006", "SQLSTATE 08007", "SQLSTATE 57P01")
        + ("SQLSTATE 57P02", "SQLSTATE 57P03", "SQLSTATE 08P01", "MariaDB 2006", "MariaDB 2013", "MariaDB 2014"),
    ),
    (_UNAVAILABLE, _REACH, True, ("SQLSTATE 08001", "SQLSTATE 08004", "MariaDB 2002", "MariaDB 2003", "unreachable")),
    (
        _UNAVAILABLE,
        "The server takes no more connections: lower MLFLOW_SQLSERVER_ARTIFACTS_CONNECTIONS or raise its limit.",
        True,
        ("SQL Server 17809", "SQLSTATE 53300", "MariaDB 1040", "MariaDB 1203", "MariaDB 1226"),
    ),
    (_UNAUTHENTICATED, _LOGIN, False, ("SQL Server 18452", "SQL Server 18456", "SQL Server 18470", "SQL Server 18487")),
    (_UNAUTHENTICATED, _LOGIN, False, ("SQL Server 18488", "SQLSTATE 28000", "SQLSTATE 28P01", "MariaDB 1045")),
    (_UNAUTHENTICATED, _LOGIN, False, ("MariaDB 1698", "login refused")),
    (_MISSING, _DATABASE, False, ("SQL Server 911", "SQL Server 4063", "SQL Server 4064", "SQLSTATE 3D000")),
    (_MISSING, _DATABASE, False, ("MariaDB 1049", "SQLite SQLITE_CANTOPEN", "SQLite SQLITE_NOTADB")),
    (
        _MISSING,
        "The tables are missing. " + _TABLES,
        False,
        ("SQL Server 208", "SQLSTATE 42P01", "SQLSTATE 42S02", "SQLSTATE 3F000", "SQL Server 2760", "MariaDB 1146")
        + ("SQLite no such table",),
    ),
    (_DENIED, _RIGHTS, False, ("SQL Server 229", "SQL Server 230", "SQL Server 916", "SQLSTATE 42501", "MariaDB 1044")),
    (_DENIED, _RIGHTS, False, ("MariaDB 1142", "MariaDB 1143", "SQLite SQLITE_READONLY", "SQLSTATE 25006")),
    (_DENIED, "The database is read-only: name its primary replica.", False, ("SQL Server 3906", "MariaDB 1290")),
    (_DENIED, _TABLES, False, ("SQL Server 262", "SQL Server 15247")),
    (_FULL, _DISK, False, ("SQL Server 1101", "SQL Server 1105", "SQL Server 9002", "SQL Server 40544", "SQLSTATE 53100")),
    (_FULL, _DISK, False, ("MariaDB 1021", "MariaDB 1114", "SQLite SQLITE_FULL")),
    (_FULL, "The database server is out of memory.", True, ("SQL Server 701", "SQL Server 8645", "SQLSTATE 53200")),
    ("FEATURE_DISABLED", _DRIVER, False, ("SQLSTATE IM002", "SQLSTATE IM003", "SQLSTATE 01000")),
    ("FEATURE_DISABLED", "The driver is not installed.", False, ("sqlalchemy.exc.NoSuchModuleError",)),
    (_UNAVAILABLE, _CERTIFICATE, False, ("TLS",)),
    (
        "INVALID_PARAMETER_VALUE",
        "Lower MLFLOW_SQLSERVER_ARTIFACTS_CHUNK_SIZE, or raise the server's max_allowed_packet.",
        False,
        ("MariaDB 1153", "SQLSTATE 54000"),
    ),
    ("IO_ERROR", "The database's disk reports an error: see its log.", False, ("SQL Server 823", "SQL Server 824")),
    ("IO_ERROR", "The database's disk reports an error: see its log.", False, ("SQLSTATE 58030", "SQLite SQLITE_IOERR")),
    (
        _CONFLICT,
        "Another process wrote to the same place again and again.",
        True,
        ("constraint",),
    ),
    (_CONFLICT, "Another process replaced or deleted the artifact meanwhile: try again.", False, ("changed",)),
    (_CONFLICT, "The upload made no progress for too long and was cleaned up: try again.", False, ("upload gone",)),
    ("DATA_LOSS", "Content was damaged on its way to the database: check the network.", True, ("damaged",)),
    (_UNAVAILABLE, _TIMES, True, ("timeout", "sqlalchemy.exc.TimeoutError")),
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
    [ErrorRow(match, code, hint) for code, hint, _, matches in _MEANINGS for match in matches],
    code_of=lambda exc: exc.code if isinstance(exc, DatabaseError) else None,
)
DEADLOCKS = frozenset(_MEANINGS[0][3])
RETRYABLE = frozenset(match for _, _, helps, matches in _MEANINGS if helps for match in matches)


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
    if is_integrity:
        return "damaged" if "_sound" in text else "constraint"
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
    for words, name in _SQLITE_TEXTS.items():
        if words in text:
            return name
    name = getattr(original, "sqlite_errorname", None)  # Python 3.11 and newer
    return str(name) if name and isinstance(original, sqlite3.Error) else text
