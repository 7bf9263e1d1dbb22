"""The shape of a finding, of a report, and the registry of everything that the doctor can find."""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from mlflow_plugkit.doctor.rules import ERROR, RULES, WARNING

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: a key of `rules.RULES`; it keeps its meaning from version to version.
        severity: "error" or "warning".
        subject: what it is about: an entry point ("mlflow-demo: mlflow.tracking_store 'demo'"), a
            distribution, or an environment variable.
        what: one sentence. Secrets in it are already redacted.
        remedy: one sentence that says how to mend it.
        distribution, group, name: the entry point, where the finding is about one.
    """

    id: str
    severity: str
    subject: str
    what: str
    remedy: str
    distribution: str | None = None
    group: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Connection:
    """The answer of one configured service; made only by `--connect`.

    Attributes:
        kind: "tracking" or "registry".
        uri: redacted.
        ok: whether it answered.
        answer: one sentence: what came back, or the error (redacted).
        ms: milliseconds until then.
    """

    kind: str
    uri: str
    ok: bool
    answer: str
    ms: float


@dataclass
class Report:
    """What `doctor` found.

    Attributes:
        mlflow: version of the installed MLflow, None where there is none.
        plugins, entry_points, uris: how many of each were examined.
        findings: errors first.
        connections: empty without `--connect`.
    """

    mlflow: str | None
    plugins: int = 0
    entry_points: int = 0
    uris: int = 0
    findings: list[Finding] = field(default_factory=list)
    connections: list[Connection] = field(default_factory=list)

    @property
    def errors(self) -> list[Finding]:
        """The findings that make the exit status 1."""
        return [f for f in self.findings if f.severity == ERROR]

    @property
    def warnings(self) -> list[Finding]:
        """The findings that do not."""
        return [f for f in self.findings if f.severity == WARNING]

    def as_json(self) -> dict[str, Any]:
        """The report as plain data, in the shape that the README documents."""
        return {
            "schema": SCHEMA_VERSION,
            "mlflow": self.mlflow,
            "python": platform.python_version(),
            "checked": {
                "plugins": self.plugins,
                "entry_points": self.entry_points,
                "uris": self.uris,
                "rules": len(RULES),
            },
            "findings": [asdict(f) for f in self.findings],
            "connections": [asdict(c) for c in self.connections],
        }


def finding(
    rule: str,
    subject: str,
    what: str,
    *,
    remedy: str | None = None,
    severity: str | None = None,
    distribution: str | None = None,
    group: str | None = None,
    name: str | None = None,
) -> Finding:
    """Make a finding of a known rule; its severity and remedy are the rule's unless given.

    Raises:
        KeyError: no rule of that id.
    """
    known = RULES[rule]
    return Finding(
        id=rule,
        severity=severity or known.severity,
        subject=subject,
        what=what,
        remedy=remedy or known.remedy,
        distribution=distribution,
        group=group,
        name=name,
    )


def in_order(findings: Iterable[Finding]) -> list[Finding]:
    """Errors before warnings, each in the order of the rules, then by subject; doubles left out."""
    order = list(RULES)
    unique = dict.fromkeys(findings)
    return sorted(unique, key=lambda f: (f.severity != ERROR, order.index(f.id), f.subject))


def rules_table() -> str:
    """The Markdown table of all rules: what the README shows between its `findings` markers."""
    lines = ["| finding | severity | what it means | how to mend it |", "|---|---|---|---|"]
    for rule_id, rule in RULES.items():
        cells = (f"`{rule_id}`", rule.severity, rule.meaning, rule.remedy)
        lines.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
    return "\n".join(lines)
