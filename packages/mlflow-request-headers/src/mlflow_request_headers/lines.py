"""Where in a configuration file a key stands, for messages: the parsers do not say."""

from __future__ import annotations

import json
import re
import sys

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_TABLE = re.compile(r"\s*\[\[?(?P<name>.+?)\]\]?\s*(?:#.*)?")
_KEY = re.compile(r"\s*(?P<key>(?:\"(?:[^\"\\]|\\.)*\"|'[^']*'|[A-Za-z0-9_.\s-])+?)\s*=")

KeyPath = tuple[str, ...]


def toml_lines(text: str) -> dict[KeyPath, int]:
    """The line number, from 1, of each table header and of each key that starts a line."""
    found: dict[KeyPath, int] = {}
    table: KeyPath = ()
    for number, line in enumerate(text.splitlines(), 1):
        header, key = _TABLE.fullmatch(line), _KEY.match(line)
        if header:
            table = _path_of(header["name"])
            found.setdefault(table, number)
        elif key:
            found.setdefault((*table, *_path_of(key["key"])), number)
    return found


def json_lines(text: str, paths: list[KeyPath]) -> dict[KeyPath, int]:
    """The same for the given paths of a JSON text: the first place of each key after its parent's."""
    offsets: dict[KeyPath, int] = {(): 0}
    for path in sorted(paths, key=len):
        start = offsets.get(path[:-1], 0)
        match = re.compile(re.escape(json.dumps(path[-1], ensure_ascii=False)) + r"\s*:").search(text, start)
        if match:
            offsets[path] = match.start()
    return {path: text.count("\n", 0, offset) + 1 for path, offset in offsets.items()}


def nearest(lines: dict[KeyPath, int], path: KeyPath) -> int | None:
    """The line of the key, or of the nearest thing around it (an inline table, a table header)."""
    while path:
        if path in lines:
            return lines[path]
        path = path[:-1]
    return None


def _path_of(name: str) -> KeyPath:
    try:
        inner = tomllib.loads(f"{name} = 0")
    except tomllib.TOMLDecodeError:
        return (name,)
    path: list[str] = []
    while isinstance(inner, dict):
        key, inner = next(iter(inner.items()))
        path.append(key)
    return tuple(path)
