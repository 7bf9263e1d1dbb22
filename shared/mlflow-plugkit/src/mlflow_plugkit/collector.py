"""Python's cyclic garbage collector, out of the way while thousands of objects are made at once."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class _Collector:
    """Pauses Python's cyclic garbage collector while thousands of entities, none of them in a cycle, are made.

    It would go through the whole heap several times, MLflow's modules included (0.1 s each), and take longer than the
    work. Threads may pause it side by side; where the application has turned it off it stays off.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._was_on = False

    @contextmanager
    def paused(self) -> Iterator[None]:
        with self._lock:
            if not self._users:
                self._was_on = gc.isenabled()
                gc.disable()
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                if not self._users and self._was_on:
                    gc.enable()


collector_paused = _Collector().paused
