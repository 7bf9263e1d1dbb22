"""Findings about schemes and names: claimed twice, shadowing, unreachable, without their twin."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from urllib.parse import urlsplit

from packaging.version import Version

from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.findings import Finding, finding
from mlflow_plugkit.doctor.groups import BY_SCHEME, CLASH_RAISES, DATABASE_ENGINES, FIRST_WINS, NAMED
from mlflow_plugkit.doctor.installed import PluginEntryPoint

_AUTH = "mlflow.request_auth_provider"
_SCORERS_SINCE = Version("3.4")


def check(ctx: Context) -> Iterator[Finding]:
    """One pass over all names."""
    yield from _claimed_twice(ctx)
    for entry in ctx.installed.entry_points:
        reason = unreachable(entry)
        if reason:
            yield ctx.about("unreachable-name", entry, reason)
        elif _lookup_name(ctx, entry) in ctx.builtins.get(entry.group, []):
            yield _shadowing(ctx, entry)
    yield from _twins(ctx)
    yield from _headers(ctx)


def unreachable(entry: PluginEntryPoint) -> str:
    """Why MLflow never looks the name up, or "" (mlflow.utils.uri.get_uri_scheme, mlflow.projects.backend.loader)."""
    name = entry.name
    if entry.group == "mlflow.project_backend":
        return "MLflow serves the backend 'local' itself, before it looks at plugins." if name == "local" else ""
    if entry.group not in BY_SCHEME or name == "":
        return ""
    if name.lower().startswith(DATABASE_ENGINES) and name not in DATABASE_ENGINES:
        engine = next(e for e in DATABASE_ENGINES if name.lower().startswith(e))
        if name.lower().startswith(f"{engine}+"):
            return f"MLflow looks {name}:// up as {engine!r}, so the entry point must be named {engine!r}."
        return f"MLflow takes {name}:// for a database of an unknown kind, and refuses it."
    try:
        scheme = urlsplit(f"{name}://host").scheme
    except ValueError:
        scheme = ""
    if scheme == name and len(name) > 1:
        return ""
    if scheme == name.lower() and len(name) > 1:
        return f"MLflow looks schemes up in lower case, as {scheme!r}."
    return f"{name!r} is not the scheme of any URI: letters, digits, '+', '-' and '.' are allowed, two or more."


def _lookup_name(ctx: Context, entry: PluginEntryPoint) -> str | None:
    """The name under which it is found; None for groups in which names mean nothing."""
    if entry.group == _AUTH:
        result = ctx.results.get(entry)
        return result.facts.get("auth_name") if result else None
    return entry.name if entry.group in NAMED else None


def _claimed_twice(ctx: Context) -> Iterator[Finding]:
    claims: dict[tuple[str, str], list[PluginEntryPoint]] = defaultdict(list)
    for entry in ctx.installed.entry_points:
        name = _lookup_name(ctx, entry)
        if name is not None and not unreachable(entry):
            claims[entry.group, name].append(entry)
    for (group, name), entries in claims.items():
        if len(entries) < 2:
            continue
        claimants = list(dict.fromkeys(e.distribution for e in entries))
        if group in CLASH_RAISES:
            outcome = "MLflow raises an exception for the second"
        else:
            winner = entries[0] if group in FIRST_WINS or group == _AUTH else entries[-1]
            outcome = f"here {winner.distribution} ({winner.object}) is used"
        who = " and ".join(claimants) if len(claimants) > 1 else f"{claimants[0]} (twice)"
        yield finding("name-claimed-twice", f"{group} {name!r}", f"{who} claim it; {outcome}.", group=group, name=name)


def _shadowing(ctx: Context, entry: PluginEntryPoint) -> Finding:
    name = _lookup_name(ctx, entry)
    if entry.group in CLASH_RAISES:
        what = f"MLflow serves {name!r} itself, and raises an exception for the plugin's."
        return ctx.about("shadows-builtin", entry, what, severity="error")
    if entry.group == _AUTH:
        what = f"MLflow has a provider {name!r} of its own, which is asked first."
    else:
        what = f"MLflow serves {name!r} itself; with this plugin, {entry.object} is used instead, without a word."
    return ctx.about("shadows-builtin", entry, what)


def _twins(ctx: Context) -> Iterator[Finding]:
    for rule, group, wanted in (
        ("registry-twin-missing", "mlflow.model_registry_store", True),
        ("scorer-twin-missing", "mlflow.scorer_store", ctx.mlflow >= _SCORERS_SINCE),
    ):
        served = {e.name for e in ctx.in_group(group)} | set(ctx.builtins.get(group, []))
        for entry in ctx.in_group("mlflow.tracking_store") if wanted else []:
            if entry.name not in served and not unreachable(entry):
                yield ctx.about(rule, entry, f"Nothing serves {entry.name!r} in the group {group}.")


def _headers(ctx: Context) -> Iterator[Finding]:
    """User-Agent is left out: MLflow joins its values by design."""
    setters: dict[str, list[str]] = defaultdict(list)
    for entry in ctx.in_group("mlflow.request_header_provider"):
        result = ctx.results.get(entry)
        for header in result.facts.get("headers", []) if result else []:
            if entry.subject not in setters[header.lower()]:
                setters[header.lower()].append(entry.subject)
    for header, subjects in setters.items():
        if len(subjects) > 1 and header != "user-agent":
            what = f"{' and '.join(subjects)} set it, so its value is none of theirs."
            yield finding("header-set-twice", f"header {header}", ctx.shown(what))
