"""Writes an installed distribution into a folder, as pip would: modules, METADATA, entry_points.txt, RECORD."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

METADATA = """Metadata-Version: 2.4
Name: {name}
Version: 0.1
License-File: LICENSE
{requires}"""


def write_distribution(
    folder: Path,
    name: str,
    modules: Mapping[str, str],
    entry_points: Mapping[str, Mapping[str, str]],
    *,
    requires: Iterable[str] = ("mlflow-skinny>=2.22,<4",),
    licence: bool = True,
) -> Path:
    """Write distribution `name` into `folder` and return the folder, ready for PYTHONPATH.

    Args:
        modules: files by path relative to the folder, with their content.
        entry_points: group to (name to value).
        requires: lines of Requires-Dist.
        licence: whether LICENSE is there.
    """
    info = f"{name.replace('-', '_')}-0.1.dist-info"
    lines = [f"Requires-Dist: {line}\n" for line in requires]
    groups = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in entry_points.items()
    )
    files = dict(modules) | {
        f"{info}/METADATA": METADATA.format(name=name, requires="".join(lines)),
        f"{info}/entry_points.txt": "\n".join(groups),
    }
    if licence:
        files[f"{info}/licenses/LICENSE"] = "Apache License 2.0\n"
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    for path, text in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return folder
