"""Texts with references: `{git.commit}`, `{ci.run:-local}`, `${VARIABLE}`, `${VARIABLE:-default}`."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import NamedTuple

from mlflow_plugkit.uri import HIDDEN
from mlflow_run_context.values import is_secret_name

_PARTS = re.compile(
    r"(?P<escape>\$\$|\{\{|\}\})|\$\{(?P<variable>[^{}]*)\}|\{(?P<field>[^{}]*)\}"
    r"|(?P<stray>[{}])|(?P<text>(?:[^${}]|\$(?![${]))+)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_FIELD = re.compile(r"[A-Za-z_][\w./-]*")


class TemplateError(ValueError):
    """The text is no template; the message says why."""


@cache
def _user() -> str:
    try:
        return getpass.getuser()
    except (ImportError, KeyError, OSError):  # no entry in the user database
        return ""


PROCESS: Mapping[str, Callable[[], str]] = {
    "user": _user,
    "pid": lambda: str(os.getpid()),
    "script": lambda: os.path.basename(sys.argv[0]) if sys.argv else "",
}
"""Fields that are there beside those of the sources."""


class Template(NamedTuple):
    """A compiled text: literal parts, and (kind, name, default) for each reference."""

    parts: tuple[str | tuple[str, str, str], ...]

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of the fields that it refers to."""
        return tuple(part[1] for part in self.parts if not isinstance(part, str) and part[0] == "field")

    def value(self, found: Mapping[str, str]) -> str:
        """The text with the given fields and the environment, "" where any part of it is missing.

        The value of a variable with a secret's name is `***`.
        """
        texts = [part if isinstance(part, str) else _lookup(*part, found) for part in self.parts]
        return "".join(texts).strip() if all(texts) else ""


def _lookup(kind: str, name: str, default: str, found: Mapping[str, str]) -> str:
    if kind == "field":
        value = PROCESS[name]() if name in PROCESS else found.get(name, "")
    else:
        value = os.environ.get(name, "")
        value = HIDDEN if value and is_secret_name(name) else value
    return value[:10_000].strip() or default


@lru_cache(maxsize=256)
def compile_template(text: str) -> Template:
    """Compile a text.

    Raises:
        TemplateError: a stray brace, or something that is no name within braces.
    """
    parts: list[str | tuple[str, str, str]] = []
    for match in _PARTS.finditer(text):
        kind = match.lastgroup
        if kind == "stray":
            raise TemplateError(f"there is a single {match[0]!r}; write {match[0] * 2!r} for the character itself")
        if kind in ("variable", "field"):
            name, _, default = match[kind].partition(":-")
            if not (_VARIABLE if kind == "variable" else _FIELD).fullmatch(name):
                raise TemplateError(f"{name[:50]!a} is no name of a {kind}")
            parts.append((kind, name, default))
        else:
            parts.append(match[0][0] if kind == "escape" else match[0])
    return Template(tuple(parts))
