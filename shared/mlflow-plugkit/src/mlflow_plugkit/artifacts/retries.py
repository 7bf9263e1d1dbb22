"""Repeating what a backend says may be repeated: tenacity, with jittered exponential back-off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tenacity

from mlflow_plugkit.artifacts.backend import Backend

T = TypeVar("T")


class TransferError(Exception):
    """The engine's own reason to repeat a transfer."""

    #: The name of MLflow's error code for it, when repeating did not help.
    code = "TEMPORARILY_UNAVAILABLE"


class CorruptTransferError(TransferError):
    """What arrived is not what was sent."""

    code = "DATA_LOSS"


class StoredDamagedError(CorruptTransferError):
    """What was published under its path is not what was sent: the engine deletes it.

    For a backend that notices this by itself in `put`, or in `put_many` (name the `path` there).
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class Retries:
    """Calls a function again while the backend says that this can help.

    Args:
        backend: its `retry_delay` decides, and its `retry_*` attributes bound the attempts.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._backoff = tenacity.wait_random_exponential(multiplier=backend.retry_wait, max=backend.retry_wait_max)
        self._retrying = tenacity.Retrying(
            stop=self._is_enough,
            wait=self._wait,
            retry=tenacity.retry_if_exception(self.may_help),
            reraise=True,
        )

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call it; raise its last error when no attempt succeeded."""
        try:
            return function(*args)  # tenacity's machinery costs as much as a small file: it begins at the first error
        except Exception as error:
            if not self.may_help(error):
                raise
            first = [error]

        def again() -> T:
            if first:
                raise first.pop()
            return function(*args)

        return self._retrying(again)

    def may_help(self, error: BaseException) -> bool:
        """Whether the error may be gone at the next attempt."""
        return isinstance(error, TransferError) or self.is_outage(error)

    def is_outage(self, error: BaseException) -> bool:
        """Whether the backend could not be reached or was busy, rather than refused."""
        return isinstance(error, Exception) and self._backend.retry_delay(error) is not None

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = self._backend.retry_delay(error) if error and not isinstance(error, TransferError) else None
        return max(asked or 0.0, self._backoff(state))

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        waiting = state.idle_for + state.upcoming_sleep
        return state.attempt_number >= self._backend.retry_attempts or waiting > self._backend.retry_seconds
