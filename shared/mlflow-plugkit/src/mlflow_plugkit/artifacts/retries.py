"""Repeating what a backend says may be repeated: tenacity, with jittered exponential back-off."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import tenacity

from mlflow_plugkit.artifacts.backend import Backend

T = TypeVar("T")


class TransferError(Exception):
    """The engine's own reason to repeat a transfer: what arrived is not what was stored."""


class Retries:
    """Calls a function again while the backend says that this can help.

    Args:
        backend: its `retry_delay` decides, and its `retry_*` attributes bound the attempts.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._backoff = tenacity.wait_random_exponential(multiplier=backend.retry_wait, max=backend.retry_wait_max)
        self._retrying = tenacity.Retrying(
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(backend.retry_attempts), tenacity.stop_before_delay(backend.retry_seconds)
            ),
            wait=self._wait,
            retry=tenacity.retry_if_exception(self.may_help),
            reraise=True,
        )

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call it; raise its last error when no attempt succeeded."""
        return self._retrying(function, *args)

    def may_help(self, error: BaseException) -> bool:
        """Whether the error may be gone at the next attempt."""
        return isinstance(error, TransferError) or self._backend.retry_delay(error) is not None

    def _wait(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        asked = self._backend.retry_delay(error) if error and not isinstance(error, TransferError) else None
        return max(asked or 0.0, self._backoff(state))
