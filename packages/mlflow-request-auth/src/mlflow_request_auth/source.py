"""One token for all threads and processes: got once, renewed before its end, by one of them at a time."""

from __future__ import annotations

import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_request_auth.store import TokenStore
from mlflow_request_auth.tokens import Token

if TYPE_CHECKING:
    from mlflow.exceptions import MlflowException

    from mlflow_request_auth.settings import TokenSettings

_log = get_logger("mlflow_request_auth")
AHEAD_PART, MARGIN_PART = 0.3, 0.1
REFUSAL_PAUSE = 30.0
"""Seconds without renewal after a token that was fresh has been refused, too: a new one would not help."""
FAILURE_PAUSE = 5.0
"""Seconds for which requests share the last failure instead of asking a provider that has just said no."""
_sources: weakref.WeakSet[TokenSource] = weakref.WeakSet()


class Unavailable(Exception):  # noqa: N818 # not an error yet: the caller tries again
    """The token provider cannot answer now: it is down, unreachable, overloaded or too slow."""


@dataclass(frozen=True)
class _Held:
    """A token in use. Its end is watched on two clocks, as either may be set while training runs."""

    token: Token
    ahead: float
    margin: float
    deadline: float
    since: float = field(default_factory=time.monotonic)

    def left(self) -> float:
        return min(self.token.seconds_left(), self.deadline - time.monotonic())


