"""What a trace's document keeps of its spans: who is whose child, what they are called, tokens and costs.

`tree` holds a line `span parent kind` per span (`-` for no parent), `kinds` the distinct [type, status, name] that the
lines count, `uses` and `costs` what spans report, by span. Usage and cost of the trace follow from the set of its
spans alone, so that neither the order in which spans arrive nor a repetition changes them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_plugkit_elasticsearch.documents import Source

Kind = tuple[str, str, str]
_NO_PARENT = "-"


def span_ids(source: Mapping[str, Any]) -> list[str]:
    """The ids of a trace's spans."""
    return [line.split(" ", 1)[0] for line in source.get("tree", "").split("\n") if line]


def span_kinds(source: Mapping[str, Any]) -> dict[str, Kind]:
    """Type, status and name of each of a trace's spans."""
    kinds = [tuple(kind) for kind in source.get("kinds", ())]
    lines = (line.split(" ") for line in source.get("tree", "").split("\n") if line)
    return {span: kinds[int(number)] for span, _, number in lines}


def grow(source: Source, spans: Iterable[tuple[str, str | None, Kind, Any, Any]]) -> None:
    """Put spans into a trace's source, in place of their former state where they were there.

    Args:
        source: changed in place.
        spans: span, parent, kind, usage and cost (dicts, or None) of each.
    """
    lines = {line.split(" ", 1)[0]: line for line in source.get("tree", "").split("\n") if line}
    kinds = [tuple(kind) for kind in source.get("kinds", ())]
    numbers = {kind: number for number, kind in enumerate(kinds)}
    uses, costs = dict(source.get("uses", {})), dict(source.get("costs", {}))
    replaced = False
    for span, parent, kind, usage, cost in spans:
        number = numbers.setdefault(kind, len(numbers))
        replaced = replaced or span in lines
        lines[span] = f"{span} {parent or _NO_PARENT} {number}"
        _keep(uses, span, usage)
        _keep(costs, span, cost)
    all_kinds = list(numbers)
    if replaced:
        all_kinds = _compact(lines, all_kinds)
    source |= {"tree": "\n".join(lines.values()), "kinds": [list(kind) for kind in all_kinds]}
    for name, kept in (("uses", uses), ("costs", costs)):
        if kept:
            source[name] = kept


def _keep(kept: dict[str, Any], span: str, value: Any) -> None:
    if value is None:
        kept.pop(span, None)
    else:
        kept[span] = value


def _compact(lines: dict[str, str], kinds: Sequence[Any]) -> list[Any]:
    """Drop the kinds that no span has any more, and renumber the lines."""
    used: dict[int, int] = {}
    for span, line in lines.items():
        name, parent, number = line.split(" ")
        lines[span] = f"{name} {parent} {used.setdefault(int(number), len(used))}"
    return [kinds[number] for number in used]


def token_usage(source: Mapping[str, Any]) -> dict[str, Any]:
    """The tokens that the spans of a trace report together; {} for none."""
    return _total(source, source.get("uses", {}), keys.TOKEN_KEYS, keys.ALWAYS_TOKENS)


def cost(source: Mapping[str, Any]) -> dict[str, Any]:
    """What the spans of a trace cost together; {} for nothing known."""
    return _total(source, source.get("costs", {}), keys.COST_KEYS, keys.COST_KEYS)


def _total(
    source: Mapping[str, Any], reported: Mapping[str, Mapping[str, Any]], names: Sequence[str], always: Sequence[str]
) -> dict[str, Any]:
    """The sum over the spans that no reporting span stands above: a parent's report includes its children's."""
    if not reported:
        return {}
    parents = dict(line.split(" ", 2)[:2] for line in source["tree"].split("\n"))
    counted = _uppermost(reported, parents)
    if not counted:
        return {}
    total: dict[str, Any] = dict.fromkeys(always, 0.0 if names is keys.COST_KEYS else 0)
    for span in counted:
        for name in names:
            value = reported[span].get(name)
            if isinstance(value, int | float):
                total[name] = total.get(name, 0) + value
    return total


def _uppermost(reported: Mapping[str, Any], parents: Mapping[str, str]) -> list[str]:
    below: dict[str, bool] = {}
    for span in reported:
        path: list[str] = []
        at, walked = span, set()
        while at not in below:
            if at in walked:
                # A circle has no uppermost span; MLflow counts none of it.
                below[at] = True
                break
            walked.add(at)
            path.append(at)
            parent = parents.get(at, _NO_PARENT)
            if parent not in parents:
                below[at] = False
                path.pop()
                break
            at = parent
        for each in reversed(path):
            above = parents[each]
            below[each] = below[above] or above in reported
    return [span for span in reported if not below[span]]
