"""What an import consists of: parts, each one kind of thing in one scope, that the installed packages know.

A package names the class that reads its things from a source and writes its documents:

    [project.entry-points."mlflow_plugkit.elasticsearch_importers"]
    tracking = "mlflow_elasticsearch_tracking.importer:TrackingImporter"
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Documents
from mlflow_plugkit_elasticsearch.import_source import ImportSource

GROUP = "mlflow_plugkit.elasticsearch_importers"
#: The tracking store's experiments come before a registry's versions, which name runs.
_ORDER = ("tracking", "registry")


@dataclass(frozen=True)
class Part:
    """One kind of thing in one scope.

    Attributes:
        name: unique in an import, and the same in the next one of the same source ("runs of experiment 3").
        read: a page of the source behind a token: the things and the next token, None at the end.
        write: writes things of a page. May be called again with the same ones: their ids are the source's.
        count: how many there are in the target.
        label: what a thing is called in a message.
        sides: the same thing as the source and as the target tell it, as values to compare (see `plain`).
    """

    name: str
    read: Callable[[str | None], tuple[Sequence[Any], str | None]]
    write: Callable[[Sequence[Any]], None]
    count: Callable[[], int]
    label: Callable[[Any], str]
    sides: Callable[[Any], tuple[Any, Any]]


class Importer(Protocol):
    """What a package brings."""

    def __init__(self, source: ImportSource, target_uri: str, documents: Documents) -> None: ...

    def clashes(self) -> Iterator[str]:
        """What the target has already under an id or a name of the source, one sentence each."""

    def parts(self) -> Iterator[Part]:
        """The parts in the order in which they are copied; a part may be made after those before it were copied."""

    def notes(self) -> Iterator[str]:
        """What cannot be read from this source, one sentence each."""


def installed_importers(source: ImportSource, target_uri: str, documents: Documents) -> list[Importer]:
    """The importers of the installed packages.

    Raises:
        MlflowException: `INVALID_STATE` where none is installed.
    """
    found = {entry.name: entry for entry in entry_points(group=GROUP)}
    if not found:
        raise mlflow_error(
            "No Elasticsearch store is installed. Install mlflow-elasticsearch-tracking, "
            "mlflow-elasticsearch-registry, or both.",
            "INVALID_STATE",
        )
    names = sorted(found, key=lambda name: (_ORDER.index(name) if name in _ORDER else len(_ORDER), name))
    return [found[name].load()(source, target_uri, documents) for name in names]


def plain(value: Any) -> Any:
    """An entity as dictionaries, lists and texts that compare by what they say.

    NaN equals NaN; None, "" and empty collections are left out, which a server and a database tell apart for no
    reason; tags and params are in the order of their keys.
    """
    if isinstance(value, float):
        return "NaN" if math.isnan(value) else value
    if isinstance(value, enum.Enum):
        return plain(value.value)
    if isinstance(value, str | int | bytes) or value is None:
        return value
    if isinstance(value, Mapping):
        return _filled({str(key): plain(one) for key, one in value.items()})
    if isinstance(value, list | tuple | set | frozenset):
        items = [plain(one) for one in value]
        keyed = all(isinstance(one, dict) and "key" in one for one in items)
        return sorted(items, key=lambda one: str(sorted(one.items()))) if keyed else items
    return _filled({name.lstrip("_"): plain(one) for name, one in vars(value).items()})


def _filled(values: dict[str, Any]) -> dict[str, Any]:
    return {name: one for name, one in values.items() if one not in (None, "", [], {})}
