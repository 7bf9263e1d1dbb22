"""Settings: the backend configuration of a run, and what the environment says about the cluster."""

from __future__ import annotations

import dataclasses
import difflib
import itertools
import json
import os
import re
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.settings import Settings, option
from mlflow_slurm_backend import shapes

#: Keys that MLflow itself adds to every backend configuration (mlflow.projects.utils).
FROM_MLFLOW = (
    "ENV_MANAGER", "SYNCHRONOUS", "DOCKER_ARGS", "STORAGE_DIR", "build_image", "docker_auth",
    "_mlflow_local_backend_run_id",
)  # fmt: skip
Value = str | int | float | bool
Grid = dict[str, list[Value]] | list[dict[str, Value]]


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Settings):
    """What a site or a user sets once, in the environment."""

    config: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_SLURM_CONFIG",
        help="Path of a JSON file with defaults for the backend configuration.",
    )
    folder: str = option(
        "~/.mlflow-slurm",
        in_uri=False,
        env="MLFLOW_SLURM_FOLDER",
        help="Folder for job scripts and logs. The compute nodes must see it under the same path.",
    )
    poll_seconds: float = option(
        30.0,
        in_uri=False,
        env="MLFLOW_SLURM_POLL_SECONDS",
        help="Longest time between two status calls, in seconds; the shortest is 2, right after a change.",
    )
    patience_seconds: float = option(
        300.0,
        in_uri=False,
        env="MLFLOW_SLURM_PATIENCE_SECONDS",
        help="How long to repeat a submission or a cancellation while the controller does not answer, in seconds.",
    )


@dataclass(frozen=True)
class _Key:
    help: str
    shape: str
    flag: str | None


def key(default: Any, *, help: str, shape: str = shapes.ANY, flag: str | None = None) -> Any:  # noqa: A002
    """Declare a key of the backend configuration: its values' shape, and the sbatch flag that it becomes."""
    return dataclasses.field(default=default, metadata={"slurm": _Key(help, shape, flag)})


@dataclass(frozen=True, kw_only=True)
class Container:
    """The key `container`."""

    runtime: Literal["apptainer", "singularity", "pyxis"] = key("apptainer", help="Which runtime starts the container.")
    image: str = key("", help="The image: a file, or what the runtime understands.", shape=shapes.PLAIN)
    binds: tuple[str, ...] = key((), help="Further folders to mount, `outside:inside`.", shape=shapes.PLAIN)
    options: tuple[str, ...] = key((), help="Further flags of the runtime.")


