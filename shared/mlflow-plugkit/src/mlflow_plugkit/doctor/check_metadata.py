"""Findings about versions, requirements and files, from metadata alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from packaging.version import InvalidVersion, Version

from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.findings import Finding, finding
from mlflow_plugkit.doctor.installed import MLFLOW_DISTRIBUTIONS, Plugin, contains, has_upper_bound, normalized

_TOO_GENERAL = frozenset(
    {
        *("plugin", "plugins", "store", "stores", "test", "tests", "src", "lib", "util", "utils", "common", "core"),
        *("docs", "example", "examples", "scripts", "tools", "app", "auth", "client", "server", "config"),
    }
)
_SQLALCHEMY_GUARDED_AFTER = Version("3.8.1")


def check(ctx: Context) -> Iterator[Finding]:
    """Everything that needs no plugin code."""
    if ctx.installed.mlflow is None:
        yield finding("mlflow-missing", "mlflow", "Neither mlflow nor mlflow-skinny is installed.")
    for subject, reason in ctx.installed.broken:
        yield finding("metadata-broken", subject, ctx.shown(f"{reason[0].upper()}{reason[1:]}."), distribution=subject)
    yield from _sqlalchemy(ctx)
    for plugin in ctx.installed.plugins:
        yield from _range(ctx, plugin)
        yield from _requirements(ctx, plugin)
    yield from _packages(ctx)


def _sqlalchemy(ctx: Context) -> Iterator[Finding]:
    installed = ctx.installed.versions.get("sqlalchemy")
    if installed is None or not Version("0") < ctx.mlflow <= _SQLALCHEMY_GUARDED_AFTER:
        return
    try:
        too_new = Version(installed) >= Version("2.1")
    except InvalidVersion:
        return
    if too_new:
        what = f"MLflow {ctx.mlflow} imports a class that SQLAlchemy {installed} has no more."
        yield finding("sqlalchemy-too-new", "sqlalchemy", what, distribution="sqlalchemy")


def _range(ctx: Context, plugin: Plugin) -> Iterator[Finding]:
    declared = plugin.mlflow_range()
    if declared is None:
        yield ctx.about_plugin("mlflow-range-undeclared", plugin, "It declares no requirement on mlflow.")
        return
    if ctx.installed.mlflow and not contains(declared, ctx.installed.mlflow):
        what = f"It declares MLflow {declared}, and MLflow {ctx.installed.mlflow} is installed."
        yield ctx.about_plugin("mlflow-outside-range", plugin, what)
    if not has_upper_bound(declared):
        what = f"It declares {f'MLflow {declared}' if str(declared) else 'any MLflow'}, without an upper bound."
        yield ctx.about_plugin("mlflow-range-undeclared", plugin, what)


def _requirements(ctx: Context, plugin: Plugin) -> Iterator[Finding]:
    for requirement in plugin.requirements():
        installed = ctx.installed.versions.get(normalized(requirement.name))
        if installed is None:
            what = f"It requires {requirement.name}, which is not installed."
            yield ctx.about_plugin("requirement-unsatisfied", plugin, what)
        elif normalized(requirement.name) not in MLFLOW_DISTRIBUTIONS and not contains(
            requirement.specifier, installed
        ):
            what = f"It requires {requirement.name}{requirement.specifier}, and {installed} is installed."
            yield ctx.about_plugin("requirement-unsatisfied", plugin, what)


def _packages(ctx: Context) -> Iterator[Finding]:
    owners: dict[str, list[str]] = defaultdict(list)
    for package in ctx.installed.mlflow_packages:
        owners[package].append("mlflow")
    for plugin in ctx.installed.plugins:
        for package in sorted(plugin.packages):
            owners[package].append(plugin.name)
            if package.lower() in _TOO_GENERAL:
                what = f"It installs a top-level package named {package!r}."
                yield ctx.about_plugin("package-name-too-general", plugin, what)
    for package, names in sorted(owners.items()):
        if len(names) > 1:
            yield finding("package-shipped-twice", f"package {package}", f"{' and '.join(names)} install it.")
