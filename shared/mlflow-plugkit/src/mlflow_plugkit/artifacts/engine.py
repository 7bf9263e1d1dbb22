"""What one repository's transfers share: backend, retries, threads and memory for parts, the journal."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any, TypeVar

from mlflow_plugkit.artifacts.backend import Backend
from mlflow_plugkit.artifacts.journal import Journal
from mlflow_plugkit.artifacts.retries import Retries, TransferError
from mlflow_plugkit.errors import mlflow_error

T = TypeVar("T")


class Engine:
    """The backend of one repository and what its transfers share. Making one connects to nothing.

    Attributes:
        backend: the storage.
        retries: how its primitives are repeated.
        parts: the threads that move parts and ranges of large files, for all files together.
        memory: how many bytes of parts may be under way.
        journal: the unfinished uploads of this machine's processes.

    Args:
        backend, journal: as above; without a journal nothing is resumed.
        make_backend: makes the backend for another location of the same kind, to clean up there.
    """

    def __init__(
        self, backend: Backend, journal: Journal | None = None, make_backend: Callable[[str], Backend] | None = None
    ) -> None:
        self.backend = backend
        self.retries = Retries(backend)
        self.journal = journal or Journal("")
        self._make_backend = make_backend
        self._has_uploaded = False
        self._make_shared()

    def _make_shared(self) -> None:
        self._pid = os.getpid()
        self.parts = SharedPool(self.backend.parallel_transfers)
        self.memory = Budget(self.backend.bytes_in_flight)

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call a primitive of the backend, and repeat it where that can help."""
        return self.retries.call(function, *args)

    def call_within(self, size: int, function: Callable[..., T], *args: Any) -> T:
        """`call`, as soon as `size` more bytes may be under way."""
        with self.memory.take(size):
            return self.retries.call(function, *args)

    def first_upload(self) -> bool:
        """True once: the time to look for what earlier runs left behind."""
        first, self._has_uploaded = not self._has_uploaded, True
        return first

    def reopen(self, root: str, location: str) -> Backend:
        """The backend for a location of this or an earlier run.

        Raises:
            LookupError: it held a secret, and was not kept.
        """
        if root == self.backend.root:
            return self.backend
        if not location or self._make_backend is None:
            raise LookupError("its location is not known")
        return self._make_backend(location)

    @contextmanager
    def applied(self, operation: str) -> Iterator[None]:
        """The one place where the backend's errors, and the engine's own, become MLflow's."""
        self._after_fork()
        with self.backend.errors.applied(operation, self.backend.secrets()):
            try:
                yield
            except TransferError as exc:
                service = self.backend.errors.service
                raise mlflow_error(f"{service}: could not {operation}: {exc}. Try again.", exc.code) from exc

    def _after_fork(self) -> None:
        """In a forked child: drop the parent's connections, threads and locks, once."""
        if self._pid != os.getpid():
            self._make_shared()
            self.backend.close()


class Budget:
    """Bytes that may be under way at once; who asks for more waits, and a single larger part passes alone."""

    def __init__(self, limit: int) -> None:
        self._limit, self._used, self._freed = limit, 0, threading.Condition()

    @contextmanager
    def take(self, size: int) -> Iterator[None]:
        """Hold `size` bytes of the budget."""
        with self._freed:
            self._freed.wait_for(lambda: self._used == 0 or self._used + size <= self._limit)
            self._used += size
        try:
            yield
        finally:
            with self._freed:
                self._used -= size
                self._freed.notify_all()


class SharedPool:
    """A thread pool that exists while somebody uses it, shared by all that do.

    So that a repository that MLflow keeps in its cache keeps no idle threads.
    """

    def __init__(self, size: int) -> None:
        self._size, self._lock, self._users = size, threading.Lock(), 0
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def use(self) -> Iterator[ThreadPoolExecutor]:
        """The pool; it ends with its last user."""
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


class StoppedError(Exception):
    """A transfer noticed that another part of the same operation failed."""


def gather(futures: list[Future[T]], stop: threading.Event | None = None) -> list[T]:
    """The results of all futures. At the first error those that have not begun are cancelled.

    Waits for those that run, so that nothing is under way when the error is raised; `stop` is set before,
    for those that look at it.
    """
    failed: BaseException | None = None
    try:
        done, _ = wait(futures, return_when="FIRST_EXCEPTION")
        errors = [e for e in (f.exception() for f in futures if f in done) if e is not None]
        failed = next((e for e in errors if not isinstance(e, StoppedError)), None) or next(iter(errors), None)
    except BaseException as exc:  # noqa: BLE001 # also KeyboardInterrupt: raised below, when nothing runs any more
        failed = exc
    if failed is None:
        return [future.result() for future in futures]
    if stop is not None:
        stop.set()
    for future in futures:
        future.cancel()
    wait(futures)
    raise failed
