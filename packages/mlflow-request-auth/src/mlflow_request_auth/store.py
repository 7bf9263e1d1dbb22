"""Where tokens are kept: in memory, in a 0600 file, or in the operating system's keyring."""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.requirements import require
from mlflow_request_auth.tokens import Token

if TYPE_CHECKING:
    from types import ModuleType

_log = get_logger("mlflow_request_auth")
SERVICE = "mlflow-request-auth"


class TokenStore(Protocol):
    """A place for one token that outlives the thread, and maybe the process, that got it."""

    def load(self) -> Token | None:
        """The stored token, or None."""

    def save(self, token: Token) -> None:
        """Replace the stored token."""

    def delete(self) -> bool:
        """Forget the stored token; whether there was one."""

    def locked(self, timeout: float) -> AbstractContextManager[bool]:
        """Hold the store's lock against other processes; gives False where it was not free in `timeout` seconds."""

    def describe(self) -> str:
        """Where it is, for people."""


class MemoryStore:
    """Keeps nothing beyond its `TokenSource`, so that another process gets a token of its own."""

    def load(self) -> Token | None:
        return None

    def save(self, token: Token) -> None:
        pass

    def delete(self) -> bool:
        return False

    @contextmanager
    def locked(self, timeout: float) -> Iterator[bool]:
        yield True

    def describe(self) -> str:
        return "in the memory of each process"


class _LockedStore:
    """The lock that a file and a keyring entry need: a file beside them, held through `filelock`."""

    def __init__(self, folder: Path, key: str) -> None:
        self.folder = folder
        self.key = key

    @contextmanager
    def locked(self, timeout: float) -> Iterator[bool]:
        from filelock import FileLock, Timeout

        make_private_folder(self.folder)
        # A new object for each use: a forked child must not inherit a lock that it believes to hold.
        lock = FileLock(self.folder / f"{self.key}.lock", mode=0o600)
        try:
            lock.acquire(timeout=timeout, poll_interval=0.02)
        except Timeout:
            yield False
            return
        except OSError as exc:
            raise mlflow_error(
                f"The lock {lock.lock_file} of the token cannot be used: {exc.strerror}. Name another folder in "
                "MLFLOW_AUTH_CACHE_DIR.",
                "PERMISSION_DENIED",
            ) from None
        try:
            yield True
        finally:
            lock.release()


class FileStore(_LockedStore):
    """One file for each identity, mode 0600 in a folder of mode 0700, replaced atomically."""

    @property
    def path(self) -> Path:
        return self.folder / f"{self.key}.json"

    def load(self) -> Token | None:
        try:
            text = self._read()
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise mlflow_error(
                f"The token file {self.path} cannot be read: {exc.strerror}. Make it readable for its owner alone, or "
                "delete it and run `mlflow-auth login`.",
                "PERMISSION_DENIED",
            ) from None
        try:
            return Token.from_json(text)
        except (ValueError, TypeError):
            _log.debug("The token file %s holds no token; it is written anew.", self.path)
            return None

    def _read(self) -> str:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        with os.fdopen(os.open(self.path, flags), encoding="utf-8", errors="replace") as file:
            found = os.fstat(file.fileno())
            shared = os.name != "nt" and (stat.S_IMODE(found.st_mode) & 0o077 or found.st_uid != os.geteuid())
            if shared or not stat.S_ISREG(found.st_mode):
                raise mlflow_error(
                    f"The token file {self.path} belongs to somebody else or can be read by others; delete it, or run "
                    f"`chmod 600` on it if you trust its content.",
                    "PERMISSION_DENIED",
                )
            return file.read()

    def save(self, token: Token) -> None:
        make_private_folder(self.folder)
        write_private_file(self.path, token.to_json())

    def delete(self) -> bool:
        try:
            self.path.unlink()
        except FileNotFoundError:
            return False
        return True

    def describe(self) -> str:
        return f"in the file {self.path}"


class KeyringStore(_LockedStore):
    """An entry of the operating system's keyring (extra `keyring`); the lock is a file without content."""

    @property
    def _keyring(self) -> ModuleType:
        return require("keyring", distribution=SERVICE, extra="keyring")

    def load(self) -> Token | None:
        keyring = self._keyring
        try:
            text = keyring.get_password(SERVICE, self.key)
        except keyring.errors.KeyringError as exc:
            raise _keyring_failed(exc) from None
        if text is None:
            return None
        try:
            return Token.from_json(text)
        except (ValueError, TypeError):
            return None

    def save(self, token: Token) -> None:
        keyring = self._keyring
        try:
            keyring.set_password(SERVICE, self.key, token.to_json())
        except keyring.errors.KeyringError as exc:
            raise _keyring_failed(exc) from None

    def delete(self) -> bool:
        keyring = self._keyring
        try:
            keyring.delete_password(SERVICE, self.key)
        except keyring.errors.PasswordDeleteError:
            return False
        except keyring.errors.KeyringError as exc:
            raise _keyring_failed(exc) from None
        return True

    def describe(self) -> str:
        return f"in the keyring {self._keyring.get_keyring().name}"


def _keyring_failed(exc: Exception) -> Exception:
    return mlflow_error(
        f"The keyring cannot be used ({type(exc).__name__}). Unlock it, or set MLFLOW_AUTH_CACHE=file.",
        "PERMISSION_DENIED",
    )


def default_folder() -> Path:
    """The user's state folder for this plugin."""
    from platformdirs import user_state_path

    return user_state_path(SERVICE, appauthor=False)


def make_private_folder(folder: Path) -> None:
    """Make a folder that only its owner can enter.

    Raises:
        MlflowException: `PERMISSION_DENIED`: it cannot be made.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as exc:
        raise mlflow_error(
            f"The folder {folder} for tokens cannot be made: {exc.strerror}. Name another one in "
            "MLFLOW_AUTH_CACHE_DIR, or set MLFLOW_AUTH_CACHE=memory.",
            "PERMISSION_DENIED",
        ) from None


def write_private_file(path: Path, text: str) -> None:
    """Replace a file in one step by one of mode 0600 with this text; a crash leaves the old or the new one.

    Raises:
        MlflowException: `PERMISSION_DENIED`: it cannot be written.
    """
    temporary = None
    try:
        # mkstemp makes the file with mode 0600 and O_EXCL, so that it never was anybody else's.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as exc:
        if temporary:
            with suppress(OSError):
                os.unlink(temporary)
        raise mlflow_error(f"The file {path} cannot be written: {exc.strerror}.", "PERMISSION_DENIED") from None
