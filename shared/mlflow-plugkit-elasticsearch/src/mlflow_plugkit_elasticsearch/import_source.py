"""Where an import reads from: MLflow's own stores, whatever URI they are opened by.

Everything is read through the methods of MLflow's stores, so that a database and a server are both sources. What
these methods do not tell, or tell one row at a time, comes from the tables of a database where the source is one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import redact_text
from mlflow_plugkit_elasticsearch.encode import document_id

T = TypeVar("T")
#: Codes by which a store or an older server says that it has no such thing.
_ABSENT = frozenset({"NOT_IMPLEMENTED", "ENDPOINT_NOT_FOUND"})
_ROWS_AT_ONCE = 10_000


class ImportSource:
    """The tracking store and the registry of one URI.

    Args:
        uri: as MLflow takes it: `sqlite:///mlflow.db`, `postgresql://...`, `http://server`.

    Attributes:
        location: the URI without user, password and query; what is shown and stored.
        secrets: what must not be shown.
        key: tells sources apart, for checkpoints.
    """

    def __init__(self, uri: str) -> None:
        parts = _parsed(uri)
        if not parts.scheme or parts.scheme.startswith("elasticsearch"):
            raise mlflow_error(
                f"{redact_text(uri)} is no source. Name a database or a server: sqlite:///mlflow.db, "
                "postgresql://user@host/mlflow, http://host:5000."
            )
        self.is_server = parts.scheme in ("http", "https")
        self.location = _location(parts)
        self.secrets = _secrets(parts)
        self.key = document_id("import source", self.location)[:32]
        self._uri = _without_login(parts) if self.is_server else uri
        self._login = (unquote(parts.username or ""), unquote(parts.password or "")) if self.is_server else ("", "")
        if parts.scheme.startswith("sqlite"):
            _check_file(parts.path)

    def redact(self, text: str) -> str:
        """The text without this source's secrets."""
        return redact_text(text, self.secrets)

    @cached_property
    def tracking(self) -> Any:
        """MLflow's tracking store of the URI."""
        from mlflow.tracking._tracking_service.utils import _get_store

        return self._opened(lambda: _get_store(self._uri))

    @cached_property
    def registry(self) -> Any:
        """MLflow's registry store of the URI."""
        from mlflow.tracking._model_registry.utils import _get_store

        return self._opened(lambda: _get_store(self._uri))

    def _opened(self, get: Callable[[], Any]) -> Any:
        for name, value in zip(("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"), self._login, strict=True):
            if value:
                os.environ[name] = value  # where MLflow's client looks at each request
        try:
            return get()
        except Exception as exc:  # noqa: BLE001 # drivers raise what they like, with the URI in it
            reason = self.redact(str(exc)).splitlines() or [type(exc).__name__]
            raise mlflow_error(
                f"Could not open {self.location}: {reason[0]}. Check the URI; a database needs the package mlflow and "
                "its driver, and `mlflow db upgrade` where an older MLflow made it."
            ) from None

    @property
    def is_database(self) -> bool:
        """Whether `rows` can be asked."""
        return getattr(self.tracking, "engine", None) is not None

    def rows(
        self,
        table: str,
        columns: Sequence[str],
        where: Mapping[str, Any],
        order: Sequence[str] = (),
        *,
        distinct: bool = False,
    ) -> Iterator[Any]:
        """Rows of a table of the database, a few thousand in memory at a time; none where the table is missing.

        Args:
            table: its name.
            columns: to read, in this order.
            where: column names and the value, or the list of values, that they must have; None for NULL.
            order: columns to sort by.
            distinct: each row once.
        """
        import sqlalchemy as sa

        engine = self.tracking.engine
        if table not in self._tables:
            return
        named = sa.table(table, *(sa.column(name) for name in dict.fromkeys([*columns, *where, *order])))
        query = sa.select(*(named.c[name] for name in columns)).order_by(*(named.c[name] for name in order))
        query = query.distinct() if distinct else query
        for name, value in where.items():
            column = named.c[name]
            query = query.where(column.in_(list(value)) if isinstance(value, list | tuple | set) else column == value)
        with engine.connect().execution_options(stream_results=True, yield_per=_ROWS_AT_ONCE) as connection:
            for part in connection.execute(query).partitions():
                yield from part

    @cached_property
    def _tables(self) -> frozenset[str]:
        import sqlalchemy as sa

        return frozenset(sa.inspect(self.tracking.engine).get_table_names())

    def close(self) -> None:
        """Give back the connections to a database."""
        for name in ("tracking", "registry"):
            engine = getattr(self.__dict__.get(name), "engine", None)
            if engine is not None:
                engine.dispose()


def optional(ask: Callable[[], T], default: T) -> T:
    """What a store answers, or the default where it, or its server, has no such method."""
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except (AttributeError, NotImplementedError):
        return default
    except MlflowException as exc:
        if exc.error_code in _ABSENT or "not implemented" in type(exc).__name__.lower():
            return default
        raise


def all_pages(read: Callable[[str | None], tuple[Sequence[T], str | None]]) -> Iterator[T]:
    """The items of all pages."""
    token: str | None = None
    while True:
        items, token = read(token)
        yield from items
        if not token:
            return


def page_of(ask: Callable[[], Any]) -> tuple[Sequence[Any], str | None]:
    """The page that a store answers, or none where it has no such method."""
    nothing: tuple[Sequence[Any], str | None] = ([], None)
    return optional(lambda: paged(ask()), nothing)


def paged(answer: Any) -> tuple[Sequence[Any], str | None]:
    """A page as MLflow's stores answer it: a `PagedList`, a pair, or a plain list; some give tokens as bytes."""
    items, token = answer if isinstance(answer, tuple) else (answer, getattr(answer, "token", None))
    return items, (token.decode() if isinstance(token, bytes) else token) or None


def _parsed(uri: str) -> Any:
    """The parts of a URI.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    try:
        parts = urlsplit(uri)
        _ = parts.port  # read here: it is parsed when it is asked for
    except ValueError:  # whose message may hold a part of the password
        raise mlflow_error(
            f"{redact_text(uri)} is no valid URI. Write '/' as %2F and '@' as %40 where they are part of a password."
        ) from None
    return parts


def _location(parts: Any) -> str:
    if parts.scheme.startswith("sqlite"):
        return f"{parts.scheme}:///{Path(parts.path[1:]).absolute()}"
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    return str(urlunsplit((parts.scheme, f"{host}{port}", parts.path.rstrip("/"), "", "")))


def _without_login(parts: Any) -> str:
    return str(urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])))


def _secrets(parts: Any) -> tuple[str, ...]:
    """The password as it stands in the URI, decoded, and encoded; what the query holds, too."""
    found = [parts.password or "", parts.query]
    decoded = unquote(parts.password or "")
    return tuple(dict.fromkeys(text for text in (*found, decoded, quote(decoded, safe="")) if text))


def _check_file(path: str) -> None:
    """Refuse a missing file, which SQLite would make.

    Raises:
        MlflowException: `RESOURCE_DOES_NOT_EXIST`.
    """
    file = Path(path[1:])
    if not file.is_file():
        raise mlflow_error(
            f"There is no file {file}. Check the path: sqlite:///relative or sqlite:////absolute.",
            "RESOURCE_DOES_NOT_EXIST",
        )
