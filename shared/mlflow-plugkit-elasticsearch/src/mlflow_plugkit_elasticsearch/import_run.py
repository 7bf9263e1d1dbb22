"""An import from beginning to end: refuse or go on, copy part by part, verify."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Documents
from mlflow_plugkit_elasticsearch.import_checkpoints import DONE, RUNNING, Checkpoint, Checkpoints
from mlflow_plugkit_elasticsearch.import_parts import Importer, Part
from mlflow_plugkit_elasticsearch.import_progress import Progress
from mlflow_plugkit_elasticsearch.import_source import ImportSource
from mlflow_plugkit_elasticsearch.installed import installed_indices

_SHOWN = 10


def copy(
    source: ImportSource, documents: Documents, importers: list[Importer], progress: Progress, *, resume: bool
) -> bool:
    """Copy everything; an import that was interrupted goes on. Whether there was anything to do.

    Args:
        source: to read from.
        documents: to write to.
        importers: those of the installed packages.
        progress: where to show it.
        resume: write over what the target has under the source's ids, and begin again after a finished import.

    Raises:
        MlflowException: `RESOURCE_ALREADY_EXISTS`, before anything is written, where the target has other things
            under an id or a name of the source.
    """
    checkpoints = Checkpoints(documents, source)
    state = checkpoints.state()
    if state == DONE and not resume:
        progress.say(f"{source.location} was imported already. To copy it again, add --resume.")
        return False
    if state is None and not resume:
        _refuse_clashes(importers)
    for index in installed_indices():
        documents.schema.ensure(index)
    checkpoints.begin(anew=state != RUNNING)
    for part in _parts(importers):
        _copy_part(part, checkpoints, progress)
    checkpoints.end()
    return True


def _refuse_clashes(importers: list[Importer]) -> None:
    found = list(islice((clash for importer in importers for clash in importer.clashes()), _SHOWN + 1))
    if found:
        more = " And more." if len(found) > _SHOWN else ""
        raise mlflow_error(
            f"The target is in use; nothing was written. {' '.join(found[:_SHOWN])}{more} Choose another prefix, or "
            "add --resume if these come from an import of the same source and may be written over.",
            "RESOURCE_ALREADY_EXISTS",
        )


def _parts(importers: list[Importer]) -> Iterator[Part]:
    return (part for importer in importers for part in importer.parts())


def _copy_part(part: Part, checkpoints: Checkpoints, progress: Progress) -> None:
    at = checkpoints.of(part.name)
    if at.done:
        return
    progress.begin(part.name, at.count)
    while not at.done:
        things, token = part.read(at.token)
        part.write(things)
        at = Checkpoint(token, at.count + len(things), token is None)
        if at.count:  # to look again where there was nothing costs no more than to ask
            checkpoints.keep(part.name, at)
        progress.add(len(things))
    progress.end()


def differences(importers: list[Importer], progress: Progress, sample: int) -> Iterator[str]:
    """How target and source differ, one sentence each: in numbers, and in up to `sample` things of each page."""
    for part in _parts(importers):
        progress.begin(part.name)
        number, token = 0, None
        while True:
            things, token = part.read(token)
            number += len(things)
            for thing in _some(things, sample):
                yield from _compared(part, thing)
            progress.add(len(things))
            if token is None:
                break
        progress.end()
        there = part.count()
        if there != number:
            yield f"{part.name}: {number} in the source, {there} in the target"


def _some(things: Any, sample: int) -> Any:
    """The first, the last and others at equal distances."""
    if len(things) <= sample:
        return things
    return [things[position * (len(things) - 1) // max(sample - 1, 1)] for position in range(sample)]


def _compared(part: Part, thing: Any) -> Iterator[str]:
    expected, found = part.sides(thing)
    if expected == found:
        return
    label = f"{part.name}: {part.label(thing)}"
    if not isinstance(expected, dict) or not isinstance(found, dict):
        yield f"{label}: {_short(expected)} in the source, {_short(found)} in the target"
        return
    for name in sorted(expected.keys() | found.keys()):
        if expected.get(name) != found.get(name):
            there = _short(found.get(name))
            yield f"{label}: {name} is {_short(expected.get(name))} in the source, {there} in the target"


def _short(value: Any) -> str:
    text = "missing" if value is None else json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 200 else f"{text[:200]}..."
