"""Small files of the system, read without raising and without hanging on what is no file."""

from __future__ import annotations

import os
import stat
from pathlib import Path

SMALL = 64 * 1024


def text_of(path: Path, limit: int = SMALL) -> str:
    """The first `limit` bytes of a regular file as text without blanks around it; "" where it cannot be read.

    Opening does not block: a named pipe in the place of a file is left alone.
    """
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError):
        return ""
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return ""
        pieces = []
        while limit > 0 and (piece := os.read(handle, min(limit, SMALL))):
            pieces.append(piece)
            limit -= len(piece)
        return b"".join(pieces).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        os.close(handle)
