"""What SQLAlchemy and the driver are told: the URL, the connection keywords and TLS."""

from __future__ import annotations

import ssl
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine.interfaces import Dialect

from mlflow_sqlserver_artifacts.settings import DatabaseSettings, SqlServerSettings

# SQLAlchemy's name for dialect and driver, the driver's module, and our extra that installs it.
_DRIVERS: dict[str, tuple[str, str, str | None]] = {
    "mssql": ("mssql+pyodbc", "pyodbc", "pyodbc"),
    "mssql+pyodbc": ("mssql+pyodbc", "pyodbc", "pyodbc"),
    "mssql+mssqlpython": ("mssql+mssqlpython", "mssql_python", "mssql-python"),
    "sql+postgresql": ("postgresql+psycopg", "psycopg", "postgresql"),
    "sql+mariadb": ("mariadb+pymysql", "pymysql", "mariadb"),
    "sql+mysql": ("mysql+pymysql", "pymysql", "mariadb"),
    "sql+sqlite": ("sqlite+pysqlite", "sqlite3", None),
}


def driver_of(settings: DatabaseSettings) -> tuple[str, str | None]:
    """The module of the driver, and the extra of this package that installs it."""
    return _DRIVERS[settings.address.scheme][1:]


def database_url(settings: DatabaseSettings) -> sa.URL:
    """SQLAlchemy's URL; its repr hides the password."""
    name = _DRIVERS[settings.address.scheme][0]
    if settings.family == "sqlite":
        return sa.URL.create(name, database=settings.database)
    return sa.URL.create(
        name,
        username=settings.username,
        password=settings.password.get_secret_value() if settings.password else None,
        host=settings.address.host,
        port=settings.address.port,
        database=settings.database,
        query=odbc_keywords(settings) if isinstance(settings, SqlServerSettings) else {},
    )


def odbc_keywords(settings: SqlServerSettings) -> dict[str, str]:
    """The connection keywords of Microsoft's ODBC driver, TLS included."""
    encryption = settings.encryption
    encrypt = settings.encrypt or ("no" if encryption == "off" else "yes")
    trust = settings.trust_server_certificate or ("no" if encryption == "verify" else "yes")
    given = {
        "driver": settings.driver if settings.address.scheme != "mssql+mssqlpython" else None,
        "Encrypt": encrypt,
        "TrustServerCertificate": trust,
        "HostNameInCertificate": settings.host_name_in_certificate,
        "ServerCertificate": settings.ca_file,
        # SQLAlchemy looks for this one in lower case, before it falls back on Trusted_Connection.
        "authentication": settings.authentication,
        "Trusted_Connection": settings.trusted_connection,
        "ApplicationIntent": settings.application_intent,
        "MultiSubnetFailover": settings.multi_subnet_failover,
        "ConnectRetryCount": settings.connect_retry_count,
        "ConnectRetryInterval": settings.connect_retry_interval,
        "KeepAlive": settings.keep_alive,
        "KeepAliveInterval": settings.keep_alive_interval,
        "IpAddressPreference": settings.ip_address_preference,
        "PacketSize": settings.packet_size,
    }
    return {name: str(value) for name, value in given.items() if value is not None}


def dialect_of(settings: DatabaseSettings) -> Dialect:
    """SQLAlchemy's dialect for these settings, which needs neither the driver nor a server."""
    dialect: Dialect = database_url(settings).get_dialect()()
    return dialect


def connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    """What the driver's `connect` is called with beside the URL."""
    if settings.family == "sqlite":
        return {"timeout": settings.timeout, "check_same_thread": False}
    if settings.family == "postgresql":
        return {"connect_timeout": settings.connect_timeout, "cursor_factory": _binary_cursor(), **_libpq_tls(settings)}
    if settings.family == "mysql":
        times = {"read_timeout": settings.timeout, "write_timeout": settings.timeout}
        tls = _tls_context(settings)
        secured = {"ssl": tls} if tls else {"ssl_disabled": True}
        # PyMySQL would encode a text as Latin-1.
        login = {"password": settings.password.get_secret_value().encode()} if settings.password else {}
        return {"connect_timeout": settings.connect_timeout, "charset": "utf8mb4", **login, **times, **secured}
    return {"timeout": settings.connect_timeout}


def _binary_cursor() -> Any:
    """A cursor that fetches bytes as they are: as text, PostgreSQL would send two characters for each."""
    import psycopg
    from psycopg.pq import Format

    class BinaryCursor(psycopg.Cursor[Any]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.format = Format.BINARY

    return BinaryCursor


def _libpq_tls(settings: DatabaseSettings) -> dict[str, str]:
    if settings.encryption == "verify":
        return {"sslmode": "verify-full", "sslrootcert": settings.ca_file or "system"}
    return {"sslmode": "require" if settings.encryption == "require" else "disable", "gssencmode": "disable"}


def _tls_context(settings: DatabaseSettings) -> ssl.SSLContext | None:
    if settings.encryption == "off":
        return None
    context = ssl.create_default_context(cafile=settings.ca_file)
    if settings.encryption == "require":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
