"""Connections: one pool per process and database, short transactions, errors in the table's words."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc as sa_exc

from mlflow_plugkit.requirements import require
from mlflow_sqlserver_artifacts.errors import DatabaseError, database_error
from mlflow_sqlserver_artifacts.settings import DatabaseSettings
from mlflow_sqlserver_artifacts.urls import connect_arguments, database_url, driver_of

DISTRIBUTION = "mlflow-sqlserver-artifacts"
RECYCLE_SECONDS = 1800
MOST_DATABASES = 8  # whose connections a process keeps

_engines: dict[tuple[object, ...], sa.Engine] = {}
_lock = threading.Lock()


def _after_fork() -> None:
    """A child shares no connection with its parent: it forgets them, and leaves them open for the parent."""
    global _lock
    _lock = threading.Lock()
    for engine in _engines.values():
        engine.dispose(close=False)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def close_connections() -> None:
    """Close this process's idle connections to all databases; they are made anew where they are needed."""
    with _lock:
        while _engines:
            _engines.popitem()[1].dispose()


class Database:
    """Short transactions on the database that settings name. Making one connects to nothing.

    Isolation is READ COMMITTED (SQLite: its own serializable one): what must not change meanwhile is locked
    by the statement that reads it.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.family = settings.family

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection to read with.

        Raises:
            DatabaseError: what the database or its driver said.
        """
        with self._translated(), self._engine().connect() as connection, self._in_time(connection):
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction, which is committed at the end; errors as for `read`."""
        with self._translated(), self._engine().connect() as connection, self._in_time(connection):
            connection = connection.execution_options(plugkit_writes=True)
            with connection.begin():
                yield connection

    @property
    def _key(self) -> tuple[object, ...]:
        settings = self.settings
        url = database_url(settings)
        shared = (
            settings.connections,
            settings.connect_timeout,
            settings.timeout,
            settings.encryption,
            settings.ca_file,
        )
        return (url, *shared)

    def _engine(self) -> sa.Engine:
        key = self._key
        with _lock:
            engine = _engines.pop(key, None)
            if engine is None:
                engine = _make_engine(self.settings)
            _engines[key] = engine  # the most recently used one stands last
            for old in list(_engines)[:-MOST_DATABASES]:
                _engines.pop(old).dispose()
            return engine

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sa_exc.DBAPIError as exc:
            raise database_error(exc, self.family) from exc

    @contextmanager
    def _in_time(self, connection: sa.Connection) -> Iterator[None]:
        """Break a PostgreSQL connection that does not answer in time: libpq itself would wait for ever.

        The other drivers are given the timeout when they connect.
        """
        if self.family != "postgresql":
            yield
            return
        descriptor = os.dup(connection.connection.driver_connection.fileno())  # type: ignore[union-attr] # psycopg's
        late = threading.Event()
        timer = threading.Timer(self.settings.timeout, _break, (descriptor, late))
        timer.daemon = True
        timer.start()
        try:
            yield
        except sa_exc.DBAPIError as exc:
            if late.is_set():
                message = f"the database did not answer within {self.settings.timeout} seconds"
                raise DatabaseError(message, "timeout") from exc
            raise
        finally:
            timer.cancel()
            os.close(descriptor)


def _break(descriptor: int, late: threading.Event) -> None:
    late.set()
    with suppress(OSError), socket.socket(fileno=os.dup(descriptor)) as connection:
        connection.shutdown(socket.SHUT_RDWR)


def _make_engine(settings: DatabaseSettings) -> sa.Engine:
    module, extra = driver_of(settings)
    require(module, distribution=DISTRIBUTION, extra=extra)
    options: dict[str, Any] = {} if settings.family == "sqlite" else {"isolation_level": "READ COMMITTED"}
    engine = sa.create_engine(
        database_url(settings),
        connect_args=connect_arguments(settings),
        hide_parameters=True,
        pool_pre_ping=settings.family != "sqlite",
        pool_recycle=RECYCLE_SECONDS,
        poolclass=sa.QueuePool,
        pool_size=settings.connections,
        max_overflow=1,  # for the one that holds the lock while tables are created
        pool_timeout=max(settings.timeout, 30),
        **options,
    )
    if settings.family == "sqlite":
        sa.event.listen(engine, "connect", _prepare_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    elif settings.address.scheme.startswith("mssql"):
        sa.event.listen(engine, "connect", lambda connection, _: _limit_odbc(connection, settings.timeout))
    return engine


def _prepare_sqlite(connection: Any, _: object) -> None:
    connection.isolation_level = None  # the listener below begins transactions
    for pragma in ("journal_mode = WAL", "foreign_keys = ON", "synchronous = NORMAL"):
        connection.execute(f"PRAGMA {pragma}")


def _begin_sqlite(connection: sa.Connection) -> None:
    """Take the write lock at once: two readers that both want to write later could only fail."""
    writes = connection.get_execution_options().get("plugkit_writes")
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _limit_odbc(connection: Any, seconds: int) -> None:
    connection.timeout = seconds
