"""MLflow's error vocabulary, and the table that maps a backend's errors to it.

A plugin states its backend's errors once, as rows of an `ErrorTable`, and wraps each operation in
`with TABLE.applied("upload a.txt")`. An error that no row knows passes through unchanged, so that
nothing unknown is ever hidden behind a friendly sentence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mlflow_plugkit.uri import redact_text

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

T = TypeVar("T")


def mlflow_error(message: str, code: str = "INVALID_PARAMETER_VALUE") -> MlflowException:
    """Make an `MlflowException` with the error code named `code`.

    Args:
        message: what happened and what to do next. URIs with a password in it are redacted.
        code: a name from MLflow's `ErrorCode` (mlflow/protos/databricks.proto); it decides the HTTP status.

    Raises:
        ValueError: MLflow has no error code of that name.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import ErrorCode

    return MlflowException(redact_text(message), error_code=ErrorCode.Value(code))


def not_implemented(operation: str, reason: str) -> MlflowException:
    """Make the error for an operation that this backend does not offer: `NOT_IMPLEMENTED`, HTTP 501.

    MLflow's server turns a bare `NotImplementedError` into an HTML page with status 500, which its UI
    cannot read; this answer is JSON.
    """
    return mlflow_error(f"{operation} is not supported: {reason}", "NOT_IMPLEMENTED")


def without(reason: str, *operations: str) -> Callable[[type[T]], type[T]]:
    """Class decorator: the named operations of the class answer `not_implemented`.

    For a store that builds on another one and does not offer all that MLflow may call.

    Args:
        reason: why, for the user.
        operations: method names; an MLflow that does not know one never calls it.
    """

    def decorate(cls: type[T]) -> type[T]:
        for name in operations:
            setattr(cls, name, _refusal(name, reason))
        return cls

    return decorate


def _refusal(name: str, reason: str) -> Callable[..., Any]:
    def refuse(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise not_implemented(name, reason)

    refuse.__name__ = name
    refuse.refusal = reason  # type: ignore[attr-defined] # what a list of a store's methods shows
    return refuse


@dataclass(frozen=True)
class ErrorRow:
    """One row of a backend's error table.

    Attributes:
        match: the backend's own error code (`NoSuchKey`), or the full name of an exception class
            (`botocore.exceptions.NoCredentialsError`); subclasses match too. Names, not classes, so
            that a table needs no SDK to be imported.
        code: the name of MLflow's error code.
        hint: what the user can do about it, one sentence.
    """

    match: str
    code: str
    hint: str = ""


class ErrorTable:
    """The errors of one backend in MLflow's vocabulary.

    Args:
        service: how the user calls the backend, for the start of each message ("Alibaba OSS").
        rows: backend codes take precedence over exception classes, and a class over its bases.
        code_of: reads the backend's own code from an exception, or returns None.

    Raises:
        ValueError: two rows match the same name.

    Example:
        >>> table = ErrorTable("Demo", [ErrorRow("builtins.KeyError", "RESOURCE_DOES_NOT_EXIST", "Check the key.")])
        >>> table.row_for(KeyError("a")).code
        'RESOURCE_DOES_NOT_EXIST'
    """

    def __init__(
        self,
        service: str,
        rows: Iterable[ErrorRow],
        code_of: Callable[[BaseException], str | None] = lambda _: None,
    ) -> None:
        self.service = service
        self.rows = tuple(rows)
        self._by_match = {row.match: row for row in self.rows}
        self._code_of = code_of
        if len(self._by_match) != len(self.rows):
            raise ValueError(f"{service}: two rows of the error table match the same name")

    def row_for(self, exc: BaseException) -> ErrorRow | None:
        """The row that knows this exception, or None."""
        code = self._code_of(exc)
        if code in self._by_match:
            return self._by_match[code]
        names = (f"{cls.__module__}.{cls.__qualname__}" for cls in type(exc).__mro__)
        return next((self._by_match[name] for name in names if name in self._by_match), None)

    @contextmanager
    def applied(self, operation: str, secrets: Iterable[str] = ()) -> Iterator[None]:
        """Run a block; raise what the table knows as `MlflowException`, and let the rest pass.

        Args:
            operation: what was being done, for the message ("upload model.pkl").
            secrets: values that must not be printed. They are scrubbed from the message; where the
                chain of causes would show one, the chain is left out of the traceback.

        Raises:
            MlflowException: with the row's error code, and the original error as its cause.
        """
        try:
            yield
        except Exception as exc:
            row = self.row_for(exc)
            if row is None or _is_mlflow_exception(exc):
                raise
            secrets = tuple(secrets)
            detail = redact_text(str(exc) or type(exc).__name__, secrets).rstrip(".")
            message = f"{self.service}: could not {operation}: {detail}. {row.hint}".rstrip()
            error = mlflow_error(message, row.code)
            if _chain_shows(exc, secrets):
                raise error from None
            raise error from exc


def _is_mlflow_exception(exc: BaseException) -> bool:
    from mlflow.exceptions import MlflowException

    return isinstance(exc, MlflowException)


def _chain_shows(exc: BaseException | None, secrets: tuple[str, ...]) -> bool:
    """Whether the printed chain of causes would show a secret, known or recognised by its shape."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        text = f"{exc!s} {exc!r}"
        if redact_text(text, secrets) != text:
            return True
        exc = exc.__cause__ or exc.__context__
    return False
