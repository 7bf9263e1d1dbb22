"""The headers' configuration: a file and the environment become immutable rules. Nothing is sent or looked up here.

required = ["X-Data-Classification"]
traceparent = true
request_id = "X-Request-ID"

[headers]
X-Environment = "{environment:-development}"
X-Ticket = "file:/run/secrets/ticket"

[hosts."*.example.com".headers]
X-Tenant = "blue"
"""

from __future__ import annotations

import difflib
import json
import os
import stat
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from mlflow_request_headers.lines import KeyPath, json_lines, nearest, toml_lines
from mlflow_request_headers.names import canonical, name_problem, value_problem
from mlflow_request_headers.settings import HeaderSettings
from mlflow_request_headers.target import matches
from mlflow_request_headers.template import Signature, Template, TemplateError, compile_template, signature_of

LARGEST_FILE = 256 * 1024
REQUEST_ID = "X-Request-ID"
_TOP = ("headers", "required", "hosts", "traceparent", "request_id")
_HOST = ("headers", "required")


class ConfigError(ValueError):
    """The configuration cannot be used; the message is what the user reads."""


@dataclass(frozen=True)
class Rule:
    """One header. `template` is None where the configuration takes the header out (`false`)."""

    name: str
    template: Template | None
    where: str


@dataclass(frozen=True)
class Scope:
    """Headers, by their lower-case names, and the required names with the place that requires them."""

    headers: Mapping[str, Rule] = field(default_factory=dict)
    required: Mapping[str, tuple[str, str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Rules:
    """All that a configuration says.

    Attributes:
        scopes: (host pattern, scope) in the order in which they apply; the pattern `*` is every host.
        request_id: the header's name, or None.
    """

    scopes: tuple[tuple[str, Scope], ...] = ()
    traceparent: bool = True
    request_id: str | None = REQUEST_ID
    _known: dict[str, Scope] = field(default_factory=dict, repr=False, compare=False)

    @property
    def asks_for_host(self) -> bool:
        """Whether the headers depend on where the request goes."""
        return any(pattern != "*" for pattern, _ in self.scopes)

    def scope_for(self, target: str) -> Scope:
        """The rules for one `host:port`, merged; later scopes win."""
        found = self._known.get(target)
        if found is None:
            headers: dict[str, Rule] = {}
            required: dict[str, tuple[str, str]] = {}
            for pattern, scope in self.scopes:
                if pattern == "*" or matches(pattern, target):
                    headers.update(scope.headers)
                    required.update(scope.required)
            found = self._known[target] = Scope(headers, required)
        return found


def load(settings: HeaderSettings) -> Rules:
    """Read the file and the environment.

    Raises:
        ConfigError: naming the file and the line, or the variable.
    """
    rules = _from_file(Path(settings.file).expanduser()) if settings.file else Rules()
    scopes = list(rules.scopes)
    if settings.headers or settings.required:
        required = {n.lower(): (n, "MLFLOW_REQUEST_HEADERS_REQUIRED") for n in settings.required if n}
        scopes.append(("*", Scope(dict(_from_text(settings.headers or "")), required)))
    request_id = rules.request_id
    if settings.request_id:
        request_id = _request_id_name(settings.request_id, "MLFLOW_REQUEST_HEADERS_REQUEST_ID")
    traceparent = rules.traceparent if settings.traceparent is None else settings.traceparent
    return Rules(tuple(scopes), traceparent, request_id)


def file_signature(file: str | None) -> Signature | None:
    """What changes when the file does; None where there is none."""
    if not file:
        return None
    try:
        return signature_of(os.stat(os.path.expanduser(file)))
    except (OSError, ValueError):
        return None


def _from_file(path: Path) -> Rules:
    text = _text_of(path)
    is_json = path.suffix.lower() == ".json"
    try:
        data = json.loads(text, object_pairs_hook=_no_duplicates) if is_json else tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ConfigError(f"{path} is no valid TOML: {exc}") from None
    except json.JSONDecodeError as exc:
        raise ConfigError(f"{path} is no valid JSON: {exc.msg} (at line {exc.lineno})") from None
    except (ValueError, RecursionError) as exc:
        raise ConfigError(f"{path} cannot be read: {exc}") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path} holds no table at its top: write {{...}} with 'headers' in it")
    lines = json_lines(text, list(_paths(data))) if is_json else toml_lines(text)
    return _Reader(path, lines).rules(data)


class _Reader:
    """Turns parsed data into rules, and knows where each key stands."""

    def __init__(self, path: Path, lines: dict[KeyPath, int]) -> None:
        self.path = path
        self.lines = lines

    def where(self, *path: str) -> str:
        line = nearest(self.lines, path)
        return f"line {line} of {self.path}" if line else str(self.path)

    def rules(self, data: dict[str, Any]) -> Rules:
        self._known_keys(data, _TOP, ())
        scopes = [("*", self._scope(data, ()))]
        for pattern, table in self._table(data, "hosts", ()).items():
            path = ("hosts", pattern)
            if not isinstance(table, dict):
                raise ConfigError(f"{self.where(*path)}: the host {pattern!r} needs a table with 'headers' in it")
            self._known_keys(table, _HOST, path)
            scopes.append((pattern, self._scope(table, path)))
        traceparent = data.get("traceparent", True)
        if not isinstance(traceparent, bool):
            raise ConfigError(f"{self.where('traceparent')}: traceparent is true or false")
        return Rules(tuple(scopes), traceparent, self._request_id(data.get("request_id", True)))

    def _request_id(self, value: Any) -> str | None:
        if isinstance(value, bool):
            return REQUEST_ID if value else None
        if not isinstance(value, str):
            raise ConfigError(f"{self.where('request_id')}: request_id is a header's name, true or false")
        return _request_id_name(value, self.where("request_id"))

    def _scope(self, table: dict[str, Any], path: KeyPath) -> Scope:
        headers: dict[str, Rule] = {}
        for name, value in self._table(table, "headers", path).items():
            where = self.where(*path, "headers", name)
            if name.lower() in headers:
                raise ConfigError(f"{where}: the header {name!r} stands there twice, in another case")
            headers[name.lower()] = make_rule(name, value, where, self.path.parent)
        required = table.get("required", [])
        if not isinstance(required, list) or not all(isinstance(n, str) for n in required):
            raise ConfigError(f"{self.where(*path, 'required')}: required is a list of header names")
        where = self.where(*path, "required")
        return Scope(headers, {name.lower(): (name, where) for name in required})

    def _table(self, data: dict[str, Any], key: str, path: KeyPath) -> dict[str, Any]:
        table = data.get(key, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{self.where(*path, key)}: {key!r} is a table")
        return table

    def _known_keys(self, table: dict[str, Any], known: tuple[str, ...], path: KeyPath) -> None:
        for key in table:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
                hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(known)}"
                raise ConfigError(f"{self.where(*path, key)}: there is no option {key!r}; {hint}")


def make_rule(name: str, value: Any, where: str, folder: Path) -> Rule:
    """Check one header and compile its value.

    Raises:
        ConfigError: beginning with `where`.
    """
    problem = name_problem(name)
    if problem:
        raise ConfigError(f"{where}: the header {name!r} is refused: {problem}")
    if value is False:
        return Rule(canonical(name), None, where)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise ConfigError(f"{where}: the value of {name!r} is no text")
    problem = value_problem(value)
    if problem:
        raise ConfigError(f"{where}: the header {name!r} is refused: {problem}")
    try:
        return Rule(canonical(name), compile_template(value, folder), where)
    except TemplateError as exc:
        raise ConfigError(f"{where}: the value of {name!r} cannot be used: {exc}") from None


def _from_text(text: str) -> Iterator[tuple[str, Rule]]:
    source = "MLFLOW_REQUEST_HEADERS"
    if text.lstrip().startswith("{"):
        try:
            pairs = json.loads(text, object_pairs_hook=_no_duplicates)
        except (ValueError, RecursionError):
            raise ConfigError(f"{source} starts with a brace, but it is no JSON object of names and values") from None
        for name, value in pairs.items():
            yield name.lower(), make_rule(name, value, source, Path())
        return
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise ConfigError(f"line {number} of {source} is not of the form 'Name: value'")
        yield name.strip().lower(), make_rule(name.strip(), value.strip(), f"line {number} of {source}", Path())


def _request_id_name(name: str, where: str) -> str | None:
    if name.strip().lower() in ("none", "false", "off"):
        return None
    problem = name_problem(name)
    if problem:
        raise ConfigError(f"{where}: the header {name!r} is refused: {problem}")
    return name


def _text_of(path: Path) -> str:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_FILE:
            raise ConfigError(f"{path} is no regular file of at most {LARGEST_FILE // 1024} KiB")
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8 text") from None
    except (OSError, ValueError) as exc:
        if isinstance(exc, ConfigError):
            raise
        reason = exc.strerror if isinstance(exc, OSError) else "its name holds a NUL"
        raise ConfigError(f"{path}, which MLFLOW_REQUEST_HEADERS_FILE names, cannot be read: {reason}") from None


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"the key {key!r} stands there twice")
        found[key] = value
    return found


def _paths(data: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    if isinstance(data, dict):
        for key, value in data.items():
            yield (*path, key)
            yield from _paths(value, (*path, key))