class TokenSource:
    """Hands out a valid access token; the work behind `MLFLOW_TRACKING_AUTH=oauth2` and `command`.

    A request that finds the token valid takes it without a lock. Shortly before the end the first one
    to see it renews it, while the others go on with the old one; where there is no valid token, all wait
    for that one. Across processes a store's lock does the same.

    Args:
        fetch: gets a new token; takes the one before, or None. Raises `Unavailable` where it is worth
            trying again, and MlflowException where it is not.
        store: where the token is kept for other processes.
        settings: lead, margin and patience.
    """

    def __init__(self, fetch: Callable[[Token | None], Token], store: TokenStore, settings: TokenSettings) -> None:
        self._fetch = fetch
        self._store = store
        self._settings = settings
        self._held: _Held | None = None
        self._last: Token | None = None
        self._next_attempt = 0.0
        self._attempts = 0
        self._failure: tuple[float, str, str] | None = None
        self._renewed_after_refusal = -REFUSAL_PAUSE
        self._lock = threading.Lock()
        _sources.add(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store.describe()})"

    def token(self, *, resendable: bool = True) -> Token:
        """A valid token.

        Args:
            resendable: whether the request could be sent again after a refusal. If not, it is worth
                waiting for a renewal that is due.

        Raises:
            MlflowException: `TEMPORARILY_UNAVAILABLE` after `patience` seconds without an answer, or what
                the provider said.
        """
        held = self._held
        if held is not None and held.left() > held.ahead:
            return held.token
        if held is not None and held.left() > held.margin:
            if time.monotonic() < self._next_attempt or not self._lock.acquire(blocking=not resendable):
                return held.token
            try:
                return self._renew_early(held)
            finally:
                self._lock.release()
        with self._lock:
            return self._obtain(refused=None)

    def replace(self, refused: str) -> Token | None:
        """Another token than the one that the server refused (401), or None where a new one would not help.

        Raises:
            MlflowException: as `token`.
        """
        held = self._held
        if held is not None and held.token.access_token != refused:
            return held.token
        if time.monotonic() - self._renewed_after_refusal < REFUSAL_PAUSE:
            return None
        with self._lock:
            held = self._held
            if held is not None and held.token.access_token != refused:
                return held.token
            self._held = None
            token = self._obtain(refused=refused)
            self._renewed_after_refusal = time.monotonic()
            return token

    def accepted(self) -> None:
        """The server took the token: a later refusal is news, and worth a renewal."""
        self._renewed_after_refusal = -REFUSAL_PAUSE

    def hold(self, token: Token) -> None:
        """Keep a token that was got elsewhere, such as by a login."""
        with self._store.locked(self._wait) as free:
            self._need(free)
            self._store.save(token)
        self._take(token)

    @property
    def _wait(self) -> float:
        return self._settings.patience + self._settings.timeout

    def _renew_early(self, held: _Held) -> Token:
        """Renew a token that is still valid; whatever goes wrong, the old one serves until its end."""
        if self._held is not held and self._held is not None:
            return self._held.token
        from mlflow.exceptions import MlflowException

        try:
            return self._renew(refused=None, wait=0.0, early=True)
        except (Unavailable, MlflowException) as exc:
            self._attempts += 1
            pause = min(0.5 * 2**self._attempts, 15.0, max(held.left() / 3, 0.05)) * random.uniform(0.8, 1.2)  # noqa: S311 # jitter
            self._next_attempt = time.monotonic() + pause
            log = _log.warning if self._attempts == 3 else _log.debug
            log("The token could not be renewed; it is valid for %.0f more seconds. %s", held.left(), exc)
            return held.token

    def _obtain(self, refused: str | None) -> Token:
        """Get a token where there is no valid one: adopt another process's, or ask until patience ends."""
        if self._held is not None and self._held.left() > self._held.margin:
            return self._held.token
        stored = self._store.load()  # without the lock: another process may be renewing what is still valid
        if stored is not None and self._serves(stored, refused):
            return self._take(stored)
        self._raise_recent_failure()
        start, warned = time.monotonic(), False
        for pause in _pauses():
            try:
                return self._renew(refused, wait=self._wait, early=False)
            except Unavailable as exc:
                if time.monotonic() + pause > start + self._settings.patience:
                    raise self._failed(
                        f"The token provider did not answer for {self._settings.patience:g} seconds "
                        f"(MLFLOW_AUTH_PATIENCE): {exc}",
                        "TEMPORARILY_UNAVAILABLE",
                    ) from None
                log = _log.debug if warned else _log.warning
                log("The token provider does not answer; waiting for up to %g s. %s", self._settings.patience, exc)
                warned = True
            time.sleep(pause)
        raise AssertionError("the pauses never end")

    def _renew(self, refused: str | None, wait: float, *, early: bool) -> Token:
        """Adopt or fetch one token under the store's lock; `early` means that there is still a valid one."""
        with self._store.locked(wait) as free:
            if not free and early:
                raise Unavailable("Another process is renewing it.")
            self._need(free)
            stored = self._store.load()
            if stored is not None and self._serves(stored, refused, early=early):
                return self._take(stored)
            # The last one is newer where it could not be stored; its refresh token has replaced the stored one.
            known = [t for t in (stored, self._last) if t is not None]
            token = self._fetch_reporting(max(known, key=lambda t: t.expires_at or 0.0, default=None))
            self._save(token)
        return self._take(token)

    def _fetch_reporting(self, previous: Token | None) -> Token:
        from mlflow.exceptions import MlflowException

        try:
            return self._fetch(previous)
        except MlflowException as exc:
            self._failure = (time.monotonic(), exc.message, exc.error_code)
            raise

    def _save(self, token: Token) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self._store.save(token)
        except MlflowException as exc:
            _log.warning("The token serves this process only: %s", exc.message)

    def _take(self, token: Token) -> Token:
        self._held, self._last = self._as_held(token), token
        self._failure, self._attempts, self._next_attempt = None, 0, 0.0
        return token

    def _serves(self, stored: Token, refused: str | None, *, early: bool = False) -> bool:
        """Whether another process's token can be used: it was not refused, and lasts."""
        other = self._as_held(stored)
        return stored.access_token != refused and other.left() > (other.ahead if early else other.margin)

    def _as_held(self, token: Token) -> _Held:
        left = token.seconds_left()
        life = token.lifetime or left
        ahead = min(self._settings.refresh_ahead, life * AHEAD_PART)
        margin = min(self._settings.clock_skew, life * MARGIN_PART)
        return _Held(token, ahead, margin, time.monotonic() + left)

    def _raise_recent_failure(self) -> None:
        if self._failure and time.monotonic() - self._failure[0] < FAILURE_PAUSE:
            raise mlflow_error(*self._failure[1:])

    def _failed(self, message: str, code: str) -> MlflowException:
        self._failure = (time.monotonic(), message, code)
        return mlflow_error(message, code)

    def _need(self, free: bool) -> None:
        if not free:
            raise mlflow_error(
                f"Another process has been holding the lock of the token {self._store.describe()} for {self._wait:g} "
                "seconds. End it, or name another folder in MLFLOW_AUTH_CACHE_DIR.",
                "TEMPORARILY_UNAVAILABLE",
            )

    def _after_fork(self) -> None:
        self._lock = threading.Lock()


def _pauses() -> Iterator[float]:
    pause = 0.25
    while True:
        yield pause * random.uniform(0.8, 1.2)  # noqa: S311 # jitter
        pause = min(pause * 2, 10.0)


def _after_fork_in_child() -> None:
    """A lock that another thread held while this process was forked would never be released here."""
    for source in list(_sources):
        source._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
