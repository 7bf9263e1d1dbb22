"""Host, CPU and Python: what the process can see without starting another one."""

from __future__ import annotations

import os
import platform
import socket
import sys
from pathlib import Path

from mlflow_run_context.files import text_of

Found = dict[str, str]


def host(root: Path = Path("/")) -> Found:
    """`host.*`: name, operating system, architecture, memory."""
    found = {"host.name": socket.gethostname(), "host.os": sys.platform}
    if hasattr(os, "uname"):  # the module platform starts processes on some systems
        system = os.uname()
        found |= {"host.os": f"{system.sysname} {system.release}", "host.architecture": system.machine}
    for line in text_of(root / "proc/meminfo", 1000).splitlines():
        name, _, amount = line.partition(":")
        if name == "MemTotal" and amount.strip().removesuffix(" kB").isdigit():
            found["host.memory_mib"] = str(int(amount.strip().removesuffix(" kB")) // 1024)
    return found


def cpu(root: Path = Path("/")) -> Found:
    """`cpu.*`: model, how many there are, and how many this process may use."""
    found: Found = {}
    # The first processor's lines only: with hundreds of processors the whole file takes long to make.
    for line in text_of(root / "proc/cpuinfo", 4096).splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("model name", "Model", "cpu model") and value.strip():
            found["cpu.model"] = value
            break
    if count := os.cpu_count():
        found["cpu.count"] = str(count)
    if hasattr(os, "sched_getaffinity"):
        found["cpu.available"] = str(len(os.sched_getaffinity(0)))
    return found


def python() -> Found:
    """`python.*`: version, implementation, and the environment it runs in."""
    found = {"python.version": platform.python_version(), "python.implementation": sys.implementation.name}
    if name := os.environ.get("CONDA_DEFAULT_ENV"):
        found |= {"python.environment": "conda", "python.environment_name": os.path.basename(name)}
    elif sys.prefix != sys.base_prefix:
        found |= {"python.environment": "venv", "python.environment_name": os.path.basename(sys.prefix)}
    return found