@dataclass(frozen=True, kw_only=True)
class JobConfig:
    """The backend configuration of one `mlflow run`; keys may be written with `-` or `_`."""

    partition: str | None = key(None, flag="--partition", shape=shapes.NAMES, help="Partition, or several.")
    account: str | None = key(None, flag="--account", shape=shapes.NAMES, help="Account to charge.")
    qos: str | None = key(None, flag="--qos", shape=shapes.NAMES, help="Quality of service.")
    time: str | int | None = key(None, flag="--time", shape=shapes.TIME, help="Time limit: minutes, or `1-12:00:00`.")
    nodes: int | str | None = key(None, flag="--nodes", shape=shapes.NODES, help="Number of nodes, or `2-4`.")
    ntasks: int | None = key(None, flag="--ntasks", shape=shapes.COUNT, help="Number of tasks.")
    cpus_per_task: int | None = key(None, flag="--cpus-per-task", shape=shapes.COUNT, help="CPUs of each task.")
    mem: str | int | None = key(None, flag="--mem", shape=shapes.MEMORY, help="Memory of a node: megabytes, or `16G`.")
    gres: str | None = key(None, flag="--gres", shape=shapes.RESOURCES, help="Generic resources, as `gpu:a100:2`.")
    gpus: str | int | None = key(None, flag="--gpus", shape=shapes.RESOURCES, help="GPUs of the whole job.")
    constraint: str | None = key(None, flag="--constraint", shape=shapes.FEATURES, help="Features of the nodes.")
    modules: tuple[str, ...] = key((), shape=shapes.MODULE, help="Environment modules to load.")
    container: Container | None = key(None, help="Container to run the project in: see below.")  # noqa: RUF009 # frozen
    array: Grid | None = key(None, help="Parameter grid: a task of a job array, and a child run, for each point.")  # noqa: RUF009 # never changed
    array_limit: int | None = key(None, shape=r"[1-9]\d*", help="How many tasks of the array may run at once.")
    afterok: tuple[str, ...] = key((), shape=shapes.IDENTIFIER, help="Start after these runs or jobs have succeeded.")
    afterany: tuple[str, ...] = key((), shape=shapes.IDENTIFIER, help="Start after these runs or jobs have ended.")
    requeue: bool = key(False, help="Queue the job again when it is preempted, loses its node or was checkpointed.")
    signal: str | None = key(None, shape=shapes.SIGNAL, help="Signal before the time limit, as `USR1@120` (seconds).")
    extra_flags: tuple[str, ...] = key((), help="Further flags of sbatch, as `--exclusive`.")
    environment: tuple[str, ...] = key((), shape=r"[A-Za-z_]\w*", help="Further variables to treat as credentials.")
    folder: str | None = key(None, help="Folder for this job's script and logs, instead of `MLFLOW_SLURM_FOLDER`.")
    template: str | None = key(None, help="Path of a job script to use instead of the built-in one.")
    python: str | None = key(None, shape=shapes.PLAIN, help="Python with MLflow on the compute node.")
    snapshot: bool = key(False, help="Copy a local project into the job's folder at submission.")
    stream: bool = key(True, help="Show the job's output while waiting.")
    detach: bool = key(False, help="`mlflow run` ends after the submission.")
    run_id: str | None = key(None, shape=r"[\w-]+", help="Use this run instead of a new one.")

    @classmethod
    def from_backend_config(cls, given: Mapping[str, Any], defaults_file: str | None = None) -> JobConfig:
        """Check a backend configuration, with a file's defaults under it; MLflow's own keys are left out.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for an unknown key (naming the nearest known one), a
                malformed value, or a flag that is not allowed.
        """
        merged = {**_defaults(defaults_file), **_normalised(given)}
        run_id = given.get("_mlflow_local_backend_run_id")
        config: JobConfig = _build(cls, merged | ({"run_id": run_id} if run_id else {}), "")
        config._check()
        return config

    def _check(self) -> None:
        shapes.check_flags("extra_flags", self.extra_flags, shapes.SBATCH_FLAGS)
        if self.container:
            allowed = shapes.PYXIS_FLAGS if self.container.runtime == "pyxis" else shapes.APPTAINER_FLAGS
            shapes.check_flags("container.options", self.container.options, allowed)
            shapes.check_shape("container.image", self.container.image, shapes.PLAIN)
        if self.array is not None and not list(self.points()):
            raise mlflow_error("The backend configuration's 'array' has no points: give each parameter some values.")
        if self.array_limit and self.array is None:
            raise mlflow_error("The backend configuration has 'array_limit', but no 'array'.")

    def points(self) -> Iterator[dict[str, str]]:
        """The points of the grid, the last parameter varying fastest; values as MLflow writes parameters."""
        if isinstance(self.array, dict):
            for values in itertools.product(*self.array.values()):
                yield {name: str(value) for name, value in zip(self.array, values, strict=True)}
        else:
            yield from ({name: str(value) for name, value in point.items()} for point in self.array or ())

    @property
    def signal_name(self) -> str:
        """The signal without sbatch's prefix and time, "" where there is none."""
        found = re.fullmatch(shapes.SIGNAL, self.signal or "")
        return found["signal"] if found else ""

    def sbatch_flags(self) -> list[str]:
        """The flags of sbatch, one argument each, that say what the job needs."""
        flags = [
            f"{declared.flag}={getattr(self, name)}"
            for name, declared in declared_keys(JobConfig).items()
            if declared.flag and getattr(self, name) is not None
        ]
        flags.append("--requeue" if self.requeue else "--no-requeue")
        if self.signal:
            found = re.fullmatch(shapes.SIGNAL, self.signal)
            assert found
            # To the batch script alone: it passes the signal on to the project, see the job script.
            flags.append(f"--signal=B:{found['signal']}@{found['seconds'] or 60}")
        if self.array is not None:
            limit = f"%{self.array_limit}" if self.array_limit else ""
            flags.append(f"--array=0-{len(list(self.points())) - 1}{limit}")
        return [*flags, *self.extra_flags]


