"""Tags of the user's own: from `MLFLOW_RUN_TAGS` and a TOML file, with templates."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from mlflow_run_context.files import text_of
from mlflow_run_context.settings import ContextSettings, warn
from mlflow_run_context.template import Template, TemplateError, compile_template
from mlflow_run_context.values import tag_key

MOST_TAGS = 100
LARGEST_FILE = 256 * 1024
Templates = Mapping[str, Template]


def user_templates(settings: ContextSettings) -> Templates:
    """Tag to template. What cannot be used is left out with one warning that says where it stands."""
    text, file = settings.tags or "", settings.tags_file or ""
    if text.endswith(".toml") and "=" not in text:
        text, file = "", text
    templates = dict(_from_file(file, _stamp(file))) if file else {}
    templates |= _from_text(text) if text else {}
    if len(templates) > MOST_TAGS:
        warn(f"There are {len(templates)} tags of your own; the first {MOST_TAGS} are set.")
    return dict(list(templates.items())[:MOST_TAGS])


def _stamp(file: str) -> tuple[int, int, int] | None:
    try:
        found = Path(file).expanduser().stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@lru_cache(maxsize=8)
def _from_file(file: str, stamp: tuple[int, int, int] | None) -> Templates:
    if stamp is None:
        warn(f"The file of tags {file[:200]!a} cannot be read.")
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib

    text = text_of(Path(file).expanduser(), LARGEST_FILE)
    try:
        data = tomllib.loads(text)
    except (ValueError, RecursionError) as exc:
        warn(f"The file of tags {file[:200]!a} is no valid TOML: {exc}")
        return {}
    tags = data.get("tags")
    if not isinstance(tags, dict) or len(data) > 1:
        warn(f"The file of tags {file[:200]!a} should hold one table, [tags].")
    return _compiled(tags if isinstance(tags, dict) else {}, file)


@lru_cache(maxsize=8)
def _from_text(text: str) -> Templates:
    if text.startswith("{"):
        try:
            data = json.loads(text)
        except (ValueError, RecursionError):
            warn("MLFLOW_RUN_TAGS begins with a brace, but it is no JSON object of names and values.")
            return {}
        return _compiled(data, "MLFLOW_RUN_TAGS")
    pairs: dict[str, object] = {}
    for word in text.split(","):
        name, equals, value = word.partition("=")
        if equals:
            pairs[name.strip()] = value.strip()
        elif word.strip():
            warn(f"MLFLOW_RUN_TAGS is no list of name=value: {word.strip()[:50]!a}. A value with a comma needs JSON.")
    return _compiled(pairs, "MLFLOW_RUN_TAGS")


def _compiled(data: Mapping[str, object], where: str) -> Templates:
    templates: dict[str, Template] = {}
    for name, value in data.items():
        key = tag_key(name)
        if key is None:
            warn(f"{where}: {name[:50]!a} is no name of a tag that may be set; it is left out.")
        elif isinstance(value, (str, int, float)):
            text = str(value).lower() if isinstance(value, bool) else str(value)
            try:
                templates[key] = compile_template(text)
            except TemplateError as exc:
                warn(f"{where}: the tag {key!a} is left out: {exc}.")
        else:
            warn(f"{where}: the value of the tag {key!a} is no text; it is left out.")
    return templates
