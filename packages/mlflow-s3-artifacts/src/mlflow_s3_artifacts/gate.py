"""How many small downloads travel at once: few where the service is near, many where each waits for its way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

FEW = 16
"""As many as keep two cores busy with a service on the same host; more only contend for Python's lock."""

FAR_SECONDS = 0.008
"""A request whose fastest answer took longer waits for the network, not for a processor."""


class Gate:
    """Lets `FEW` through at once until the fastest answer shows that the service is far away, then `many`.

    Args:
        many: how many threads come at most, and may all pass where the service is far away.
    """

    def __init__(self, many: int) -> None:
        self._many = many
        self._slots = threading.Semaphore(min(FEW, many))
        self._lock = threading.Lock()
        self._answers, self._fastest, self._wide = 0, float("inf"), many <= FEW

    @contextmanager
    def passing(self) -> Iterator[None]:
        """Hold a place while one request is answered."""
        if self._wide:
            yield
            return
        with self._slots:
            begun = time.perf_counter()
            yield
            self._answered(time.perf_counter() - begun)

    def _answered(self, seconds: float) -> None:
        with self._lock:
            self._answers, self._fastest = self._answers + 1, min(self._fastest, seconds)
            if not self._wide and self._answers >= FEW // 2 and self._fastest > FAR_SECONDS:
                self._wide = True
                self._slots.release(self._many)
