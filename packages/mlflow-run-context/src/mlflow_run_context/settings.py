"""The options, all from the environment. A bad one is a warning and its default: a training script never ends by it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.settings import Settings, declared_options, option
from mlflow_run_context.jobs import REFRESH, SOURCES

_PREFIX = re.compile(r"(?!mlflow\b)[A-Za-z_][\w.-]{0,49}")
_LONGEST_WAIT = 600.0


@dataclass(frozen=True, kw_only=True)
class ContextSettings(Settings):
    """What the user chose."""

    sources: tuple[str, ...] = option(
        ("all",),
        in_uri=False,
        env="MLFLOW_RUN_CONTEXT_SOURCES",
        help="Which sources give tags: `all`, `none`, or names out of git, ci, scheduler, container, host, cpu, gpu, "
        "python, lock; `-name` takes one out, as in `all,-host`.",
    )
    prefix: str = option(
        "ctx", in_uri=False, env="MLFLOW_RUN_CONTEXT_PREFIX", help="What the names of the sources' tags begin with."
    )
    tags: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_RUN_TAGS",
        help="Tags of your own: `name=value,name=value`, a JSON object, or the path of a TOML file.",
    )
    tags_file: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_RUN_TAGS_FILE",
        help="TOML file whose table `[tags]` holds tags of your own. `MLFLOW_RUN_TAGS` wins over it.",
    )
    experiment: str | None = option(
        None,
        in_uri=False,
        env="MLFLOW_RUN_CONTEXT_EXPERIMENT",
        help="Experiment for runs that name none, as a template such as `{git.repository:-sandbox}`.",
    )
    git_diff: bool = option(
        False,
        in_uri=False,
        env="MLFLOW_RUN_CONTEXT_GIT_DIFF",
        help="Add the uncommitted changes themselves, scrubbed and cut, as the tag `ctx.git.diff`.",
    )
    standard_git: bool = option(
        True,
        in_uri=False,
        env="MLFLOW_RUN_CONTEXT_STANDARD_GIT",
        help="Fill in MLflow's own `mlflow.source.git.*` tags where MLflow has set none.",
    )
    deadline: float = option(
        0.04,
        in_uri=False,
        env="MLFLOW_RUN_CONTEXT_DEADLINE",
        help="Seconds that the first run may be held up by slow sources; what is later comes with the next run.",
    )
    refresh: float = option(
        REFRESH,
        in_uri=False,
        env="MLFLOW_RUN_CONTEXT_REFRESH",
        help="Seconds after which git's state is looked up again although nothing shows that it changed.",
    )

    @property
    def chosen(self) -> frozenset[str]:
        """The names of the sources that are switched on."""
        found: set[str] = set()
        for word in (s.strip().lower() for s in self.sources):
            if word in ("all", "none"):
                found = set(SOURCES) if word == "all" else set()
            elif word.startswith("-"):
                found = (found or set(SOURCES)) - {word[1:]}
            elif word in SOURCES:
                found.add(word)
        return frozenset(found)


VARIABLES = tuple(variable for declared in declared_options(ContextSettings).values() for variable in declared.env)
"""The environment variables of the options."""


def current_settings() -> ContextSettings:
    """The settings of the environment as it is now."""
    get = os.environ.get
    return _read(tuple([get(name, "").strip() for name in VARIABLES]))


@lru_cache(maxsize=16)
def _read(values: tuple[str, ...]) -> ContextSettings:
    from mlflow.exceptions import MlflowException

    environ = {name: value for name, value in zip(VARIABLES, values, strict=True) if value}
    try:
        settings = ContextSettings.from_env(environ)
    except MlflowException:
        settings = ContextSettings.from_env({n: v for n, v in environ.items() if _is_good(n, v)})
    return _checked(settings)


def _is_good(name: str, value: str) -> bool:
    from mlflow.exceptions import MlflowException

    try:
        ContextSettings.from_env({name: value})
    except MlflowException as exc:
        warn(f"{exc.message} The default is used.")
        return False
    return True


def _checked(settings: ContextSettings) -> ContextSettings:
    defaults: Mapping[str, object] = {}
    if not _PREFIX.fullmatch(settings.prefix):
        warn(
            f"MLFLOW_RUN_CONTEXT_PREFIX is {settings.prefix[:50]!a}, which no tag of a plugin begins with; it is 'ctx'."
        )
        settings = replace(settings, prefix="ctx")
    for name, limit in (("deadline", _LONGEST_WAIT), ("refresh", float("inf"))):
        if not 0 <= getattr(settings, name) <= limit:  # not a number, too
            warn(f"MLFLOW_RUN_CONTEXT_{name.upper()} is no number of seconds from 0 to {limit:g}; the default is used.")
            defaults = {**defaults, name: ContextSettings.__dataclass_fields__[name].default}
    unknown = {w.lstrip("-") for s in settings.sources if (w := s.strip().lower())} - {*SOURCES, "all", "none"}
    if unknown:
        known = ", ".join(SOURCES)
        warn(f"MLFLOW_RUN_CONTEXT_SOURCES names no source: {sorted(unknown)[:3]!a}. Known are all, none, {known}.")
    return replace(settings, **defaults)  # type: ignore[arg-type] # names and values of its own fields


@lru_cache(maxsize=64)
def warn(message: str) -> None:
    """One warning, once in a process."""
    get_logger("mlflow_run_context").warning("%s", message)
