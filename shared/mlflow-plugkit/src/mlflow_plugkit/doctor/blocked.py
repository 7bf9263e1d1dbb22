"""Refuse every connection that Python code of this process tries to open. Used in probes only.

Code that opens connections without Python's `socket` module (gRPC, database drivers in C) is out of reach.
"""

from __future__ import annotations

import socket
from typing import Any

ATTEMPTS: list[str] = []


class ConnectionRefusedByDoctorError(OSError):
    """A connection was tried while the doctor examined a plugin."""


def refuse_connections() -> None:
    """Replace what opens connections and resolves names by a refusal that is remembered in ATTEMPTS."""
    for name in ("connect", "connect_ex", "sendto"):
        setattr(socket.socket, name, _refuse_method)
    for name in ("create_connection", "getaddrinfo", "gethostbyname", "gethostbyname_ex"):
        setattr(socket, name, _refuse_function)


def _refuse_method(_: socket.socket, *arguments: Any, **__: Any) -> Any:
    _refuse(next((a for a in reversed(arguments) if isinstance(a, (tuple, str))), ""))


def _refuse_function(*arguments: Any, **keywords: Any) -> Any:
    _refuse(arguments[:2] if arguments else keywords.get("host", ""))


def _refuse(address: Any) -> None:
    parts = address[0] if isinstance(address, tuple) and address and isinstance(address[0], tuple) else address
    shown = ":".join(str(p) for p in parts[:2]) if isinstance(parts, tuple) else str(parts)
    ATTEMPTS.append(shown)
    raise ConnectionRefusedByDoctorError(f"mlflow-plugkit doctor refuses connections, here to {shown}")
