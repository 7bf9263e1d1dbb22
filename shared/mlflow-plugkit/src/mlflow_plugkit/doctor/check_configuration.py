"""Findings about the configured URIs and credentials."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.environment import (
    GROUP_OF_KIND,
    REGISTRY,
    TRACKING,
    is_true,
    nearest,
    netrc_path,
    read_netrc,
    scheme_of,
)
from mlflow_plugkit.doctor.findings import Finding, finding
from mlflow_plugkit.settings import is_strict
from mlflow_plugkit.uri import redact_uri

_AUTH = "mlflow.request_auth_provider"


def check(ctx: Context) -> Iterator[Finding]:
    """Everything that the environment configures."""
    for uri in ctx.uris:
        if redact_uri(uri.value) != uri.value:
            severity = "error" if is_strict(ctx.environ) else None
            what = f"The URI {redact_uri(uri.value)} holds a secret."
            yield finding("secret-in-uri", uri.variable, ctx.shown(what), severity=severity)
    yield from _schemes(ctx)
    yield from _auth(ctx)
    yield from _netrc(ctx)


def _schemes(ctx: Context) -> Iterator[Finding]:
    for uri in ctx.uris:
        if uri.kind is None:
            continue
        group = GROUP_OF_KIND[uri.kind]
        served = {e.name for e in ctx.in_group(group)} | set(ctx.builtins.get(group, []))
        scheme = scheme_of(uri.value)
        if scheme is not None and scheme in served:
            continue
        shown = f"{redact_uri(uri.value)} names a database that MLflow does not know"
        hint = ""
        if scheme is not None:
            shown = f"Nothing here serves {scheme!r} in the group {group}"
            near = nearest(scheme, served)
            hint = f"; the nearest installed scheme is {near!r}" if near else ""
        yield finding("uri-scheme-unknown", uri.variable, ctx.shown(f"{shown}{hint}."))


def _auth(ctx: Context) -> Iterator[Finding]:
    wanted = ctx.environ.get("MLFLOW_TRACKING_AUTH")
    entries = ctx.in_group(_AUTH)
    # Without a probe the providers' names are not known: then nothing can be said.
    if not wanted or (ctx.mlflow_failure is not None and entries):
        return
    results = [ctx.results[e] for e in entries if e in ctx.results]
    names = [n for n in (r.facts.get("auth_name") for r in results) if n] + ctx.builtins.get(_AUTH, [])
    if wanted in names:
        return
    near = nearest(wanted, names)
    hint = f"Did you mean {near!r}?" if near else f"Installed: {', '.join(sorted(names)) or 'none'}."
    what = f"No provider is named {wanted!r}, so requests carry no credentials. {hint}"
    yield finding("auth-provider-unknown", "MLFLOW_TRACKING_AUTH", ctx.shown(what))


def _netrc(ctx: Context) -> Iterator[Finding]:
    """`requests` replaces an Authorization header by the netrc entry unless the request has an `auth` object."""
    environ = ctx.environ
    if environ.get("MLFLOW_TRACKING_AUTH") or is_true(environ.get("MLFLOW_TRACKING_AWS_SIGV4")):
        return
    setters = _authorization_setters(ctx)
    file = read_netrc(environ)
    if not setters or file is None:
        return
    for uri in ctx.uris:
        host = _http_host(uri.value) if uri.kind in (TRACKING, REGISTRY) and uri.variable.endswith("_URI") else ""
        if host and file.authenticators(host):
            entry = host if host in file.hosts else "default"
            what = (
                f"{' and '.join(setters)} would set Authorization for {host}, but the entry {entry!r} "
                f"of {netrc_path(environ)} replaces it."
            )
            yield finding("netrc-wins", uri.variable, ctx.shown(what))


def _authorization_setters(ctx: Context) -> list[str]:
    setters = []
    for entry in ctx.in_group("mlflow.request_header_provider"):
        result = ctx.results.get(entry)
        if result and any(h.lower() == "authorization" for h in result.facts.get("headers", [])):
            setters.append(entry.subject)
    if ctx.environ.get("MLFLOW_TRACKING_TOKEN"):
        setters.append("MLFLOW_TRACKING_TOKEN")
    if ctx.environ.get("MLFLOW_TRACKING_USERNAME") and ctx.environ.get("MLFLOW_TRACKING_PASSWORD"):
        setters.append("MLFLOW_TRACKING_USERNAME with MLFLOW_TRACKING_PASSWORD")
    return setters


def _http_host(uri: str) -> str:
    try:
        parts = urlsplit(uri)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""
