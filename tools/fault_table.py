"""Turn the reports of the rules about faults into the table of docs/explanation/faults.md.

MLFLOW_PLUGKIT_FAULT_REPORT=faults.jsonl pytest packages/mlflow-demo-artifacts/tests -k Fault
python tools/fault_table.py demo=faults.jsonl [more=other.jsonl ...]
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path


def rows(path: Path) -> Counter[tuple[str, str, str]]:
    """How often each (kind of operation, fault, ending) stands in a report."""
    counts: Counter[tuple[str, str, str]] = Counter()
    for line in path.read_text(encoding="utf-8").splitlines():
        case = json.loads(line)
        ending = "lasting" if case["lasting"] else case["outcome"]
        counts[case["operation"].partition(" ")[0], case["fault"], ending] += 1
    return counts


def table(reports: dict[str, Path]) -> str:
    """One row for each operation and fault; for each backend how many cases were completed, and ended in an error.

    "12 + 3": 12 cases of a fault that passes were completed, 3 ended in an error. "4 lasting": of 4 cases of a fault
    that never passes each ended in an error, as it must.
    """
    found = {name: rows(path) for name, path in reports.items()}
    keys = dict.fromkeys((op, fault) for counts in found.values() for op, fault, _ in counts)
    lines = [f"| operation | fault | {' | '.join(found)} |", f"|---|---|{'---|' * len(found)}"]
    for op, fault in keys:
        cells = []
        for counts in found.values():
            done, failed, lasting = (counts[op, fault, ending] for ending in ("completed", "error", "lasting"))
            passing = f"{done} + {failed}" if done or failed else ""
            cells.append(", ".join(filter(None, [passing, f"{lasting} lasting" if lasting else ""])) or "-")
        lines.append(f"| {op} | {fault} | {' | '.join(cells)} |")
    totals = [sum(counts.values()) for counts in found.values()]
    return "\n".join([*lines, f"| all | all | {' | '.join(map(str, totals))} |"])


if __name__ == "__main__":
    pairs = (argument.partition("=") for argument in sys.argv[1:])
    print(table({name: Path(file) for name, _, file in pairs}))
