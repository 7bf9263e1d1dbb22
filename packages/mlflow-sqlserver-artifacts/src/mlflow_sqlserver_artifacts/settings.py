"""Settings: the database that a URI names, and what only the environment may say.

    mssql+pyodbc://host:1433/database/artifact/root?driver=ODBC+Driver+18+for+SQL+Server

The first segment of the path is the database, the rest is the artifact root: MLflow appends a run's
path to the path of the URI and leaves the query at the end.
"""

from __future__ import annotations

import dataclasses
import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import SecretStr

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option
from mlflow_plugkit.uri import PluginURI

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "MLFLOW_SQLSERVER_ARTIFACTS"
KIBIBYTE, MEBIBYTE = 1024, 1024 * 1024
DEFAULT_DRIVER = "ODBC Driver 18 for SQL Server"
MICROSOFT_DRIVER = re.compile(r"ODBC Driver \d{2}(\.\d)? for SQL Server")
IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,31}")
SQLITE_FILE = re.compile(r"^(?P<file>/(?:[^/]+/)*?[^/]+\.(?:db|sqlite|sqlite3))(?:/(?P<root>.*))?$")

# Connection keywords of Microsoft's driver in lower case, and the options that stand for them here.
ODBC_KEYWORDS = {
    "trustservercertificate": "trust_server_certificate",
    "applicationintent": "application_intent",
    "multisubnetfailover": "multi_subnet_failover",
    "connectretrycount": "connect_retry_count",
    "connectretryinterval": "connect_retry_interval",
    "keepalive": "keep_alive",
    "keepaliveinterval": "keep_alive_interval",
    "ipaddresspreference": "ip_address_preference",
    "packetsize": "packet_size",
}
Authentication = Literal[
    "SqlPassword",
    "ActiveDirectoryDefault",
    "ActiveDirectoryIntegrated",
    "ActiveDirectoryMsi",
    "ActiveDirectoryPassword",
    "ActiveDirectoryServicePrincipal",
]


