"""Everything that the checks look at: gathered once, then only read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from packaging.version import InvalidVersion, Version

from mlflow_plugkit.doctor.environment import ConfiguredURI
from mlflow_plugkit.doctor.findings import Finding, finding
from mlflow_plugkit.doctor.installed import Installed, Plugin, PluginEntryPoint
from mlflow_plugkit.doctor.probe import EntryResult
from mlflow_plugkit.uri import redact_text

_MAX_TEXT = 300


@dataclass
class Context:
    """The examined environment.

    Attributes:
        installed: from metadata.
        environ: this process's environment.
        uris: from `environ`.
        secrets: values that no finding may show.
        results: by entry point; empty where MLflow itself cannot be imported.
        mlflow_failure: why `import mlflow` fails without plugins, as `child.describe`.
        plugins_failure: why it fails with them.
        eager: groups loaded by `import mlflow`.
        builtins: MLflow's own names by group.
        max_import_ms: threshold of `slow-import`.
    """

    installed: Installed
    environ: Mapping[str, str]
    uris: list[ConfiguredURI] = field(default_factory=list)
    secrets: tuple[str, ...] = ()
    results: dict[PluginEntryPoint, EntryResult] = field(default_factory=dict)
    mlflow_failure: dict[str, Any] | None = None
    plugins_failure: dict[str, Any] | None = None
    eager: frozenset[str] = frozenset()
    builtins: dict[str, list[str]] = field(default_factory=dict)
    max_import_ms: float = 100.0

    @property
    def mlflow(self) -> Version:
        """The installed MLflow's version; 0 where there is none or it is no version."""
        try:
            return Version(self.installed.mlflow or "0")
        except InvalidVersion:
            return Version("0")

    def in_group(self, group: str) -> list[PluginEntryPoint]:
        """The plugins' entry points of a group, in the order of discovery."""
        return [e for e in self.installed.entry_points if e.group == group]

    def shown(self, text: str) -> str:
        """Foreign text made fit to print: redacted, on one line, cut where it is long."""
        line = " ".join(redact_text(text, self.secrets).split())
        return line if len(line) <= _MAX_TEXT else line[: _MAX_TEXT - 3] + "..."

    def about(self, rule: str, entry: PluginEntryPoint, what: str, **more: Any) -> Finding:
        """A finding about an entry point."""
        return finding(
            rule,
            entry.subject,
            self.shown(what),
            distribution=entry.distribution,
            group=entry.group,
            name=entry.name,
            **more,
        )

    def about_plugin(self, rule: str, plugin: Plugin, what: str, **more: Any) -> Finding:
        """A finding about a distribution."""
        return finding(rule, plugin.name, self.shown(what), distribution=plugin.name, **more)
