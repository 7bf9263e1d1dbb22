"""The state machine of logged models, traces, their tags and assessments, and their searches (MLflow >= 3.3)."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, rule
from mlflow.entities import Metric

from mlflow_plugkit_testing.differential import DifferentialMachine, Side, number, pages_of

TEXTS = st.sampled_from(["one", "One", "two", "größer", "a'b", ""])
KEYS = st.sampled_from(["t", "k.a-b"])
NAMES = st.sampled_from(["alpha", "Alpha", "beta_1", "bad/name"])
NO_TRACE = "tr-" + "f" * 32
SIZES = st.sampled_from([1, 2, 1000])


def model_shown(side: Side, model: Any) -> tuple[Any, ...]:
    """A logged model in the form that is compared: without its clock and its artifact location."""
    metrics = sorted((m.key, number(m.value), side.name_of(m.run_id)) for m in model.metrics or [])
    tags, params = dict(sorted(model.tags.items())), dict(sorted(model.params.items()))
    return side.name_of(model.model_id), model.name, model.model_type, str(model.status), tags, params, metrics


def trace_shown(side: Side, info: Any) -> tuple[Any, ...]:
    """A trace in the form that is compared: its tags without MLflow's own, its assessments by their names."""
    tags = {key: value for key, value in sorted(info.tags.items()) if not key.startswith("mlflow.")}
    assessments = sorted((a.name, repr(a.value), a.rationale or "") for a in info.assessments)
    times = (info.request_time, info.execution_duration)
    return info.trace_id, info.state.value, times, info.request_preview, tags, assessments


