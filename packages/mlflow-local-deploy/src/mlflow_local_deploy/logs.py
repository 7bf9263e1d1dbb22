"""The logs of a deployment: a file for each worker and one for the supervisor, none of them without bound."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

#: A log that grows beyond this many bytes is kept once, as `<name>.1`, and begun anew.
MAX_BYTES = 16 * 1024 * 1024
#: Logs of workers that are gone, the latest ones.
KEPT = 10


def keep_in_bounds(folder: Path, living: set[str]) -> None:
    """Begin anew the logs that are too large, and remove those of workers that are long gone."""
    gone = []
    for file in folder.glob("*.log"):
        try:
            about = file.stat()
        except FileNotFoundError:
            continue
        if about.st_size > MAX_BYTES:
            # Writers append: copied and emptied in place, the file goes on without them knowing.
            shutil.copy(file, file.with_suffix(".log.1"))  # with its mode: for this user alone
            os.truncate(file, 0)
        if file.stem != "supervisor" and file.stem not in living:
            gone.append((about.st_mtime, file))
    for _, file in sorted(gone)[:-KEPT]:
        file.unlink(missing_ok=True)
        file.with_suffix(".log.1").unlink(missing_ok=True)


def tail(file: Path, lines: int) -> list[str]:
    """The last lines of a file, [] where there is none."""
    try:
        with file.open("rb") as stream:
            stream.seek(max(os.path.getsize(file) - 200 * max(lines, 50), 0))
            return stream.read().decode("utf-8", errors="replace").splitlines()[-lines:]
    except FileNotFoundError:
        return []
