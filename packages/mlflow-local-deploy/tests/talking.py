"""A model for the tests, what they ask it, and the processes that it runs in."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import psutil
import requests

#: Light and quick: this Python, and nobody on standby unless a test is about that.
QUICK = {"env_manager": "local", "standby": 0}
PATIENCE = 120.0
KEY = "the-key-of-the-shared-deployment"


class Talker(mlflow.pyfunc.PythonModel):
    """A model with everything that a model may have, and that does what a test asks of it."""

    def predict(self, context: Any, model_input: Any, params: dict[str, Any] | None = None) -> Any:
        what = model_input["what"].iloc[0]
        if what == "sleep":
            time.sleep(float(model_input["value"].iloc[0]))
        if what == "pid":
            return [os.getpid()] * len(model_input)
        if what == "environment":
            return [json.dumps(dict(os.environ))] * len(model_input)
        if what == "child":  # a process that the worker leaves behind when it is killed
            import subprocess
            import sys

            return [subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]).pid]
        if what == "raise":
            raise ValueError("the model does not like this")
        return model_input["value"] * float((params or {}).get("factor", 1.0))

    def predict_stream(self, context: Any, model_input: Any, params: Any = None) -> Iterator[Any]:
        for number in range(int(model_input["value"])):  # MLflow makes a dictionary of the one row
            if model_input["what"] == "raise" and number == 2:
                raise ValueError("the stream broke")
            yield {"number": number}

    def explain(self, context: Any, model_input: Any) -> Any:
        return pandas.DataFrame({"value": model_input["value"] * 0.5})


def ask(what: str, value: float = 0.0) -> pandas.DataFrame:
    """Input for a Talker."""
    return pandas.DataFrame({"what": [what], "value": [value]})


def with_key(**headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json", **headers}


def post(url: str, body: Any, **headers: str) -> requests.Response:
    return requests.post(url, data=json.dumps(body), headers=with_key(**headers), timeout=30)


def processes_of(root: Path) -> list[psutil.Process]:
    """Living processes that have the folder on their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            if str(root) in " ".join(process.cmdline()) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except psutil.Error:
            continue
    return found


def until(condition: Callable[[], Any], otherwise: str, seconds: float = PATIENCE) -> Any:
    """Wait for a condition; returns what it returned."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = condition()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{otherwise} (after {seconds:g} s)")