class ModelAndTraceMachine(DifferentialMachine):
    """Operations on logged models, if `has_models`, and on traces, if `has_traces`, in the default experiment."""

    has_models = True
    has_traces = True
    has_assessments = True

    models = Bundle("models")
    traces = Bundle("traces")

    def __init__(self) -> None:
        super().__init__()
        self.starts: set[int] = set()
        for side in (self.pair.own, self.pair.tested):
            side.ids.update(no_model="m-" + "f" * 32)
            side.ids["run"] = side.store.create_run("0", "ada", 1, [], "run").info.run_id

    def audit(self) -> None:
        """Ask for all models and traces, by filters, orders and pages."""
        for filter_string in ("name LIKE 'a%'", "tags.t != 'one'", "params.p = 'one'"):
            self.search_logged_models(filter_string, [("name", True)], 1000)
        self.search_logged_models("", [("metrics.acc", True)], 2)
        for filter_string in ("tags.t = 'one'", "timestamp_ms > 11"):
            self.search_traces(filter_string, ["timestamp_ms ASC"], 1000)
        self.search_traces(None, None, 2)
        if self.has_traces:
            self._read_trace(NO_TRACE)
        if self.has_models:
            self._read_model("no_model")

    @initialize(target=models)
    def start_models(self) -> Any:
        """Make three models; name one that no store has."""
        named = ("alpha", "Alpha", "beta_1") if self.has_models else ()
        made = [self._create_model(name, name, "one", None) for name in named]
        return multiple("no_model", *(name for name in made if name))

    @initialize(target=traces)
    def start_traces(self) -> Any:
        """Make three traces; name one that no store has."""
        made = [self._start_trace(at, tag, True) for at, tag in ((11, "one"), (12, "One"), (13, "two"))]
        return multiple(NO_TRACE, *made) if self.has_traces else NO_TRACE

    @rule(target=models, name=NAMES, tag=TEXTS, param=TEXTS, kind=st.sampled_from([None, "agent"]))
    def create_logged_model(self, name: str, tag: str, param: str, kind: str | None) -> Any:
        """Create a logged model; the name may be a bad one."""
        made = self._create_model(name, tag, param, kind) if self.has_models else None
        return multiple(made, made) if made else multiple()

    def _create_model(self, name: str, tag: str, param: str, kind: str | None) -> str | None:
        from mlflow.entities import LoggedModelParameter, LoggedModelTag

        made = self.new_name("model")
        tags, params = [LoggedModelTag("t", tag)], [LoggedModelParameter("p", param)]

        def create(side: Side) -> str:
            return str(side.store.create_logged_model("0", name, side.ids["run"], tags, params, kind).model_id)

        if not self.pair.make(made, "create_logged_model", create):
            return None
        self._read_model(made)
        return made

    @rule(model=models, ready=st.booleans())
    def finalize_logged_model(self, model: str, ready: bool) -> None:
        """Finalize as ready or failed."""
        if not self.has_models:
            return
        from mlflow.entities import LoggedModelStatus

        status = LoggedModelStatus.READY if ready else LoggedModelStatus.FAILED
        self.pair.same(
            "finalize_logged_model",
            lambda s: model_shown(s, s.store.finalize_logged_model(s.ids[model], status)),
        )

    @rule(model=models, key=KEYS, value=TEXTS)
    def set_logged_model_tags(self, model: str, key: str, value: str) -> None:
        """Set a tag of a logged model."""
        if not self.has_models:
            return
        from mlflow.entities import LoggedModelTag

        tags = [LoggedModelTag(key, value)]
        self.pair.same("set_logged_model_tags", lambda s: s.store.set_logged_model_tags(s.ids[model], tags))
        self._read_model(model)

    @rule(model=models, key=KEYS)
    def delete_logged_model_tag(self, model: str, key: str) -> None:
        """Delete a tag that may be there."""
        if self.has_models:
            self.pair.same("delete_logged_model_tag", lambda s: s.store.delete_logged_model_tag(s.ids[model], key))
            self._read_model(model)

    @rule(model=models)
    def delete_logged_model(self, model: str) -> None:
        """Delete a logged model."""
        if self.has_models:
            self.pair.same("delete_logged_model", lambda s: s.store.delete_logged_model(s.ids[model]))
            self._read_model(model)

    @rule(model=models, value=st.sampled_from([0.0, 0.5, 2.0]), step=st.integers(0, 3))
    def log_model_metric(self, model: str, value: float, step: int) -> None:
        """Log a metric of a logged model that exists."""
        if not self.has_models or model == "no_model":
            return

        def log(side: Side) -> None:
            point = Metric("acc", value, 1, step, model_id=side.ids[model], run_id=side.ids["run"])
            side.store.log_batch(side.ids["run"], [point], [], [])

        self.pair.same("log_batch with a model_id", log)
        self._read_model(model)

    @rule(
        filter_string=st.sampled_from(
            [
                "",
                "name = 'alpha'",
                "name LIKE 'a%'",
                "params.p = 'one'",
                "tags.t != 'one'",
                "metrics.acc > 0.1",
                "name =",
            ]
        ),
        order_by=st.sampled_from(
            [None, [("name", True)], [("name", False), ("creation_time", True)], [("metrics.acc", True)]]
        ),
        size=SIZES,
    )
    def search_logged_models(self, filter_string: str, order_by: Any, size: int) -> None:
        """Search logged models, page by page; equal names go by their creation, latest first."""
        if not self.has_models:
            return
        order = [{"field_name": name, "ascending": up} for name, up in order_by or []] or None

        def search(side: Side) -> Any:
            find = side.store.search_logged_models
            return pages_of(
                lambda token: find(["0"], filter_string, max_results=size, order_by=order, page_token=token),
                lambda model: model_shown(side, model),
            )

        self.pair.same("search_logged_models", search)

    @rule(target=traces, at=st.integers(1, 9), tag=TEXTS, good=st.booleans())
    def start_trace(self, at: int, tag: str, good: bool) -> Any:
        """Start a trace; no two have one time, since ties are in no promised order."""
        trace_id = self._start_trace(at, tag, good)
        return multiple(trace_id, trace_id) if self.has_traces else multiple()

    def _start_trace(self, at: int, tag: str, good: bool) -> str:
        if not self.has_traces:
            return NO_TRACE
        from mlflow.entities import TraceInfo, TraceLocation, TraceState

        while at in self.starts:
            at += 1
        self.starts.add(at)
        trace_id = f"tr-{len(self.starts):032x}"

        def start(side: Side) -> Any:
            info = TraceInfo(
                trace_id=trace_id,
                trace_location=TraceLocation.from_experiment_id("0"),
                request_time=at,
                execution_duration=at * 10,
                state=TraceState.OK if good else TraceState.ERROR,
                trace_metadata={},
                tags={"t": tag},
                request_preview="asked",
            )
            return trace_shown(side, side.store.start_trace(info))

        self.pair.same("start_trace", start)
        return trace_id

    @rule(trace=traces, key=KEYS, value=TEXTS)
    def set_trace_tag(self, trace: str, key: str, value: str) -> None:
        """Set a tag of a trace that exists: not every MLflow checks that it does."""
        if self.has_traces and trace != NO_TRACE:
            self.pair.same("set_trace_tag", lambda s: s.store.set_trace_tag(trace, key, value))
            self._read_trace(trace)

    @rule(trace=traces, key=KEYS)
    def delete_trace_tag(self, trace: str, key: str) -> None:
        """Delete a tag that may be there."""
        if self.has_traces:
            self.pair.same("delete_trace_tag", lambda s: s.store.delete_trace_tag(trace, key))
            self._read_trace(trace)

    @rule(ids=st.none() | st.lists(traces, min_size=1, max_size=2), until=st.integers(1, 9))
    def delete_traces(self, ids: list[str] | None, until: int) -> None:
        """Delete by id or by age."""
        if not self.has_traces:
            return
        ask: dict[str, Any] = {"trace_ids": ids} if ids else {"max_timestamp_millis": until}
        self.pair.same("delete_traces", lambda s: s.store.delete_traces("0", **ask))

    @rule(trace=traces, value=st.sampled_from([True, 1, "x"]), rationale=st.none() | TEXTS)
    def create_assessment(self, trace: str, value: Any, rationale: str | None) -> None:
        """Give feedback on a trace."""
        if not (self.has_traces and self.has_assessments):
            return
        from mlflow.entities import Feedback

        def create(side: Side) -> Any:
            made = side.store.create_assessment(Feedback(name="good", value=value, trace_id=trace, rationale=rationale))
            read = side.store.get_assessment(trace, made.assessment_id)
            return read.name, read.value, read.rationale

        self.pair.same("create_assessment", create)
        self._read_trace(trace)

    @rule(
        filter_string=st.sampled_from(
            [None, "tags.t = 'one'", "tags.t != 'one'", "timestamp_ms > 3", "status = 'OK'", "colour = 'red'"]
        ),
        order_by=st.sampled_from([None, ["timestamp_ms ASC"], ["timestamp_ms DESC"], ["execution_time_ms ASC"]]),
        size=SIZES,
    )
    def search_traces(self, filter_string: str | None, order_by: Any, size: int) -> None:
        """Search traces, page by page."""
        if not self.has_traces:
            return

        def search(side: Side) -> Any:
            find = side.store.search_traces
            return pages_of(
                lambda token: find(["0"], filter_string, size, order_by, token), lambda info: trace_shown(side, info)
            )

        self.pair.same("search_traces", search)

    def _read_model(self, model: str) -> None:
        self.pair.same("get_logged_model", lambda s: model_shown(s, s.store.get_logged_model(s.ids[model])))

    def _read_trace(self, trace: str) -> None:
        self.pair.same("get_trace_info", lambda s: trace_shown(s, s.store.get_trace_info(trace)))