@dataclass(frozen=True, kw_only=True)
class DatabaseSettings(Settings):
    """What all databases have in common.

    Options that could weaken TLS, name a file or a library, or use up the server are read from the
    environment alone: an MLflow server also resolves URIs that its clients named.
    """

    schemes: ClassVar[tuple[str, ...]] = (
        "mssql",
        "mssql+pyodbc",
        "mssql+mssqlpython",
        "sql+postgresql",
        "sql+mariadb",
        "sql+mysql",
        "sql+sqlite",
    )

    username: str | None = option(None, env=f"{PREFIX}_USERNAME", in_uri=False, help="User to log in as.")
    password: SecretStr | None = option(None, env=f"{PREFIX}_PASSWORD", help="Password of that user.")
    schema: str | None = option(
        None, env=f"{PREFIX}_SCHEMA", help="Database schema of the tables; the user's default schema unless given."
    )
    table_prefix: str = option(
        "mlflow_artifact_", env=f"{PREFIX}_TABLE_PREFIX", help="How the names of the tables begin."
    )
    tls: Literal["verify", "require", "off"] | None = option(
        None,
        env=f"{PREFIX}_TLS",
        in_uri=False,
        help="`verify` encrypts and checks the server's certificate, `require` encrypts only. Unless given: `off` for "
        "a loopback address, `verify` for all others.",
    )
    ca_file: str | None = option(
        None,
        env=f"{PREFIX}_CA_FILE",
        in_uri=False,
        help="PEM file of the authority that signed the server's certificate; for SQL Server the server's own "
        "certificate (ODBC keyword `ServerCertificate`, driver 18.1 or newer).",
    )
    create_tables: bool = option(
        True, env=f"{PREFIX}_CREATE_TABLES", in_uri=False, help="Create the tables on first use where they are missing."
    )
    connect_timeout: int = option(
        15, env=f"{PREFIX}_CONNECT_TIMEOUT", in_uri=False, help="Seconds to wait for a connection."
    )
    timeout: int = option(
        120, env=f"{PREFIX}_TIMEOUT", in_uri=False, help="Seconds that one statement or small transaction may take."
    )
    connections: int = option(
        8, env=f"{PREFIX}_CONNECTIONS", in_uri=False, help="Most connections of one process to one database."
    )
    chunk_size: int = option(
        MEBIBYTE, env=f"{PREFIX}_CHUNK_SIZE", in_uri=False, help="Bytes of content in one row, 65536 to 8388608."
    )
    stale_after: int = option(
        900,
        env=f"{PREFIX}_STALE_AFTER",
        in_uri=False,
        help="Seconds without progress after which the next upload of any process removes an unfinished one.",
    )

    @classmethod
    def _read(cls, uri: PluginURI | None, environ: Mapping[str, str]) -> Self:
        settings = super()._read(_with_option_names(uri) if uri else None, environ)
        settings.check()
        return settings

    def check(self) -> None:
        """Refuse what no connection could be made of.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`.
        """
        _ = self.database
        for name, value in (("schema", self.schema), ("table_prefix", self.table_prefix)):
            if value is not None and not IDENTIFIER.fullmatch(value):
                raise mlflow_error(f"Option {name!r} is {value!r}. Use letters, digits and '_', at most 32 of them.")
        if not 64 * KIBIBYTE <= self.chunk_size <= 8 * MEBIBYTE:
            raise mlflow_error(f"{PREFIX}_CHUNK_SIZE is {self.chunk_size}. Give 65536 to 8388608 bytes.")
        for name in ("connect_timeout", "timeout", "connections", "stale_after"):
            if getattr(self, name) < 1:
                raise mlflow_error(f"{PREFIX}_{name.upper()} is {getattr(self, name)}. Give a number from 1 on.")

    @property
    def address(self) -> PluginURI:
        """The parsed URI; settings of a database always have one."""
        assert self.uri is not None
        return self.uri

    @property
    def family(self) -> Literal["mssql", "postgresql", "mysql", "sqlite"]:
        """The kind of database: MariaDB counts as `mysql`, as SQLAlchemy has it."""
        name = self.address.scheme.removeprefix("sql+").partition("+")[0]
        return "mysql" if name == "mariadb" else name  # type: ignore[return-value] # `schemes` bounds it

    @property
    def database(self) -> str:
        """The database's name; the file's path for SQLite."""
        return self._split()[0]

    @property
    def root(self) -> str:
        """The artifact root within the database, "" for all of it."""
        return self._split()[1]

    @property
    def location(self) -> str:
        """Where the artifacts are, without user, password and options."""
        uri = self.address
        port = f":{uri.port}" if uri.port else ""
        host = f"[{uri.host}]" if ":" in uri.host else uri.host
        return f"{uri.scheme}://{host}{port}{uri.path}"

    @property
    def is_loopback(self) -> bool:
        """Whether the database is on this machine."""
        if self.family == "sqlite" or self.address.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.address.host).is_loopback
        except ValueError:
            return False

    @property
    def encryption(self) -> Literal["verify", "require", "off"]:
        """The TLS mode in force."""
        return self.tls or ("off" if self.is_loopback else "verify")

    def _split(self) -> tuple[str, str]:
        uri = self.address
        if self.family == "sqlite":
            match = SQLITE_FILE.match(uri.path)
            if uri.host or match is None:
                raise mlflow_error(
                    f"{uri} names no SQLite file. Write sql+sqlite:///folder/artifacts.db: an absolute path that ends "
                    "in .db, .sqlite or .sqlite3."
                )
            return match["file"], match["root"] or ""
        if not re.fullmatch(r"[a-z0-9._:-]+", uri.host):
            raise mlflow_error(f"{uri} names no valid host. Write {uri.scheme}://host:port/database.")
        database, _, root = uri.path.lstrip("/").partition("/")
        if not database or re.search(r"[;{}=]", database):
            raise mlflow_error(f"{uri} names no valid database. Write {uri.scheme}://host:port/database.")
        return database, root.strip("/")


