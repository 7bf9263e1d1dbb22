"""What the repository knows about its own packages, read from their manifests and nowhere else."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
HOMES = ("shared", "packages")


@dataclass(frozen=True)
class Package:
    """One independently published distribution: its folder, name and manifest."""

    folder: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.manifest["project"]["name"])

    @property
    def version(self) -> str:
        return str(self.manifest["project"]["version"])

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")

    @property
    def is_plugin(self) -> bool:
        return self.folder.parent.name == "packages"

    def requirements(self, *, extras: Collection[str] | None = (), group: str | None = None) -> list[Requirement]:
        """Its dependencies, with those of some extras (None: of all) and of a dependency group where asked for."""
        project = self.manifest["project"]
        lines = list(project.get("dependencies", []))
        for extra, more in project.get("optional-dependencies", {}).items():
            if extras is None or extra in extras:
                lines += more
        if group:
            lines += self.manifest.get("dependency-groups", {}).get(group, [])
        return [Requirement(line) for line in lines]


def read_toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text(encoding="utf-8"))


@cache
def packages() -> dict[str, Package]:
    """Every distribution of the repository by name: those of shared/ first."""
    folders = [manifest.parent for home in HOMES for manifest in sorted((ROOT / home).glob("*/pyproject.toml"))]
    found = [Package(folder, read_toml(folder / "pyproject.toml")) for folder in folders]
    return {package.name: package for package in found}


def package_named(name: str) -> Package:
    """The package `name`, or an error that lists those that there are."""
    if name not in packages():
        raise SystemExit(f"There is no package {name!r}. There are: {', '.join(packages())}.")
    return packages()[name]


def needs(package: Package, *, tests: bool) -> tuple[set[str], list[Requirement]]:
    """What the package needs: names of packages in this repository, and requirements that the index must answer.

    With `tests`, also what its group `test` names. An extra of a package in this repository (its own, too) is
    followed where it is asked for: `mlflow-plugkit[artifacts]`.
    """
    todo = package.requirements(group="test" if tests else None)
    seen, members, external = set[str](), set[str](), list[Requirement]()
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name not in packages():
            external.append(requirement)
        elif str(requirement) not in seen:
            seen.add(str(requirement))
            members.add(name)
            todo += packages()[name].requirements(extras=requirement.extras)
    return members - {package.name}, external


def workspace_dependencies(package: Package, *, tests: bool) -> list[Package]:
    """The package's dependencies inside this repository, however far away; with those of its tests if asked."""
    members, _ = needs(package, tests=tests)
    return [p for p in packages().values() if p.name in members]


def mlflow_range(package: Package) -> SpecifierSet:
    """The MLflow versions that the package's metadata admits, dependencies in this repository included."""
    admitted = SpecifierSet()
    for member in (package, *workspace_dependencies(package, tests=False)):
        for requirement in member.requirements():
            if canonicalize_name(requirement.name) in ("mlflow", "mlflow-skinny"):
                admitted &= requirement.specifier
    return admitted


def mlflow_versions(package: Package) -> list[str]:
    """The MLflow versions of the matrix that the package admits, oldest first."""
    matrix = read_toml(ROOT / "pyproject.toml")["tool"]["plugkit"]["mlflow"]
    return list(mlflow_range(package).filter(matrix))


def mlflow_constraints(version: str) -> list[str]:
    """What has to be installed beside this MLflow version for it to work today."""
    rows = read_toml(ROOT / "pyproject.toml")["tool"]["plugkit"]["constraints"]
    return [row["requires"] for row in rows if version in SpecifierSet(row["mlflow"])]


def group(name: str) -> list[str]:
    """A dependency group of the root manifest."""
    return list(read_toml(ROOT / "pyproject.toml")["dependency-groups"][name])


def external_requirements(package: Package, *, tests: bool) -> list[str]:
    """All that the package and its dependencies in this repository ask of the package index.

    What can only be compiled, and here cannot, is left out: `[tool.plugkit] compiled` of the root manifest.
    """
    _, external = needs(package, tests=tests)
    rows = read_toml(ROOT / "pyproject.toml")["tool"]["plugkit"].get("compiled", [])
    absent = {row["requires"] for row in rows if not shutil.which(row["needs"])}
    return sorted({str(r) for r in external if canonicalize_name(r.name) not in absent})
