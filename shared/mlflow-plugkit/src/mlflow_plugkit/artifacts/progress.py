"""MLflow's own progress bars, for what moves in several threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mlflow.utils.file_utils import ArtifactProgressBar

#: Seconds between two updates of a bar: it redraws at each, which would cost small files more than their upload.
INTERVAL = 0.1


class Progress:
    """Counts what is done, from any thread, and shows it where MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR asks for it."""

    def __init__(self, bar: Any | None) -> None:
        self._bar = bar if bar is not None and bar.pbar is not None else None
        self._lock, self._waiting, self._shown = threading.Lock(), 0, 0.0

    def add(self, count: int = 1) -> None:
        """Count files, or bytes."""
        if self._bar is None:
            return
        with self._lock:
            self._waiting += count
            if time.monotonic() - self._shown >= INTERVAL:
                self._show()

    def finish(self) -> None:
        """Show what is counted."""
        if self._bar is not None:
            with self._lock:
                self._show()

    def _show(self) -> None:
        assert self._bar is not None
        self._bar.step, self._waiting, self._shown = self._waiting, 0, time.monotonic()
        self._bar.update()


#: Shows nothing.
NONE = Progress(None)


@contextmanager
def of_files(total: int, verb: str) -> Iterator[Progress]:
    """The bar of a folder's files, as MLflow shows one."""
    with ArtifactProgressBar.files(desc=f"{verb} artifacts", total=total) as bar:
        progress = Progress(bar)
        yield progress
        progress.finish()


@contextmanager
def of_bytes(path: str, size: int, verb: str) -> Iterator[Progress]:
    """The bar of a large file's parts; MLflow shows one from 500 MB on."""
    with ArtifactProgressBar.chunks(size, f"{verb} {path}", 0) as bar:
        progress = Progress(bar)
        yield progress
        progress.finish()
