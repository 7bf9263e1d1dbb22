"""What the parts about traces stand on: reading and changing a trace's document."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking import trace_keys as keys
from mlflow_elasticsearch_tracking.base import StoreBase
from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_elasticsearch_tracking.trace_documents import is_there, trace_document, trace_key
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Conflict, Document
from mlflow_plugkit_elasticsearch.documents import UPDATE_SECONDS, Source, busy, pause

#: Spans that one request reads or deletes: their contents may be large.
SPAN_STEP = 1_000


class TraceBase(StoreBase):
    """Read and change traces' documents; changes are read, changed and written if nobody else did meanwhile."""

    if TYPE_CHECKING:

        def _active_experiment(self, experiment_id: str) -> Source: ...
        def _experiment_source(self, experiment_id: str) -> Source: ...
        def _forget_reviewed_traces(self, trace_ids: Sequence[str]) -> None: ...

    def _trace_source(self, trace_id: str) -> Source:
        """The source of a trace, by a real-time read.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        document = self.docs.get(TRACES, trace_key(trace_id))
        if document is None or not is_there(document.source):
            raise no_trace(trace_id)
        return document.source

    def _trace_sources(self, trace_ids: Sequence[str]) -> dict[str, Document]:
        """The documents of the traces that are there, by trace id, in the order of the ids."""
        found = self.docs.get_many(TRACES, [trace_key(trace_id) for trace_id in dict.fromkeys(trace_ids)])
        return {d.source["trace_id"]: d for d in found.values() if is_there(d.source)}

    def _traces_in(self, trace_ids: list[str], experiment_ids: list[str] | None) -> list[Source]:
        """The sources of the traces that are there, and in these experiments, in the order asked for."""
        if not trace_ids:
            return []
        wanted = None if experiment_ids is None else set(map(str, experiment_ids))
        order = {trace_id: position for position, trace_id in enumerate(trace_ids)}
        sources = [d.source for d in self._trace_sources(trace_ids).values()]
        sources = [s for s in sources if wanted is None or s["experiment_id"] in wanted]
        return sorted(sources, key=lambda s: order[s["trace_id"]])

    def _change_trace(self, trace_id: str, change: Callable[[Source], Source | None]) -> Source:
        """Change a trace that is there; the source afterwards.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`; `RESOURCE_CONFLICT` where others kept changing it.
        """

        def changed(source: Source) -> Source | None:
            if not is_there(source):
                raise no_trace(trace_id)
            new = change(source)
            return None if new is None else trace_document(new)

        return self.docs.update(TRACES, trace_key(trace_id), changed, lambda: no_trace(trace_id)).source

    def _put_trace(self, trace_id: str, change: Callable[[Source | None], Source]) -> Source:
        """Make or change a trace: `change` takes None where there is no document yet.

        Raises:
            MlflowException: `RESOURCE_CONFLICT` where others kept changing it for a minute.
        """
        key = trace_key(trace_id)
        deadline = time.monotonic() + UPDATE_SECONDS
        attempt = 0
        with self.docs.turn(TRACES, key):
            while time.monotonic() < deadline:
                found = self.docs.get(TRACES, key)
                source = change(dict(found.source) if found else None)
                try:
                    if found is None:
                        return self.docs.create(TRACES, key, trace_document(source)).source
                    return self.docs.put(TRACES, key, trace_document(source), found).source
                except Conflict:
                    pause(attempt)
                    attempt += 1
        raise busy(TRACES, key)


def no_trace(trace_id: str) -> Exception:
    """The error for a trace that is not there."""
    return mlflow_error(f"Trace with ID '{trace_id}' not found.", "RESOURCE_DOES_NOT_EXIST")


def unavailable_spans() -> Exception:
    """The signal by which MLflow's server turns to the artifact repository for a trace's spans."""
    from mlflow.exceptions import MlflowTracingException

    error: Exception = MlflowTracingException("Trace data not stored in tracking store")
    return error


def experiment_number(experiment_id: Any) -> str:
    """The id of an experiment as it is stored.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for no whole number.
    """
    try:
        return str(int(experiment_id))
    except (TypeError, ValueError):
        text = f"Invalid experiment ID '{experiment_id}'. Experiment ID must be a valid integer."
        raise mlflow_error(text) from None


def refuse_elsewhere(source: Source) -> None:
    """Refuse to write spans of a trace whose spans are not kept here.

    Raises:
        MlflowException: `INVALID_STATE`.
    """
    where = source.get("t", {}).get(keys.SPANS_LOCATION, keys.IN_STORE)
    if where != keys.IN_STORE:
        what = "archived traces" if where == keys.IN_ARCHIVE else f"traces whose spans are kept elsewhere ({where})"
        raise mlflow_error(f"Cannot log spans to {what}: '{source['trace_id']}'.", "INVALID_STATE")
