"""What one repository's transfers share: the backend, the retries, the pool for parts."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.retries import Retries

T = TypeVar("T")


class Engine:
    """The backend of one repository and what its transfers share. Making one connects to nothing.

    Attributes:
        backend: the storage.
        retries: how its primitives are repeated.
        parts: the threads that move parts and ranges of large files, for all files together.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.retries = Retries(backend)
        self.parts = SharedPool(backend.parallel_transfers)
        self._pid = os.getpid()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a primitive of the backend, and repeat it where that can help."""
        self.after_fork()
        return self.retries.call(function, *args)

    def applied(self, operation: str) -> AbstractContextManager[None]:
        """The one place where the backend's errors become MLflow's."""
        return self.backend.errors.applied(operation, self.backend.secrets())

    def after_fork(self) -> None:
        """In a forked child: drop the parent's connections, once."""
        if self._pid != os.getpid():
            self._pid = os.getpid()
            self.backend.close()


class SharedPool:
    """A thread pool that exists while somebody uses it, shared by all that do, made anew in a forked child.

    So that a repository that MLflow keeps in its cache keeps no idle threads.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._reset()

    def _reset(self) -> None:
        self._pid, self._lock = os.getpid(), threading.Lock()
        self._users, self._pool = 0, None

    @contextmanager
    def use(self) -> Iterator[ThreadPoolExecutor]:
        """The pool; it ends with its last user."""
        if self._pid != os.getpid():
            self._reset()
        with self._lock:
            self._users += 1
            pool = self._pool = self._pool or ThreadPoolExecutor(self._size, thread_name_prefix="plugkit-parts")
        try:
            yield pool
        finally:
            with self._lock:
                self._users -= 1
                last = self._users == 0
                if last:
                    self._pool = None
            if last:
                pool.shutdown(wait=False)


def gather(futures: list[Future[T]]) -> list[T]:
    """The results of all futures; at the first error those that have not begun are cancelled.

    Waits for those that run, so that nothing is under way when the error is raised.
    """
    try:
        for future in futures:
            future.result()
    except BaseException:
        for future in futures:
            future.cancel()
        wait(futures)
        raise
    return [future.result() for future in futures]
