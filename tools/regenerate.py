"""Regenerate the parts of READMEs that are made from code and manifests, or check that they are up to date.

    python tools/regenerate.py           write
    python tools/regenerate.py --check   write nothing; exit 1 and name each file that is out of date

Each part stands between two HTML comments. Needs `packaging`, `pydantic` and, on Python 3.10, `tomli`; no MLflow.

    README.md          packages:begin ... packages:end
    a package's README options:begin [module:Settings] ... options:end
                       errors:begin module:TABLE ... errors:end
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.workspace import ROOT, Package, mlflow_range, packages

sys.path[:0] = [str(package.folder / "src") for package in packages().values()]

from packaging.specifiers import SpecifierSet  # noqa: E402 # with the rest of what needs the path
from packaging.version import Version  # noqa: E402

from mlflow_plugkit.errors import ErrorTable  # noqa: E402
from mlflow_plugkit.settings import Settings, options_table  # noqa: E402

STATUS = "Development Status :: "
GROUPS_AT_MOST = 3


class MalformedError(Exception):
    """A marker that cannot be filled in: the message says what to change."""


def package_table(members: list[Package]) -> str:
    """The Markdown table of packages, one row each, in the order of the rows' text."""
    rows = sorted(package_row(package) for package in members)
    return "\n".join(["| plugin | plugs into | MLflow | status |", "|---|---|---|---|", *rows])


def package_row(package: Package) -> str:
    link = f"[{package.name}]({package.folder.parent.name}/{package.folder.name}/)"
    return f"| {link} | {plugs_into(package)} | {range_text(mlflow_range(package))} | {status(package)} |"


def plugs_into(package: Package) -> str:
    """The entry-point groups of MLflow that the package fills, or for a library its description."""
    groups = [g for g in package.manifest["project"].get("entry-points", {}) if g.startswith("mlflow.")]
    if not groups:
        return str(package.manifest["project"]["description"])
    if len(groups) > GROUPS_AT_MOST:
        words = ", ".join(group.removeprefix("mlflow.").replace("_", " ") for group in groups)
        return f"{len(groups)} entry-point groups: {words}"
    return ", ".join(f"`{group}`" for group in groups)


def range_text(admitted: SpecifierSet) -> str:
    """A range of versions in words: `>=2.22,<4` is "2.22 to 3.x"."""
    lower = [Version(s.version) for s in admitted if s.operator == ">="]
    upper = [Version(s.version) for s in admitted if s.operator == "<"]
    if not lower or not upper:
        return f"`{admitted}`"
    end = min(upper)
    last = f"{end.major}.{end.minor - 1}" if end.minor else f"{end.major - 1}.x"
    return f"{max(lower)} to {last}"


def status(package: Package) -> str:
    """The development status that the package's classifiers declare, in lower case."""
    found = [c for c in package.manifest["project"].get("classifiers", []) if c.startswith(STATUS)]
    if len(found) != 1:
        raise MalformedError(f"{package.name}: give its pyproject.toml one '{STATUS}...' classifier")
    return str(found[0].rpartition(" - ")[2]).lower()


def options_of(package: Package, target: str) -> str:
    """The options table of the settings class that `target` names; of the package's only one if it is empty."""
    if target:
        return options_table(attribute(target))
    module = import_module(f"{package.import_name}.settings")
    own = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, Settings)]
    own = [cls for cls in own if cls.__module__ == module.__name__]
    if len(own) != 1:
        names = ", ".join(f"{module.__name__}:{cls.__name__}" for cls in own) or "none"
        raise MalformedError(f"name the settings class in the marker options:begin; there are: {names}")
    return options_table(own[0])


def errors_of(package: Package, target: str) -> str:
    """The Markdown table of an error table: the backend's error, MLflow's code, what the user can do."""
    table = attribute(target) if target else None
    if not isinstance(table, ErrorTable):
        raise MalformedError(
            f"name the error table in the marker errors:begin, such as {package.import_name}.errors:ERRORS"
        )
    rows = [f"| `{row.match}` | `{row.code}` | {row.hint} |" for row in table.rows]
    return "\n".join([f"| {table.service} | MLflow's error code | what to do |", "|---|---|---|", *rows])


def attribute(target: str) -> Any:
    module, _, name = target.partition(":")
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError) as exc:
        raise MalformedError(f"the marker names {target!r}, which cannot be found: {exc}") from exc


def filled(text: str, kind: str, render: Callable[[str], str]) -> str:
    """The text with what stands between each pair of `kind` markers replaced by `render(target)`."""
    pattern = re.compile(rf"(<!-- {kind}:begin ?(?P<target>[\w.:]*) ?-->\n).*?(<!-- {kind}:end -->)", re.DOTALL)
    if text.count(f"<!-- {kind}:begin") != len(pattern.findall(text)) or (
        text.count(f"<!-- {kind}:begin") != text.count(f"<!-- {kind}:end -->")
    ):
        raise MalformedError(f"each marker {kind}:begin needs a marker {kind}:end, and no other text on its line")
    return pattern.sub(lambda m: f"{m[1]}{render(m['target'])}\n{m[3]}", text)


def regenerated(root: Path = ROOT) -> Iterator[tuple[Path, str]]:
    """Each file with generated parts, and the text that it should have.

    Raises:
        MalformedError: a marker cannot be filled in; the message begins with the file.
    """
    members = list(packages().values())
    front = root / "README.md"
    yield front, with_file(front, lambda text: filled(text, "packages", lambda _: package_table(members)))
    for package in members:
        readme = root / package.folder.relative_to(ROOT) / "README.md"
        yield readme, with_file(readme, partial(package_readme, package=package))


def package_readme(text: str, package: Package) -> str:
    text = filled(text, "options", lambda target: options_of(package, target))
    return filled(text, "errors", lambda target: errors_of(package, target))


def with_file(path: Path, change: Callable[[str], str]) -> str:
    try:
        return change(path.read_text(encoding="utf-8"))
    except (MalformedError, FileNotFoundError) as exc:
        raise MalformedError(f"{path}: {exc}") from exc


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a file is out of date")
    check = parser.parse_args(arguments).check
    try:
        stale = [(path, text) for path, text in regenerated(root) if text != path.read_text(encoding="utf-8")]
    except MalformedError as exc:
        print(exc, file=sys.stderr)
        return 1
    for path, text in stale:
        shown = path.relative_to(root)
        if check:
            print(f"{shown} is out of date. Run: python tools/regenerate.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(f"regenerated {shown}")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
