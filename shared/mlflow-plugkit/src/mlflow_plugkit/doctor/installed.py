"""The MLflow plugins of this environment, from the metadata of its distributions alone."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import Distribution, distributions

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

MLFLOW_DISTRIBUTIONS = ("mlflow-skinny", "mlflow", "mlflow-tracing")
_UPPER_BOUNDS = {"<", "<=", "==", "~=", "==="}


@dataclass(frozen=True)
class PluginEntryPoint:
    """One entry point in an `mlflow.*` group, as the metadata writes it."""

    distribution: str
    group: str
    name: str
    object: str

    @property
    def subject(self) -> str:
        """How findings call it."""
        return f"{self.distribution}: {self.group} {self.name!r}"


@dataclass(frozen=True)
class Plugin:
    """A distribution with entry points for MLflow.

    Attributes:
        name, version: as in its metadata; "" where the metadata has none.
        entry_points: in the order of its entry_points.txt.
        requires: its Requires-Dist lines.
        packages: the top-level packages and modules that it installs; empty where it has no file list.
    """

    name: str
    version: str
    entry_points: tuple[PluginEntryPoint, ...]
    requires: tuple[str, ...] = ()
    packages: frozenset[str] = frozenset()

    def requirements(self) -> list[Requirement]:
        """What it requires in this environment, without its extras. Unreadable lines are left out."""
        return [r for r in map(parse_requirement, self.requires) if r and applies(r)]

    def mlflow_range(self) -> SpecifierSet | None:
        """The MLflow versions that it declares, or None where it declares no requirement on MLflow."""
        declared = [r for r in self.requirements() if normalized(r.name) in MLFLOW_DISTRIBUTIONS]
        if not declared:
            return None
        return SpecifierSet(",".join(sorted({str(s) for r in declared for s in r.specifier})))


@dataclass
class Installed:
    """What is installed.

    Attributes:
        plugins: in the order in which MLflow discovers them.
        versions: every distribution's version, by normalised name.
        broken: (subject, reason) of distributions whose metadata cannot be read.
        mlflow_packages: top-level packages of MLflow's own distributions.
    """

    plugins: list[Plugin] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    broken: list[tuple[str, str]] = field(default_factory=list)
    mlflow_packages: frozenset[str] = frozenset()

    @property
    def mlflow(self) -> str | None:
        """The installed MLflow's version, None where there is none."""
        return next((self.versions[d] for d in MLFLOW_DISTRIBUTIONS[:2] if d in self.versions), None)

    @property
    def entry_points(self) -> list[PluginEntryPoint]:
        """Every plugin's, in the order in which MLflow discovers them."""
        return [e for plugin in self.plugins for e in plugin.entry_points]


def read_installed() -> Installed:
    """Read every distribution on sys.path once; the first of equal names counts, as in importlib.metadata."""
    found = Installed()
    for distribution in distributions():
        name, version = _identity(distribution)
        key = normalized(name) or str(_location(distribution))
        if key in found.versions:
            continue
        found.versions[key] = version
        _read_one(found, distribution, name, version)
    return found


def normalized(name: str) -> str:
    """The name as package indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def parse_requirement(line: str) -> Requirement | None:
    """The requirement, or None where the line is not one."""
    try:
        return Requirement(line)
    except InvalidRequirement:
        return None


def applies(requirement: Requirement) -> bool:
    """Whether the requirement's marker holds here, with no extra asked for."""
    return requirement.marker is None or requirement.marker.evaluate({"extra": ""})


def has_upper_bound(specifiers: SpecifierSet) -> bool:
    """Whether some future version is excluded."""
    return any(s.operator in _UPPER_BOUNDS for s in specifiers)


def contains(specifiers: SpecifierSet, version: str) -> bool:
    """Whether the version is inside; pre-releases count like others."""
    try:
        return specifiers.contains(Version(version), prereleases=True)
    except InvalidVersion:
        return False


def _read_one(found: Installed, distribution: Distribution, name: str, version: str) -> None:
    subject = name or str(_location(distribution))
    try:
        raw = [(e.group, e.name, e.value) for e in distribution.entry_points if e.group.startswith("mlflow.")]
    except Exception as exc:  # noqa: BLE001 # whatever the parser raises, MLflow's reading of entry points raises it too
        found.broken.append((subject, f"its entry_points.txt cannot be read ({type(exc).__name__})"))
        return
    if normalized(name) in MLFLOW_DISTRIBUTIONS:
        found.mlflow_packages |= frozenset(_packages(distribution))
        return
    if not raw:
        return
    if not name or not version:
        found.broken.append((subject, "its METADATA states no name or no version"))
    requires = tuple(distribution.requires or ()) if name else ()
    for line in requires:
        if parse_requirement(line) is None:
            found.broken.append((subject, f"its requirement {line!r} is not a valid one"))
    entry_points = tuple(PluginEntryPoint(subject, group, n, value) for group, n, value in raw)
    found.plugins.append(Plugin(subject, version, entry_points, requires, frozenset(_packages(distribution))))


def _identity(distribution: Distribution) -> tuple[str, str]:
    metadata = distribution.metadata
    # `in` first: Python is about to make a missing key a KeyError.
    name, version = (metadata[key] if key in metadata else "" for key in ("Name", "Version"))  # noqa: SIM401 # no dict
    return name or "", version or ""


def _location(distribution: Distribution) -> str:
    return str(getattr(distribution, "_path", repr(distribution)))


def _packages(distribution: Distribution) -> Iterator[str]:
    """Regular packages and modules at the top level; namespace packages may rightly be shared."""
    for file in distribution.files or ():
        parts = file.parts
        if len(parts) == 1 and file.suffix == ".py":
            yield file.stem
        elif len(parts) == 2 and parts[1] == "__init__.py" and parts[0] != "..":
            yield parts[0]
