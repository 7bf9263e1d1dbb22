"""What configured headers cost each request of MLflow's client.

    python bench/client_headers.py [--requests 600] [--json FILE]

Requests of MLflow's own client to a server on loopback, one with the headers and one without in turn: the median of
the paired differences. The plugin's own part is timed by itself, too, without a network. The file has eight headers:
text, variables, fields, a secret's file, a rule for the host, two required ones; a span is active.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any

from client_auth import Server
from report import publish

FILE = """required = ["X-Data-Classification", "X-Ticket"]
[headers]
X-Environment = "{environment:-development}"
X-Requested-By = "{user}@{host}"
X-Cost-Centre = "{cost_centre:-none}"
X-CI-Job = "{ci.project:-none}/{ci.job:-none}"
X-Data-Classification = "internal"
X-Ticket = "${TICKET}"
X-Key = "file:key"
[hosts."127.0.0.1".headers]
X-Tenant = "vision"
"""


def figures(requests: int = 600) -> dict[str, Any]:
    """Milliseconds; `nox -s bench -- client` takes its part from here."""
    from opentelemetry import trace

    with ExitStack() as stack:
        server = stack.enter_context(Server())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        (folder / "headers.toml").write_text(FILE)
        (folder / "key").write_text("a-secret-of-the-benchmark")
        os.environ["TICKET"] = "ML-7"
        span = trace.NonRecordingSpan(trace.SpanContext(1, 2, is_remote=False, trace_flags=trace.TraceFlags(1)))
        stack.enter_context(trace.use_span(span))
        return {**wire(server.uri, folder / "headers.toml", requests), **alone(folder / "headers.toml")}


def wire(uri: str, file: Path, requests: int) -> dict[str, Any]:
    """Whole requests, in pairs."""
    from mlflow.tracking.request_header.registry import _request_header_provider_registry as registry
    from mlflow.utils.credentials import get_default_host_creds
    from mlflow.utils.rest_utils import http_request

    providers = list(registry)

    def ask() -> None:
        http_request(get_default_host_creds(uri), "/api/2.0/mlflow/experiments/search", "POST", json={})

    def with_headers() -> None:
        registry._registry[:] = providers
        ask()

    def without() -> None:
        registry._registry[:] = [p for p in providers if type(p).__module__ != "mlflow_request_headers.provider"]
        ask()

    os.environ["MLFLOW_REQUEST_HEADERS_FILE"] = str(file)
    for call in (without, with_headers) * 20:
        call()
    pairs = []
    for number in range(requests):  # whoever is second in a pair finds warmer caches: take turns
        first, second = (with_headers, without) if number % 2 else (without, with_headers)
        taken = {first: seconds(first), second: seconds(second)}
        pairs.append((taken[without], taken[with_headers]))
    return {
        "request without headers, ms (median)": milliseconds([pair[0] for pair in pairs]),
        "request with eight headers, ms (median)": milliseconds([pair[1] for pair in pairs]),
        "cost of the headers, ms (median of paired differences)": milliseconds([b - a for a, b in pairs]),
    }


def alone(file: Path) -> dict[str, Any]:
    """The plugin's own part."""
    from mlflow_request_headers.plugin import RequestHeaders

    provider = RequestHeaders()

    def ask() -> None:
        if provider.in_context():
            provider.request_headers()

    os.environ.pop("MLFLOW_REQUEST_HEADERS_FILE", None)
    idle = [seconds(ask) for _ in range(5000)]
    os.environ["MLFLOW_REQUEST_HEADERS_FILE"] = str(file)
    ask()
    busy = [seconds(ask) for _ in range(5000)]
    return {
        "the headers plugin alone, ms (median)": milliseconds(busy),
        "the headers plugin installed but not configured, ms (median)": milliseconds(idle),
    }


def seconds(call: Callable[[], None]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def milliseconds(times: list[float]) -> float:
    return round(statistics.median(times) * 1e3, 4)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    report = {"mlflow": version("mlflow-skinny"), **figures(options.requests)}
    publish(report, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
