"""Where downloaded files go: MLflow checks the place of each, and here a folder's is checked once."""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable

Ask = Callable[[str, str], str]


class Destinations:
    """Remembers the folder that MLflow's `_create_download_destination` allowed last.

    MLflow resolves all links on the way to each file, a dozen system calls that the downloads in other threads
    compete with. The answer holds for the next file of the folder as long as its name leads to the very same
    folder, and the file's own name to no link.
    """

    def __init__(self) -> None:
        self._last: tuple[str, str, str, tuple[int, int]] | None = None

    def of(self, ask: Ask, path: str, destination: str | None) -> str:
        """The local path of an artifact; `ask` is MLflow's own answer, and what it raises is raised.

        Args:
            ask: MLflow's method.
            path: the artifact's.
            destination: the folder that the download was asked for.
        """
        folder, name = posixpath.split(path)
        if os.name != "posix" or destination is None or name in ("", ".", ".."):
            return ask(path, destination or "")
        last = self._last
        if last is not None and last[:2] == (destination, folder) and _identity(last[2]) == last[3]:
            local = os.path.join(last[2], name)
            if not os.path.islink(local):
                return local
        local = ask(path, destination)
        identity = _identity(os.path.dirname(local))
        self._last = None if identity is None else (destination, folder, os.path.dirname(local), identity)
        return local


def _identity(folder: str) -> tuple[int, int] | None:
    """The folder itself, whatever leads to it."""
    try:
        found = os.stat(folder)
    except OSError:
        return None
    return found.st_dev, found.st_ino
