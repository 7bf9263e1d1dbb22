"""What a deployment counts, and how Prometheus reads it.

Each worker counts on its own page; what workers that are gone had counted is kept in `totals.json`, so that no counter
ever falls. Any worker can answer for all of them. Standard library only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from mlflow_local_deploy.place import Place, write
from mlflow_local_deploy.slots import COUNTERS, State, read_page, slot_files

ROUTES = ("invocations", "stream", "explain", "infer", "other")
CLASSES = ("2xx", "3xx", "4xx", "5xx")
#: Upper bounds of the histogram of response times, in seconds.
BUCKETS = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
OUTCOMES = ("sent", "failed", "shadowed", "shadow_failed", "shadow_dropped")
TARGETS = 16

_PER_ROUTE = len(CLASSES) + len(BUCKETS) + 2  # the classes, the buckets with +Inf, the sum
_TARGETS_AT = _PER_ROUTE * len(ROUTES)
assert _TARGETS_AT + TARGETS * len(OUTCOMES) <= COUNTERS


def route_offset(route: str) -> int:
    """Where the counters of a route begin."""
    return ROUTES.index(route) * _PER_ROUTE


def target_offset(target: int, outcome: str) -> int:
    """Where an endpoint counts one outcome of its target number `target`."""
    return _TARGETS_AT + target * len(OUTCOMES) + OUTCOMES.index(outcome)


def count(counters: list[float], route: int, status: int, seconds: float) -> None:
    """Count one answered request; `route` is its offset."""
    counters[route + min(max(status // 100, 2), 5) - 2] += 1
    bucket = next((i for i, bound in enumerate(BUCKETS) if seconds <= bound), len(BUCKETS))
    counters[route + len(CLASSES) + bucket] += 1
    counters[route + _PER_ROUTE - 1] += seconds


class Totals:
    """What the workers that are gone had counted; each is added once, also if the supervisor is killed meanwhile."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def add(self, worker: str, counters: list[float]) -> None:
        """Add the counters of a worker."""
        counted, workers = read_totals(self._file)
        if worker not in workers:
            summed = [a + b for a, b in zip(counted, counters, strict=True)]
            write(self._file, {"counters": summed, "workers": [*workers, worker][-200:]})


def read_totals(file: Path) -> tuple[list[float], list[str]]:
    """The counters, and the workers that are in them."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return [0.0] * COUNTERS, []
    return found["counters"], found["workers"]


def exposition(place: Place, targets: list[str]) -> str:
    """All figures of a deployment in Prometheus' text format (version 0.0.4).

    Args:
        place: whose.
        targets: an endpoint's targets, in the order in which they are counted.
    """
    counters, _ = read_totals(place.totals_file)
    states = dict.fromkeys((State.LOADING, State.STANDBY, State.SERVING, State.DRAINING), 0)
    in_flight = connections = 0
    for file in slot_files(place.workers):
        page = read_page(file)
        if page is None:
            continue
        counters = [a + b for a, b in zip(counters, page.counters, strict=True)]
        in_flight, connections = in_flight + page.in_flight, connections + page.connections
        state = State(page.state)
        states[state] = states.get(state, 0) + 1
    status = place.status()
    gauges = {
        "in_flight_requests": ("Requests being answered.", in_flight),
        "connections": ("Open connections.", connections),
        "generation": ("Grows with each change of the deployment.", status.generation if status else 0),
    }
    lines = list(_requests(counters))
    for name, (text, value) in gauges.items():
        lines += [*_head(name, "gauge", text), f"{PREFIX}{name} {value}"]
    lines += _head("workers", "gauge", "Worker processes by state.")
    lines += [f'{PREFIX}workers{{state="{state.name.lower()}"}} {number}' for state, number in states.items()]
    lines += _head("worker_restarts_total", "counter", "Workers that ended without being told to.")
    lines.append(f"{PREFIX}worker_restarts_total {status.restarts if status else 0}")
    lines += _targets(counters, targets)
    return "\n".join(lines) + "\n"


PREFIX = "mlflow_local_deploy_"


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}"]


def _requests(counters: list[float]) -> Iterator[str]:
    yield from _head("requests_total", "counter", "Answered requests by route and class of status.")
    for route in ROUTES:
        for number, status in enumerate(CLASSES):
            value = counters[route_offset(route) + number]
            yield f'{PREFIX}requests_total{{route="{route}",status="{status}"}} {value:.0f}'
    yield from _head("request_seconds", "histogram", "Seconds from a request's arrival to the end of its answer.")
    for route in ROUTES:
        offset, running = route_offset(route) + len(CLASSES), 0.0
        for bound, value in zip([*map(str, BUCKETS), "+Inf"], counters[offset:], strict=False):
            running += value
            yield f'{PREFIX}request_seconds_bucket{{route="{route}",le="{bound}"}} {running:.0f}'
        yield f'{PREFIX}request_seconds_sum{{route="{route}"}} {counters[offset + len(BUCKETS) + 1]:.6f}'
        yield f'{PREFIX}request_seconds_count{{route="{route}"}} {running:.0f}'


def _targets(counters: list[float], targets: list[str]) -> list[str]:
    if not targets:
        return []
    lines = _head("target_requests_total", "counter", "Requests by deployment and what became of them.")
    for number, target in enumerate(targets):
        for outcome in OUTCOMES:
            value = counters[target_offset(number, outcome)]
            lines.append(f'{PREFIX}target_requests_total{{target="{target}",outcome="{outcome}"}} {value:.0f}')
    return lines