@dataclass(frozen=True, kw_only=True)
class SqlServerSettings(DatabaseSettings):
    """A `mssql+pyodbc:` or `mssql+mssqlpython:` URI (`mssql:` means the former).

    Microsoft's own spelling of the driver's keywords (`TrustServerCertificate`) is understood, too.
    """

    schemes: ClassVar[tuple[str, ...]] = ("mssql", "mssql+pyodbc", "mssql+mssqlpython")

    driver: str = option(
        DEFAULT_DRIVER,
        env=f"{PREFIX}_DRIVER",
        help="Name of the ODBC driver (pyodbc). In a URI only Microsoft's, such as `ODBC Driver 18 for SQL Server`.",
    )
    encrypt: Literal["strict", "mandatory", "yes", "optional", "no"] | None = option(
        None, help="ODBC keyword `Encrypt`. A URI cannot make it weaker than the TLS mode in force."
    )
    trust_server_certificate: Literal["yes", "no"] | None = option(
        None, help="ODBC keyword `TrustServerCertificate`. A URI cannot make it weaker than the TLS mode in force."
    )
    host_name_in_certificate: str | None = option(
        None,
        env=f"{PREFIX}_HOST_NAME_IN_CERTIFICATE",
        in_uri=False,
        help="ODBC keyword `HostNameInCertificate`: the certificate's name where it is not the host's.",
    )
    authentication: Authentication | None = option(
        None, env=f"{PREFIX}_AUTHENTICATION", help="ODBC keyword `Authentication`, for Microsoft Entra ID."
    )
    trusted_connection: Literal["yes", "no"] | None = option(None, help="ODBC keyword `Trusted_Connection` (Kerberos).")
    application_intent: Literal["ReadWrite", "ReadOnly"] | None = option(None, help="ODBC keyword `ApplicationIntent`.")
    multi_subnet_failover: Literal["yes", "no"] | None = option(None, help="ODBC keyword `MultiSubnetFailover`.")
    connect_retry_count: int | None = option(None, help="ODBC keyword `ConnectRetryCount`.")
    connect_retry_interval: int | None = option(None, help="ODBC keyword `ConnectRetryInterval`, in seconds.")
    keep_alive: int | None = option(None, help="ODBC keyword `KeepAlive`, in seconds.")
    keep_alive_interval: int | None = option(None, help="ODBC keyword `KeepAliveInterval`, in seconds.")
    ip_address_preference: Literal["IPv4First", "IPv6First", "UsePlatformDefault"] | None = option(
        None, help="ODBC keyword `IpAddressPreference`."
    )
    packet_size: int | None = option(None, help="ODBC keyword `PacketSize`, in bytes.")

    def check(self) -> None:
        super().check()
        in_uri = dict(self.address.query)
        if "driver" in in_uri and not MICROSOFT_DRIVER.fullmatch(self.driver):
            raise mlflow_error(
                f"The driver {self.driver!r} cannot be named in a URI, which a server may have got from a client. "
                f"Set {PREFIX}_DRIVER where the code runs, or name one of Microsoft's drivers."
            )
        if self.encryption != "off" and self.encrypt in ("no", "optional"):
            raise self._weaker("Encrypt", self.encrypt, "off")
        if self.encryption == "verify" and self.trust_server_certificate == "yes":
            raise self._weaker("TrustServerCertificate", "yes", "require")

    def _weaker(self, keyword: str, value: str, needed: str) -> Exception:
        return mlflow_error(
            f"{self.address} asks for {keyword}={value}, but the TLS mode in force is {self.encryption!r}. If the "
            f"network can be trusted, set {PREFIX}_TLS={needed} in the environment of the process that connects."
        )


SETTINGS: Mapping[str, type[DatabaseSettings]] = dict.fromkeys(SqlServerSettings.schemes, SqlServerSettings)


def read_settings(uri: str, environ: Mapping[str, str] | None = None) -> DatabaseSettings:
    """The settings of an artifact URI, of the class for its scheme.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`, as `Settings.from_uri`.
    """
    scheme = uri.partition(":")[0].lower()
    return SETTINGS.get(scheme, DatabaseSettings).from_uri(uri, environ)


def _with_option_names(uri: PluginURI) -> PluginURI:
    """The URI with our option names for ODBC keywords, which are not case-sensitive.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for an option given in two spellings.
    """
    query = tuple((_option_name(name), value) for name, value in uri.query)
    names = [name for name, _ in query]
    for name in names:
        if names.count(name) > 1:
            raise mlflow_error(f"Option {name!r} stands twice in {uri}. Keep one.")
    return dataclasses.replace(uri, query=query)


def _option_name(name: str) -> str:
    lower = name.lower()
    return ODBC_KEYWORDS.get(lower, lower.replace("-", "_"))
