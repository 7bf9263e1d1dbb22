"""Measurements in a fresh process.

    python bench/samples.py MODULE IMPLEMENTATION OPERATION[,OPERATION...] SETTINGS_JSON

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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tables import Table, interleave

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
    module: str,
    implementation: str,
    operations: Sequence[str],
    settings: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
) -> list[Sample]:
    """Run operations, one after the other, in a fresh process."""
    names = ",".join(operations)
    command = [sys.executable, "-W", "ignore", __file__, module, implementation, names, json.dumps(dict(settings))]
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(env or {})}, check=False)
    if run.returncode:
        raise SampleError(f"{implementation}: {names} failed:\n{run.stderr[-3000:]}")
    return [Sample(**sample) for sample in json.loads(run.stdout.splitlines()[-1])]


def take_turns(
    rounds: int,
    rows: Mapping[str, str],
    columns: Sequence[str],
    take: Callable[[str, Sequence[str]], Sequence[Sample]],
    count: int,
    **tables: Table,
) -> None:
    """Let the implementations take turns and put what was measured into tables.

    Args:
        rounds: that count, after one that warms up.
        rows: the operation of each row.
        columns: the implementations.
        take: measures the operations of one implementation.
        count: how many files the operations that read must return.
        **tables: by the field of a `Sample` that they show.
    """

    def sample(column: str, counts: bool) -> None:
        for (row, operation), taken in zip(rows.items(), take(column, list(rows.values())), strict=False):
            if operation in ("down many", "list") and taken.result != count:
                raise SystemExit(f"{column}: {operation} gave {taken.result} of {count} files")
            for figure, table in tables.items() if counts else ():
                table.add(row, column, getattr(taken, figure))

    interleave(rounds, columns, sample)


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


def _child(module: str, implementation: str, names: Sequence[str], settings: dict[str, Any]) -> list[Sample]:
    functions = importlib.import_module(module).operations(implementation, settings)
    _in_folder(functions.get(WARM_UP, lambda _: None), settings)
    return [_in_folder(functions[name], settings) for name in names]


def _in_folder(function: Callable[[str], Any], settings: Mapping[str, Any]) -> Sample:
    """Measure one call, which gets an empty folder."""
    folder = tempfile.mkdtemp(dir=settings.get("folder"))
    os.sync()  # what was written before is not to be paid for by this one
    try:
        _forget_peak()
        before, cpu, start = _memory("VmRSS"), time.process_time(), time.perf_counter()
        result = function(folder)
        seconds = time.perf_counter() - start
        return Sample(seconds, time.process_time() - cpu, _memory("VmHWM") - before, result)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    module, implementation, names, text = sys.argv[1:5]
    print(json.dumps([vars(sample) for sample in _child(module, implementation, names.split(","), json.loads(text))]))
