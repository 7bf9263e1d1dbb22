"""Credentials that are there already: an API key, and a token file that somebody else keeps fresh."""

from __future__ import annotations

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_request_auth.hosts import Origin
from mlflow_request_auth.settings import ApiKeySettings, TokenFileSettings, check_header_value, file_state

_log = get_logger("mlflow_request_auth")


class ApiKeyCredential:
    """A key in a header; where it comes from a file, a new file makes a new credential."""

    def __init__(self, settings: ApiKeySettings) -> None:
        self.header = settings.header_name
        self._value = settings.value

    def value(self, origin: Origin, *, resendable: bool) -> str:
        return self._value

    def replacement(self, origin: Origin, refused: str) -> str | None:
        return None

    def accepted(self) -> None:
        """Nothing to learn from it."""


class TokenFileCredential:
    """A bearer token from a file such as a mounted secret; read when its state on disk changes.

    While the file is missing, as in the moment of a rotation, the last token serves on.
    """

    header = "Authorization"

    def __init__(self, settings: TokenFileSettings) -> None:
        self._path = settings.token_file
        self._read: tuple[object, str] | None = None

    def value(self, origin: Origin, *, resendable: bool) -> str:
        state, read = file_state(self._path), self._read
        if read is not None and (state is None or state == read[0]):
            return read[1]
        value = self._load()
        self._read = (state, value)
        return value

    def replacement(self, origin: Origin, refused: str) -> str | None:
        state = file_state(self._path)
        value = self._load()
        self._read = (state, value)
        return value if value != refused else None

    def accepted(self) -> None:
        """Nothing to learn from it."""

    def _load(self) -> str:
        last = self._read
        try:
            with open(self._path, encoding="utf-8") as file:
                token = file.read(1 << 20).strip()
        except (OSError, UnicodeDecodeError) as exc:
            reason = exc.strerror if isinstance(exc, OSError) else "it is not UTF-8 text"
            if last is not None:
                _log.debug("The token file %s cannot be read now (%s); its last token serves on.", self._path, reason)
                return last[1]
            raise mlflow_error(
                f"The file {self._path!r} that MLFLOW_AUTH_TOKEN_FILE names cannot be read: {reason}.",
                "UNAUTHENTICATED",
            ) from None
        if not token and last is not None:
            return last[1]
        return check_header_value(f"Bearer {token}" if token else "", f"The token in {self._path!r}")
