"""Traces in tracking stores: writing, searching, reading and counting them.

    python bench/tracking_traces.py [--traces 10000] [--rounds 5] STORE_URI STORE_URI ...

The first store is the reference. All stores get the same traces of five spans: 5 % are errors, a tag has ten values,
and each text holds one of a hundred needles. Operations take turns between the stores, after a round to warm up; a
part of `nox -s bench -- tracking`, too.
"""

from __future__ import annotations

import argparse
import base64
import json
import random
import tempfile
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from tables import Table

START_MS = 1_700_000_000_000
SPANS = 5
MODELS = ("gpt-large", "gpt-small", "open-model")


class Operation(NamedTuple):
    """One thing to measure: `prepare` is not, and what it returns is given to `run`."""

    run: Callable[[Any], Any]
    prepare: Callable[[], Any] = lambda: None
    most: int = 100


def trace(number: int, spans: int = SPANS, salt: str = "") -> dict[str, Any]:
    """Trace number so and so, always the same for the same arguments: `info` and `spans` as plain data."""
    rng = random.Random(f"{salt}/{number}")
    trace_id = f"{rng.getrandbits(128) | 1:032x}"
    at = START_MS + number * 1000
    failed = number % 20 == 0
    question = f"What is known about subject {number} of area {rng.randrange(50)}? needle-{rng.randrange(100)}-end"
    ids = [f"{rng.getrandbits(64) | 1:016x}" for _ in range(spans)]
    parts = [_span(trace_id, ids, i, at, question, failed) for i in range(spans)]
    return {
        "trace_id": f"tr-{trace_id}",
        "at": at,
        "ms": 10 + rng.randrange(5000),
        "state": "ERROR" if failed else "OK",
        "question": question,
        "tags": {
            "tier": f"tier-{number % 10}",
            "uid": f"{salt}uid-{number}",
            "release": f"r{number % 3}",
            "mlflow.traceName": f"agent_{number % 5}",
        },
        "session": f"session-{number // 10}",
        "spans": parts,
    }


def _span(trace_id: str, ids: list[str], i: int, at: int, question: str, failed: bool) -> dict[str, Any]:
    attributes = {
        "mlflow.traceRequestId": f"tr-{trace_id}",
        "mlflow.spanType": "AGENT" if i == 0 else ("TOOL", "LLM")[i % 2],
        "mlflow.spanInputs": {"question": question, "attempt": i},
        "mlflow.spanOutputs": "It is known that the matter is not yet settled. " * 4,
    }
    if i % 2:
        attributes["mlflow.chat.tokenUsage"] = {"input_tokens": 90 + i, "output_tokens": 30, "total_tokens": 120 + i}
        attributes["mlflow.llm.model"] = MODELS[i % 3]
    start = (at + i) * 1_000_000
    return {
        "trace_id": base64.b64encode(bytes.fromhex(trace_id)).decode(),
        "span_id": base64.b64encode(bytes.fromhex(ids[i])).decode(),
        "parent_span_id": base64.b64encode(bytes.fromhex(ids[0])).decode() if i else "",
        "name": f"step_{i % 10}",
        "start_time_unix_nano": start,
        "end_time_unix_nano": start + 4_000_000 * (1 + i % 7),
        "status": {"code": "STATUS_CODE_ERROR" if failed and i == 0 else "STATUS_CODE_OK", "message": ""},
        "attributes": {key: json.dumps(value) for key, value in attributes.items()},
        "events": [],
    }


def spans_of(data: Mapping[str, Any]) -> list[Any]:
    """MLflow's spans of a trace."""
    from mlflow.entities import Span

    return [Span.from_dict(dict(span)) for span in data["spans"]]


