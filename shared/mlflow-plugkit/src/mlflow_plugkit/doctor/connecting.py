"""`--connect`: ask the configured tracking server and model registry for one thing each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mlflow_plugkit.doctor.context import Context
from mlflow_plugkit.doctor.environment import REGISTRY, TRACKING
from mlflow_plugkit.doctor.findings import Connection
from mlflow_plugkit.doctor.probe import MLFLOW_IMPORT_SECONDS, Probe
from mlflow_plugkit.uri import redact_uri

Question = dict[str, str | None]


def connections(ctx: Context, seconds: float) -> list[Connection]:
    """The answers, in order; empty where neither MLFLOW_TRACKING_URI nor MLFLOW_REGISTRY_URI is set.

    Args:
        ctx: names the services; as in MLflow, the registry is the tracking server unless it is set.
        seconds: time limit for each answer.
    """
    tracking = ctx.environ.get("MLFLOW_TRACKING_URI")
    registry = ctx.environ.get("MLFLOW_REGISTRY_URI") or tracking
    questions: list[Question] = [
        {"kind": kind, "uri": uri, "tracking_uri": tracking}
        for kind, uri in ((TRACKING, tracking), (REGISTRY, registry))
    ]
    asked = [q for q in questions if q["uri"]]
    return [_connection(ctx, q, event) for q, event in zip(asked, _answers(asked, seconds), strict=True)]


def _answers(questions: list[Question], seconds: float) -> Iterator[dict[str, Any]]:
    """One event a question. A service that hangs costs its probe; the next question gets a new one."""
    waiting = list(questions)
    limits = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, int(seconds)))}
    while waiting:
        with Probe({"mode": "connect"}, env=limits) as probe:
            # MLflow's own import is not the service's delay, so it has a limit of its own.
            event = _receive(probe, MLFLOW_IMPORT_SECONDS)
            if event["event"] != "ready":
                yield from ({"ok": False, "ms": 0.0, **event} for _ in waiting)
                return
            while waiting and probe.alive:
                waiting_for = waiting.pop(0)
                probe.send(waiting_for)
                event = _receive(probe, seconds + 1)
                yield {"ok": False, "ms": seconds * 1000, **event}
                if event["event"] != "answer":
                    probe.kill()


def _receive(probe: Probe, seconds: float) -> dict[str, Any]:
    try:
        event = probe.receive(seconds)
    except TimeoutError:
        return {"event": "hangs", "text": f"it did not end within {seconds:g} s"}
    return event or {"event": "ended", "text": f"the process ended ({probe.exit_text()})"}


def _connection(ctx: Context, question: Question, event: dict[str, Any]) -> Connection:
    text = event["text"] if event["ok"] or "type" not in event else f"{event['type']}: {event['text']}"
    uri = ctx.shown(redact_uri(str(question["uri"])))
    answer = ctx.shown(text.rstrip("."))
    return Connection(str(question["kind"]), uri, bool(event["ok"]), answer, round(event["ms"], 1))
