"""Values with references: `{user}`, `${VARIABLE}`, `${VARIABLE:-default}`, `file:/path`."""

from __future__ import annotations

import difflib
import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from mlflow_request_headers.fields import NAMES, field_value

LARGEST_FILE = 16 * 1024
_PARTS = re.compile(
    r"(?P<escape>\$\$|\{\{|\}\})|\$\{(?P<variable>[^{}]*)\}|\{(?P<field>[^{}]*)\}|(?P<stray>[{}])|(?P<text>(?:[^${}]|\$(?![${]))+)"
)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

Signature = tuple[int, int, int, int]


class TemplateError(ValueError):
    """The text is no template; the message says why and ends without a full stop."""


@dataclass(frozen=True)
class Reference:
    """A part whose value is looked up for each request."""

    kind: str
    name: str
    default: str

    def value(self) -> str:
        """The value now, "" where it is missing."""
        found = os.environ.get(self.name, "") if self.kind == "variable" else field_value(self.name)
        return found.strip() or self.default


@dataclass(frozen=True)
class Template:
    """A compiled value. Evaluating costs a few lookups, and for a file one `stat` while it does not change."""

    parts: tuple[str | Reference, ...]
    is_file: bool = False
    folder: Path = field(default_factory=Path)
    _seen: dict[str, tuple[Signature, str]] = field(default_factory=dict, repr=False, compare=False)

    def value(self) -> str:
        """The value now, without blanks around it; "" where any part of it is missing."""
        texts = [part if isinstance(part, str) else part.value() for part in self.parts]
        if not all(texts):
            return ""
        text = "".join(texts).strip()
        return self._read(text) if self.is_file else text

    def missing(self) -> str:
        """What the value lacks, for a message: names only, never a value."""
        if self.is_file:
            return "its file is missing, empty, unreadable or no small text file"
        kinds = {"variable": "environment variable ", "field": "field "}
        lacking = [f"{kinds[p.kind]}{p.name}" for p in self.parts if isinstance(p, Reference) and not p.value()]
        return f"{' and '.join(lacking)} not set" if lacking else "it is empty"

    def _read(self, name: str) -> str:
        path = self.folder / Path(name).expanduser()
        try:
            found = path.stat()
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_FILE:
                return ""
            signature = signature_of(found)
            before = self._seen.get(name)
            if before and before[0] == signature:
                return before[1]
            text = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError, RuntimeError):  # ValueError: a NUL in the path or no UTF-8; RuntimeError: no home
            return ""
        self._seen[name] = (signature, text)
        return text


def signature_of(found: os.stat_result) -> Signature:
    """What changes when a file is written or replaced."""
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_dev


def compile_template(text: str, folder: Path) -> Template:
    """Compile a header's value.

    Args:
        text: literal text with `{field}`, `${VARIABLE}` (each with `:-default` if wanted), `{{`, `}}` and `$$`
            for the characters themselves; or `file:` and a path, in which references may stand, too.
        folder: what a relative path is relative to.

    Raises:
        TemplateError: an unknown field (naming the nearest known one), a bad variable name, a stray brace.
    """
    is_file = text.startswith("file:")
    parts: list[str | Reference] = []
    for match in _PARTS.finditer(text.removeprefix("file:")):
        kind = match.lastgroup
        if kind == "stray":
            raise TemplateError(f"there is a single {match[0]!r}; write {match[0] * 2!r} for the character itself")
        if kind in ("variable", "field"):
            parts.append(_reference(kind, match[kind]))
        else:
            parts.append(match[0][0] if kind == "escape" else match[0])
    return Template(tuple(parts), is_file, folder)


def _reference(kind: str, text: str) -> Reference:
    name, _, default = text.partition(":-")
    if kind == "variable" and not _VARIABLE.fullmatch(name):
        raise TemplateError(f"{name!r} is no name of an environment variable")
    if kind == "field" and name not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(NAMES)}"
        raise TemplateError(f"there is no field {name!r}; {hint}")
    return Reference(kind, name, default)
