"""The Python that serves a model: this one, or one that MLflow makes for the model."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger

_log = get_logger("mlflow_local_deploy")
#: They send uv to another environment than the one that MLflow activates; nox sets them for its sessions.
_UV_TARGETS = ("UV_PYTHON", "UV_PROJECT_ENVIRONMENT", "UV_SYSTEM_PYTHON")


def prepare(model: Path, env_manager: str) -> tuple[str, list[str]]:
    """Make sure of the model's environment; returns its manager and how its Python is started.

    Args:
        model: its folder.
        env_manager: `local`, `virtualenv`, `uv` or `conda` as in `mlflow models serve`, or `auto`.

    Raises:
        MlflowException: the environment cannot be made.
    """
    if env_manager == "auto":
        env_manager = _chosen(model)
    if env_manager == "local":
        return env_manager, [sys.executable]
    activate = _activation(model, env_manager)
    # The words that follow are the shell's arguments; exec keeps the process id and the inherited socket.
    return env_manager, ["bash", "-c", f'{" && ".join([*activate, "exec python"])} "$@"', "worker"]


def _chosen(model: Path) -> str:
    missing = list(unmet(model))
    if not missing:
        return "local"
    chosen = "uv" if shutil.which("uv") else "virtualenv"
    _log.info("The model gets an environment of its own (%s): %s.", chosen, "; ".join(missing))
    return chosen


def unmet(model: Path) -> Iterator[str]:
    """What this Python lacks of what the model was logged with, in words; nothing where it can serve it."""
    import yaml

    python_env = model / "python_env.yaml"
    if python_env.exists():
        wanted = str((yaml.safe_load(python_env.read_text(encoding="utf-8")) or {}).get("python", ""))
        mine = f"{sys.version_info.major}.{sys.version_info.minor}"
        if wanted and ".".join(wanted.split(".")[:2]) != mine:
            yield f"it wants Python {wanted}, this is {mine}"
    for file in ("requirements.txt", "constraints.txt"):
        for line in _lines(model / file):
            reason = _unmet(line, is_constraint=file == "constraints.txt")
            if reason:
                yield reason


def _lines(file: Path) -> Iterator[str]:
    if not file.exists():
        return
    for line in file.read_text(encoding="utf-8").splitlines():
        text = re.sub(r"(^|\s)#.*$", "", line).strip()
        if text and not text.startswith(("-c", "--constraint")):
            yield text


def _unmet(line: str, *, is_constraint: bool) -> str:
    try:
        requirement = Requirement(line)
    except InvalidRequirement:
        return f"{line!r} cannot be checked"
    if requirement.marker and not requirement.marker.evaluate():
        return ""
    if requirement.url:
        return f"{line!r} cannot be checked"
    try:
        installed = version(canonicalize_name(requirement.name))
    except PackageNotFoundError:
        return "" if is_constraint else f"{requirement.name} is not installed"
    if requirement.specifier.contains(installed, prereleases=True):
        return ""
    return f"it wants {requirement}, installed is {installed}"


def _activation(model: Path, env_manager: str) -> list[str]:
    """The shell commands that enter the environment, which MLflow makes or has made."""
    from mlflow.models import Model
    from mlflow.pyfunc.backend import PyFuncBackend

    flavor: dict[str, Any] = Model.load(str(model)).flavors["python_function"]
    try:
        with _without(*_UV_TARGETS):
            environment = PyFuncBackend(flavor, env_manager=env_manager).prepare_env(str(model))
    except Exception as exc:  # MLflow raises a bare Exception for what the tool that makes environments says
        raise mlflow_error(
            f"The model's environment could not be made with {env_manager}: {exc}. To serve with this Python, "
            "whatever its packages, set env_manager=local.",
            "INTERNAL_ERROR",
        ) from exc
    commands: list[str] = environment.get_activate_command()
    return commands


@contextmanager
def _without(*names: str) -> Iterator[None]:
    """Hide environment variables from the processes that the block starts."""
    hidden = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(hidden)