def declared_keys(cls: type[Any]) -> dict[str, _Key]:
    """The keys of a configuration class by name, in the order of declaration."""
    return {f.name: f.metadata["slurm"] for f in dataclasses.fields(cls)}


def keys_table(cls: type[Any]) -> str:
    """The Markdown table of a configuration class, as the README shows it."""
    hints = typing.get_type_hints(cls)
    lines = ["| key | value | sbatch | meaning |", "|---|---|---|---|"]
    for name, declared in declared_keys(cls).items():
        flag = f"`{declared.flag}`" if declared.flag else ""
        lines.append(f"| `{name}` | {_kind(hints[name])} | {flag} | {declared.help} |")
    return "\n".join(lines)


def _kind(hint: Any) -> str:
    names = {str: "text", int: "whole number", bool: "true or false", Container: "object", type(None): ""}
    if hint == Grid | None:
        return "object of lists, or list of objects"
    if typing.get_origin(hint) is tuple:
        return "list of text"
    if typing.get_origin(hint) is Literal:
        return " or ".join(f"`{v}`" for v in typing.get_args(hint))
    return " or ".join(names[m] for m in (typing.get_args(hint) or (hint,)) if names[m])


def _defaults(file: str | None) -> dict[str, Any]:
    if not file:
        return {}
    try:
        read = json.loads(Path(os.path.expanduser(file)).read_text(encoding="utf-8"))
    except (OSError, ValueError) as exc:
        raise mlflow_error(f"The file {file!r} that MLFLOW_SLURM_CONFIG names cannot be read as JSON: {exc}.") from exc
    if not isinstance(read, dict):
        raise mlflow_error(f"The file {file!r} that MLFLOW_SLURM_CONFIG names holds no JSON object.")
    return _normalised(read)


def _normalised(given: Mapping[str, Any]) -> dict[str, Any]:
    return {str(name).replace("-", "_"): value for name, value in given.items() if name not in FROM_MLFLOW}


def _build(cls: type[Any], given: Mapping[str, Any], prefix: str) -> Any:
    keys, hints = declared_keys(cls), typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name not in keys:
            near = difflib.get_close_matches(name, keys, n=1, cutoff=0.5)
            hint = f"Did you mean {prefix + near[0]!r}?" if near else f"Known keys: {', '.join(keys)}."
            raise mlflow_error(f"Unknown key {prefix + name!r} in the backend configuration. {hint}")
        if value is None:
            continue
        if name == "container" and isinstance(value, dict):
            values[name] = _build(Container, _normalised(value), "container.")
            continue
        values[name] = _converted(prefix + name, value, hints[name])
        for single in values[name] if isinstance(values[name], tuple) else (values[name],):
            shapes.check_shape(prefix + name, single, keys[name].shape)
    return cls(**values)


def _converted(name: str, value: Any, hint: Any) -> Any:
    try:
        # Through JSON, strictly: a list is a tuple there, but "yes" is no boolean and true no number.
        return TypeAdapter(hint).validate_json(json.dumps(value), strict=True)
    except (ValidationError, TypeError, ValueError) as exc:
        reason = exc.errors(include_url=False)[0]["msg"] if isinstance(exc, ValidationError) else str(exc)
        raise mlflow_error(f"The backend configuration's {name!r} is {value!r}: {reason}.") from None