def info_of(data: Mapping[str, Any], experiment_id: str) -> Any:
    """MLflow's info of a trace."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState

    tokens = {"input_tokens": 182, "output_tokens": 60, "total_tokens": 242}
    return TraceInfo(
        trace_id=data["trace_id"],
        trace_location=TraceLocation.from_experiment_id(experiment_id),
        request_time=data["at"],
        execution_duration=data["ms"],
        state=TraceState(data["state"]),
        request_preview=data["question"],
        response_preview="It is known",
        client_request_id=f"request-{data['tags']['uid']}",
        tags=dict(data["tags"]),
        trace_metadata={
            "mlflow.user": "bench",
            "mlflow.trace.session": data["session"],
            "mlflow.trace.tokenUsage": json.dumps(tokens),
        },
    )


def seed(store: Any, experiment_id: str, count: int) -> None:
    """Write the traces through the store's own methods, a hundred traces' spans at once."""
    for start in range(0, count, 100):
        traces = [trace(number) for number in range(start, min(count, start + 100))]
        for each in traces:
            store.start_trace(info_of(each, experiment_id))
        store.log_spans(experiment_id, [span for each in traces for span in spans_of(each)])


def operations(store: Any, experiment_id: str, write_to: str, count: int) -> dict[str, Operation]:
    """What is measured on a store that holds `count` traces in the experiment; new ones go to `write_to`."""

    def fresh(spans: int = SPANS, traces: int = 1) -> list[dict[str, Any]]:
        salt = uuid.uuid4().hex
        return [trace(number, spans, salt) for number in range(traces)]

    def new_spans(spans: int, traces: int = 1) -> list[Any]:
        return [span for each in fresh(spans, traces) for span in spans_of(each)]

    def page(filter_string: str | None = None, size: int = 100, order: Any = None, token: Any = None) -> Any:
        return store.search_traces([experiment_id], filter_string, size, order, token)

    big = new_spans(1000)
    store.log_spans(write_to, big)
    some = [info.trace_id for info in page()[0]]
    deep = None
    for _ in range(49):
        deep = page(size=20, token=deep)[1] or deep
    late = START_MS + count // 2 * 1000
    return {
        "start_trace": Operation(store.start_trace, lambda: info_of(fresh()[0], write_to)),
        "log_spans, 1000 of one trace": Operation(lambda s: store.log_spans(write_to, s), lambda: new_spans(1000), 4),
        "log_spans, 10 of each of 100 traces": Operation(
            lambda s: store.log_spans(write_to, s), lambda: new_spans(10, 100), 4
        ),
        "set_trace_tag": Operation(
            lambda i: store.set_trace_tag(big[0].trace_id, f"x{i}", "v"), lambda: id(object()) % 5
        ),
        "search: the last 100": Operation(lambda _: page()),
        "search: a tag, 10 %": Operation(lambda _: page("tags.tier = 'tier-3'")),
        "search: a tag of one": Operation(lambda _: page(f"tags.uid = 'uid-{count // 2}'")),
        "search: status and time": Operation(lambda _: page(f"status = 'ERROR' and timestamp_ms > {late}")),
        "search: span.type and span.status": Operation(lambda _: page("span.type = 'TOOL' and span.status = 'OK'")),
        "search: span.status = 'ERROR'": Operation(lambda _: page("span.status = 'ERROR'")),
        "search: trace.text, 1 %": Operation(lambda _: page("trace.text LIKE '%needle-42-%'")),
        "search: trace.text, nothing": Operation(lambda _: page("trace.text LIKE '%no such text%'")),
        "search: trace.text, all": Operation(lambda _: page("trace.text LIKE '%settled%'")),
        "search: span.attributes": Operation(lambda _: page("span.attributes.question LIKE '%needle-42-%'")),
        "search: by duration": Operation(lambda _: page(order=["execution_time_ms DESC"])),
        "search: page 50 of 20": Operation(lambda _: page(size=20, token=deep)),
        "get_trace_info": Operation(lambda _: store.get_trace_info(some[50])),
        "batch_get_traces, 100": Operation(lambda _: store.batch_get_traces(some)),
        "batch_get_traces, 1000 spans": Operation(lambda _: store.batch_get_traces([big[0].trace_id])),
        "tokens by day": Operation(lambda _: _figures(store, experiment_id, "TRACES", "total_tokens", "SUM", None)),
        "latency by name, P95": Operation(
            lambda _: _figures(store, experiment_id, "TRACES", "latency", "PERCENTILE", ["trace_name"])
        ),
        "spans by type": Operation(
            lambda _: _figures(store, experiment_id, "SPANS", "span_count", "COUNT", ["span_type"])
        ),
    }


def _figures(store: Any, experiment_id: str, view: str, metric: str, kind: str, dimensions: list[str] | None) -> Any:
    from mlflow.entities.trace_metrics import AggregationType, MetricAggregation, MetricViewType

    aggregation = MetricAggregation(AggregationType[kind], 95.0 if kind == "PERCENTILE" else None)
    return store.query_trace_metrics(
        experiment_ids=[experiment_id],
        view_type=MetricViewType[view],
        metric_name=metric,
        aggregations=[aggregation],
        dimensions=dimensions,
        time_interval_seconds=None if dimensions else 86_400,
        start_time_ms=START_MS,
        end_time_ms=START_MS + 10**9,
    )


def measure(stores: Mapping[str, Any], count: int, rounds: int, say: Callable[[str], None] = print) -> Table:
    """Seed each store and take turns; the first store is the reference."""
    columns = list(stores)
    table = Table(f"{count:,} traces of {SPANS} spans", "ms", columns, columns[0])
    asked = {}
    for name, store in stores.items():
        experiment_id, write_to = (
            store.create_experiment(f"{kind}-{uuid.uuid4().hex[:6]}") for kind in ("read", "write")
        )
        begun = time.perf_counter()
        seed(store, experiment_id, count)
        say(f"{name}: {count} traces in {time.perf_counter() - begun:.0f} s")
        asked[name] = operations(store, experiment_id, write_to, count)
    for row in asked[columns[0]]:
        for turn in range(rounds + 1):
            for name in columns:
                operation = asked[name][row]
                if turn > operation.most:
                    continue
                given = operation.prepare()
                begun = time.perf_counter()
                operation.run(given)
                if turn:
                    table.add(row, name, (time.perf_counter() - begun) * 1000)
    return table


def main() -> None:
    """Measure the stores that the arguments name."""
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stores", nargs="+", help="store URIs; the first is the reference")
    parser.add_argument("--traces", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stores = {
            f"{uri.split(':')[0]} {n}": _tracking_store_registry.get_store(uri, folder)
            for n, uri in enumerate(args.stores)
        }
        print(measure(stores, args.traces, args.rounds).markdown())


if __name__ == "__main__":
    main()
