"""The state machine of experiments, runs, metrics, params, tags, inputs and their searches."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, rule
from mlflow.entities import ExperimentTag, Metric, Param, RunStatus, RunTag, ViewType

from mlflow_plugkit_testing.differential import DifferentialMachine, Side, number, pages_of
from mlflow_plugkit_testing.differential_filters import run_filters, run_orders
from mlflow_plugkit_testing.tracking_runs import dataset_input

VIEWS = st.sampled_from([ViewType.ACTIVE_ONLY, ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY, ViewType.ALL])
NAMES = st.sampled_from(["alpha", "Alpha", "beta_1", "größer 大", "it's 50%", ""])
METRIC_KEYS = st.sampled_from(["m", "acc.val/1", "m"])
NUMBERS = st.sampled_from([0.0, 1.0, -1.5, 2.0, 1e-300, float("inf"), float("-inf")])
STEPS = st.sampled_from([0, 1, 2, -1, 2**40])
TIMES = st.integers(1, 4)
PARAM_KEYS = st.sampled_from(["p", "q r"])
TAG_KEYS = st.sampled_from(["t", "k.a-b", "mlflow.runName", ""])
TEXTS = st.sampled_from(["one", "One", "two", "o_e", "50%", "größer", "a'b", ""])
SIZES = st.sampled_from([1, 2, 3, 1000])

POINTS = st.one_of(
    st.tuples(METRIC_KEYS, NUMBERS, TIMES, STEPS),
    st.tuples(st.just("loss"), st.sampled_from([float("nan"), 1.0, -3.0]), TIMES, STEPS),
)

WORLD: dict[str, tuple[str, int, str, dict[str, float], dict[str, str]]] = {
    "bare": ("default", 21, "one", {}, {}),
    "low": ("first", 22, "One", {"m": -1.5, "loss": float("nan")}, {"p": "two"}),
    "high": ("first", 23, "two", {"m": 2.0, "loss": 2.0}, {"p": "One", "q r": "50%"}),
    "mid": ("default", 24, "größer", {"m": 1.0, "loss": -3.0, "acc.val/1": 0.0}, {"p": "one"}),
}

AUDIT_FILTERS = [
    "tags.t LIKE 'o%'",
    "tags.t ILIKE 'o%'",
    "params.p LIKE '%n%'",
    "attributes.run_name LIKE 'h%'",
    "tags.t != 'one'",
    "metrics.m > -1.5",
    "metrics.loss < 1 AND params.p = 'one'",
]
AUDIT_ORDERS = [["metrics.loss"], ["metrics.loss DESC"], ["metrics.m ASC", "run_name"], ["params.p DESC"], ["end_time"]]


def run_shown(side: Side, run: Any) -> dict[str, Any]:
    """A run in the form that is compared: without its clock and its artifact location."""
    info, data = run.info, run.data
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return {
        "run": side.name_of(info.run_id),
        "experiment": side.name_of(info.experiment_id),
        "info": (info.run_name, info.user_id, info.status, info.start_time, info.end_time, info.lifecycle_stage),
        "metrics": {key: number(value) for key, value in sorted(data.metrics.items())},
        "params": dict(sorted(data.params.items())),
        "tags": dict(sorted(data.tags.items())),
        "inputs": sorted((i.dataset.name, i.dataset.digest, [(t.key, t.value) for t in i.tags]) for i in inputs),
    }


def experiment_shown(side: Side, experiment: Any) -> tuple[Any, ...]:
    """An experiment in the form that is compared."""
    tags = dict(sorted(experiment.tags.items()))
    return side.name_of(experiment.experiment_id), experiment.name, experiment.lifecycle_stage, tags


def point_shown(point: Any) -> tuple[Any, ...]:
    """A metric point in the form that is compared."""
    return point.key, number(point.value), point.timestamp, point.step


class RunMachine(DifferentialMachine):
    """Operations on experiments and runs.

    Each sequence starts with the default experiment ("default"), the experiments named "first" and
    "second", and the runs of `WORLD`.
    """

    experiments = Bundle("experiments")
    runs = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.starts = {start for _, start, *_ in WORLD.values()}
        self.known_experiments = ["default", "first", "second"]
        for side in (self.pair.own, self.pair.tested):
            side.ids.update(default="0", no_experiment="987654321", no_run="f" * 32)
        self.pair.same("get_experiment of the default experiment", lambda s: s.store.get_experiment("0").name)
        for name in ("first", "second"):
            self._make("create_experiment", name, lambda s, name=name: s.store.create_experiment(name))
        for name, (experiment, start, tag, points, params) in WORLD.items():
            tags = [RunTag("t", tag)]

            def fill(
                side: Side,
                e: str = experiment,
                at: int = start,
                t: Any = tags,
                n: str = name,
                m: Any = points,
                p: Any = params,
            ) -> str:
                run_id = str(side.store.create_run(side.ids[e], "ada", at, t, n).info.run_id)
                metrics = [Metric(key, value, 2, 1) for key, value in m.items()]
                side.store.log_batch(run_id, metrics, [Param(*item) for item in p.items()], [])
                return run_id

            self._make("create_run and log_batch", name, fill)
        self._search(self.known_experiments, "", [], 1000, ViewType.ALL)

    def audit(self) -> None:
        """Ask for all runs and their histories, by filters, orders, pages and views."""
        everywhere = self.known_experiments
        for filter_string in AUDIT_FILTERS:
            self._search(everywhere, filter_string, [], 1000, ViewType.ALL)
        for order_by in AUDIT_ORDERS:
            self._search(everywhere, "", order_by, 1000, ViewType.ALL)
        for view in (ViewType.ACTIVE_ONLY, ViewType.DELETED_ONLY):
            self._search(everywhere, "", [], 2, view)
        self.search_experiments("", ["name"], 2, ViewType.ALL)
        self._read("no_run")
        for run in WORLD:
            self.get_metric_history(run, "m", 2)

    def _make(self, what: str, name: str, operation: Any) -> None:
        assert self.pair.make(name, what, operation), f"{what} failed on both sides"

    @initialize(target=experiments)
    def start_experiments(self) -> Any:
        """Name the experiments that both stores have, and one that none has."""
        return multiple("default", "first", "second", "no_experiment")

    @initialize(target=runs)
    def start_runs(self) -> Any:
        """Name the runs that both stores have, and one that none has."""
        return multiple(*WORLD, *WORLD, "no_run")

    @rule(target=experiments, name=NAMES, tag=st.none() | TEXTS)
    def create_experiment(self, name: str, tag: str | None) -> Any:
        """Create an experiment, with or without a tag; the name may be taken or empty."""
        made = self.new_name("experiment")
        tags = [] if tag is None else [ExperimentTag("t", tag)]
        if not self.pair.make(made, "create_experiment", lambda s: s.store.create_experiment(name, None, tags)):
            return multiple()
        self.known_experiments.append(made)
        self._read_experiment(made)
        return made

    @rule(experiment=experiments, name=NAMES)
    def rename_experiment(self, experiment: str, name: str) -> None:
        """Rename; an empty name is left out, of which older stores of MLflow make one."""
        if name:
            self.pair.same("rename_experiment", lambda s: s.store.rename_experiment(s.ids[experiment], name))
            self._read_experiment(experiment)

    @rule(experiment=experiments, restore=st.booleans())
    def delete_or_restore_experiment(self, experiment: str, restore: bool) -> None:
        """Delete or restore, in whatever stage the experiment is."""
        name = "restore_experiment" if restore else "delete_experiment"
        self.pair.same(name, lambda s: getattr(s.store, name)(s.ids[experiment]))
        self._read_experiment(experiment)
        self._search([experiment], "", [], 1000, ViewType.ALL)

    @rule(experiment=experiments, key=TAG_KEYS, value=TEXTS)
    def set_experiment_tag(self, experiment: str, key: str, value: str) -> None:
        """Set a tag of an experiment."""
        tag = ExperimentTag(key, value)
        self.pair.same("set_experiment_tag", lambda s: s.store.set_experiment_tag(s.ids[experiment], tag))
        self._read_experiment(experiment)

    @rule(target=runs, experiment=experiments, name=TEXTS, start=st.integers(1, 9), tag=TEXTS)
    def create_run(self, experiment: str, name: str, start: int, tag: str) -> Any:
        """Create a run; no two have one start time, since ties go by the ids that stores choose."""
        while start in self.starts:
            start += 1
        made = self.new_name("run")
        named = name or "unnamed"

        def create(side: Side) -> str:
            run = side.store.create_run(side.ids[experiment], "ada", start, [RunTag("t", tag)], named)
            return str(run.info.run_id)

        if not self.pair.make(made, "create_run", create):
            return multiple()
        self.starts.add(start)
        self._read(made)
        return multiple(made, made)

    @rule(run=runs, status=st.sampled_from([None, RunStatus.FINISHED, RunStatus.FAILED]), name=st.none() | TEXTS)
    def update_run_info(self, run: str, status: Any, name: str | None) -> None:
        """Update status, end time and name."""
        end = None if status is None else 99

        def update(side: Side) -> Any:
            info = side.store.update_run_info(side.ids[run], status, end, name)
            return info.status, info.end_time, info.run_name

        self.pair.same("update_run_info", update)
        self._read(run)

    @rule(run=runs, restore=st.booleans())
    def delete_or_restore_run(self, run: str, restore: bool) -> None:
        """Delete or restore, in whatever stage the run is."""
        name = "restore_run" if restore else "delete_run"
        self.pair.same(name, lambda s: getattr(s.store, name)(s.ids[run]))
        self._read(run)

    @rule(order_by=run_orders(), size=SIZES, view=VIEWS)
    def search_all_runs(self, order_by: list[str], size: int, view: Any) -> None:
        """Search all experiments without a filter, page by page."""
        self._search(self.known_experiments, "", order_by, size, view)

    @rule(run=runs, point=POINTS)
    def log_metric(self, run: str, point: Any) -> None:
        """Log one point."""
        self.pair.same("log_metric", lambda s: s.store.log_metric(s.ids[run], Metric(*point)))
        self._read(run)

    @rule(run=runs, key=PARAM_KEYS, value=TEXTS)
    def log_param(self, run: str, key: str, value: str) -> None:
        """Log a param, perhaps again, perhaps with another value."""
        self.pair.same("log_param", lambda s: s.store.log_param(s.ids[run], Param(key, value)) and None)
        self._read(run)

    @rule(run=runs, key=TAG_KEYS, value=TEXTS)
    def set_tag(self, run: str, key: str, value: str) -> None:
        """Set a tag; an empty name of a run is left out."""
        if value or key != "mlflow.runName":
            self.pair.same("set_tag", lambda s: s.store.set_tag(s.ids[run], RunTag(key, value)))
            self._read(run)

    @rule(run=runs, key=st.sampled_from(["t", "k.a-b", "absent"]))
    def delete_tag(self, run: str, key: str) -> None:
        """Delete a tag that may be there."""
        self.pair.same("delete_tag", lambda s: s.store.delete_tag(s.ids[run], key))
        self._read(run)

    @rule(
        run=runs,
        points=st.lists(POINTS, max_size=4),
        params=st.lists(st.tuples(PARAM_KEYS, TEXTS), max_size=2),
        tags=st.lists(st.tuples(st.sampled_from(["t", "u"]), TEXTS), max_size=2),
    )
    def log_batch(self, run: str, points: list[Any], params: list[Any], tags: list[Any]) -> None:
        """Log a batch. With a param that is refused nothing is compared but the refusal and the params."""
        metrics, all_params, all_tags = (
            [Metric(*p) for p in points],
            [Param(*p) for p in params],
            [RunTag(*t) for t in tags],
        )
        self.pair.same("log_batch", lambda s: s.store.log_batch(s.ids[run], metrics, all_params, all_tags))
        self._read(run)

    @rule(run=runs, names=st.lists(st.sampled_from(["d1", "d2"]), min_size=1, max_size=3))
    def log_inputs(self, run: str, names: list[str]) -> None:
        """Log datasets as inputs, perhaps again."""
        datasets = [dataset_input(name) for name in names]
        self.pair.same("log_inputs", lambda s: s.store.log_inputs(s.ids[run], datasets=datasets))
        self._read(run)

    @rule(
        filters=st.lists(run_filters(), min_size=1, max_size=5),
        order_by=run_orders(),
        size=SIZES,
        view=VIEWS,
        only=st.none() | experiments,
    )
    def search_runs(self, filters: list[str], order_by: list[str], size: int, view: Any, only: str | None) -> None:
        """Search one or all experiments by each of the filters, page by page."""
        names = self.known_experiments if only is None else [only]
        for filter_string in filters:
            self._search(names, filter_string, order_by, size, view)

    def _search(self, names: list[str], filter_string: str, order_by: list[str], size: int, view: Any) -> None:
        def search(side: Side) -> Any:
            ids = [side.ids[name] for name in names]
            return pages_of(
                lambda token: side.store.search_runs(ids, filter_string, view, size, order_by, token),
                lambda run: run_shown(side, run),
            )

        self.pair.same(f"search_runs by {filter_string!r}", search)

    @rule(
        filter_string=st.sampled_from(
            [
                "",
                "name LIKE 'a%'",
                "name ILIKE 'a%'",
                "tags.t = 'one'",
                "name = 'it''s 50%'",
                "tags.t != 'one'",
                "x = 1",
            ]
        ),
        order_by=st.sampled_from([None, ["name"], ["name DESC"], ["creation_time ASC"], ["last_update_time DESC"]]),
        size=SIZES,
        view=VIEWS,
    )
    def search_experiments(self, filter_string: str, order_by: Any, size: int, view: Any) -> None:
        """Search experiments, page by page."""

        def search(side: Side) -> Any:
            return pages_of(
                lambda token: side.store.search_experiments(view, size, filter_string, order_by, token),
                lambda experiment: experiment_shown(side, experiment),
            )

        self.pair.same("search_experiments", search)

    @rule(run=runs, key=st.sampled_from(["m", "acc.val/1", "loss", "absent"]), size=st.none() | SIZES)
    def get_metric_history(self, run: str, key: str, size: int | None) -> None:
        """Read a history, whole or in pages; as a set where this MLflow does not order it."""

        def read(side: Side) -> Any:
            history = side.store.get_metric_history
            ask = {} if size is None or not self.pair.ordered_histories else {"max_results": size}
            pages = pages_of(
                lambda token: history(side.ids[run], key, **ask, page_token=token), lambda p: point_shown(p)
            )
            return pages if self.pair.ordered_histories else sorted(p for page in pages for p in page)

        self.pair.same("get_metric_history", read)

    @rule(name=NAMES)
    def get_experiment_by_name(self, name: str) -> None:
        """Look for a name."""

        def find(side: Side) -> Any:
            found = side.store.get_experiment_by_name(name)
            return found and experiment_shown(side, found)

        self.pair.same("get_experiment_by_name", find)

    def _read(self, run: str) -> None:
        self.pair.same("get_run", lambda s: run_shown(s, s.store.get_run(s.ids[run])))

    def _read_experiment(self, experiment: str) -> None:
        self.pair.same("get_experiment", lambda s: experiment_shown(s, s.store.get_experiment(s.ids[experiment])))
