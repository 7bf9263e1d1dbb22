"""One measurement in a fresh process.

    python bench/samples.py MODULE IMPLEMENTATION OPERATION SETTINGS_JSON

`MODULE.operations(implementation, settings)` returns a mapping of operation to a function that takes an empty
folder. Its `"warm up"` is called first, so that imports and the first connection are not measured.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

WARM_UP = "warm up"


@dataclass(frozen=True)
class Sample:
    """Wall and CPU seconds, the growth of the peak of resident memory in MB, and what the operation returned."""

    seconds: float
    cpu: float
    memory: float
    result: Any = None


class SampleError(RuntimeError):
    """The process failed; the message ends with its errors."""


def measure(
    module: str, implementation: str, operation: str, settings: Mapping[str, Any], env: Mapping[str, str] | None = None
) -> Sample:
    """Run an operation in a fresh process."""
    os.sync()  # what the sample before wrote is not to be paid for by this one
    command = [sys.executable, "-W", "ignore", __file__, module, implementation, operation, json.dumps(dict(settings))]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    if run.returncode:
        raise SampleError(f"{implementation}: {operation} failed:\n{run.stderr[-3000:]}")
    return Sample(**json.loads(run.stdout.splitlines()[-1]))


def _memory(field: str) -> float:
    """MB of this process's VmRSS or VmHWM; 0 where the system has no /proc."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:")), 0.0)


def _forget_peak() -> None:
    """Let the peak of resident memory begin anew (Linux: proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def _child(module: str, implementation: str, operation: str, settings: dict[str, Any]) -> Sample:
    sys.path.insert(0, str(Path(__file__).parent))
    functions = importlib.import_module(module).operations(implementation, settings)
    folder = tempfile.mkdtemp(dir=settings.get("folder"))
    try:
        functions.get(WARM_UP, lambda _: None)(folder)
        shutil.rmtree(folder)
        os.mkdir(folder)
        _forget_peak()
        before, cpu, start = _memory("VmRSS"), time.process_time(), time.perf_counter()
        result = functions[operation](folder)
        seconds = time.perf_counter() - start
        return Sample(seconds, time.process_time() - cpu, _memory("VmHWM") - before, result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    module, implementation, operation, text = sys.argv[1:5]
    print(json.dumps(vars(_child(module, implementation, operation, json.loads(text)))))
