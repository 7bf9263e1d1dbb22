"""Rules about runs: their life, tags, params, batches and inputs."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, RunStatus, RunTag

from mlflow_plugkit_testing.stores import errors_in, refused, together
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, is_deleted, new_run

MISSING = "0123456789abcdef0123456789abcdef"
BAD_KEYS: list[Any] = ["", None, "k" * 251, "../up", "a//b", "/abs", "a\x00b"]


def operations(store: Any, run_id: str) -> dict[str, Any]:
    """The operations that write to a run."""
    return {
        "update_run_info": lambda: store.update_run_info(run_id, RunStatus.FINISHED, 2, "new"),
        "log_metric": lambda: store.log_metric(run_id, Metric("m", 1.0, 1, 0)),
        "log_param": lambda: store.log_param(run_id, Param("p", "1")),
        "set_tag": lambda: store.set_tag(run_id, RunTag("t", "1")),
        "delete_tag": lambda: store.delete_tag(run_id, "k"),
        "log_batch": lambda: store.log_batch(run_id, [Metric("m", 1.0, 1, 0)], [], []),
        "log_inputs": lambda: store.log_inputs(run_id, datasets=[dataset_input("d")]),
    }


WRITES = ["update_run_info", "log_metric", "log_param", "set_tag", "delete_tag", "log_batch", "log_inputs"]


def dataset_input(name: str, digest: str = "1f", context: str = "train") -> DatasetInput:
    """A dataset with the tag that says what it was used for."""
    dataset = Dataset(name=name, digest=digest, source_type="local", source="s", schema="{}", profile="{}")
    return DatasetInput(dataset=dataset, tags=[InputTag("mlflow.data.context", context)])


class RunRules(TrackingStoreSuite):
    """Creating, reading, changing, deleting and restoring runs."""

    def test_a_created_run_is_read_back(self, store: Any, experiment: str) -> None:
        """User, start time, status, name and tags of a new run are read back."""
        made = store.create_run(experiment, "ada", 1234, [RunTag("k", "ü")], "Läufer")
        info, data = (run := store.get_run(made.info.run_id)).info, run.data
        read = (info.run_name, info.user_id, info.start_time, info.end_time, info.status, info.lifecycle_stage)
        assert read == ("Läufer", "ada", 1234, None, "RUNNING", "active"), f"a new run was read back as {read}"
        assert info.experiment_id == experiment, "a new run was put in another experiment"
        assert data.tags == {"k": "ü", "mlflow.runName": "Läufer"}, f"tags of a new run were read back as {data.tags}"
        assert (data.metrics, data.params) == ({}, {}), "a new run has metrics or params"
        assert info.run_id in info.artifact_uri, "the artifact_uri of a run must contain its id"

    def test_a_run_without_a_name_gets_one(self, store: Any, experiment: str) -> None:
        """Without a run_name the store invents one and keeps it in the tag mlflow.runName too."""
        run = store.create_run(experiment, "ada", 1, [], None)
        assert run.info.run_name, "a run without a name must get one"
        assert store.get_run(run.info.run_id).data.tags["mlflow.runName"] == run.info.run_name, (
            "the invented run name must also be the tag mlflow.runName"
        )

    def test_the_name_of_a_run_comes_from_its_tag_too(self, store: Any, experiment: str) -> None:
        """The tag mlflow.runName names a new run; a different run_name beside it is refused."""
        run = store.create_run(experiment, "ada", 1, [RunTag("mlflow.runName", "tagged")], None)
        assert run.info.run_name == "tagged", "the tag mlflow.runName must name a new run"
        with refused("INVALID_PARAMETER_VALUE", "a run_name that contradicts the tag mlflow.runName"):
            store.create_run(experiment, "ada", 1, [RunTag("mlflow.runName", "one")], "two")

    def test_run_info_can_be_updated(self, store: Any, experiment: str) -> None:
        """Status, end time and name are updated; None leaves each as it is."""
        run_id = new_run(store, experiment, name="old")
        info = store.update_run_info(run_id, RunStatus.FINISHED, 99, "new")
        assert (info.status, info.end_time, info.run_name) == ("FINISHED", 99, "new"), (
            "update_run_info must return the info after the update"
        )
        store.update_run_info(run_id, None, None, None)
        run = store.get_run(run_id)
        kept = (run.info.status, run.info.end_time, run.info.run_name, run.data.tags["mlflow.runName"])
        assert kept == ("FINISHED", 99, "new", "new"), f"after update_run_info the run was read back as {kept}"

    def test_the_run_name_tag_renames_the_run(self, store: Any, experiment: str) -> None:
        """Setting the tag mlflow.runName changes the run's name, alone and in a batch."""
        run_id = new_run(store, experiment, name="old")
        store.set_tag(run_id, RunTag("mlflow.runName", "by tag"))
        assert store.get_run(run_id).info.run_name == "by tag", "the tag mlflow.runName must rename the run"
        store.log_batch(run_id, [], [], [RunTag("mlflow.runName", "by batch")])
        assert store.get_run(run_id).info.run_name == "by batch", (
            "the tag mlflow.runName in a batch must rename the run"
        )

    @pytest.mark.parametrize("operation", ["get_run", "delete_run", "restore_run", *WRITES])
    def test_a_missing_run_is_named_as_such(self, store: Any, operation: str) -> None:
        """An unknown run id raises `RESOURCE_DOES_NOT_EXIST`."""
        calls = operations(store, MISSING) | {
            "get_run": lambda: store.get_run(MISSING),
            "delete_run": lambda: store.delete_run(MISSING),
            "restore_run": lambda: store.restore_run(MISSING),
        }
        with refused("RESOURCE_DOES_NOT_EXIST", f"{operation} on an unknown run id"):
            calls[operation]()

    def test_runs_are_deleted_and_restored(self, store: Any, experiment: str) -> None:
        """A deleted run can still be read, with all it had, and be restored."""
        run_id = new_run(store, experiment, k="v")
        store.delete_run(run_id)
        deleted = store.get_run(run_id)
        assert is_deleted(deleted.info), "a deleted run must be in the stage 'deleted'"
        assert deleted.data.tags["k"] == "v", "a deleted run lost its tags"
        store.restore_run(run_id)
        assert not is_deleted(store.get_run(run_id).info), "a restored run must be active"

    @pytest.mark.parametrize("operation", WRITES)
    def test_a_deleted_run_is_read_only(self, store: Any, experiment: str, operation: str) -> None:
        """Every write to a deleted run raises `INVALID_PARAMETER_VALUE`."""
        run_id = new_run(store, experiment, k="v")
        store.delete_run(run_id)
        with refused("INVALID_PARAMETER_VALUE", f"{operation} on a deleted run"):
            operations(store, run_id)[operation]()

    def test_tags_are_set_overwritten_and_deleted(self, store: Any, experiment: str) -> None:
        """A tag set again has its new value; `delete_tag` (called by MLflow, not declared) removes one."""
        run_id = new_run(store, experiment, a="1", b="2")
        store.set_tag(run_id, RunTag("a", "3 ü\n"))
        store.log_batch(run_id, [], [], [RunTag("b", "4"), RunTag("c", ""), RunTag("b", "5")])
        tags = store.get_run(run_id).data.tags
        assert (tags["a"], tags["b"], tags["c"]) == ("3 ü\n", "5", ""), (
            f"tags must be overwritten by key, the last wins: {tags}"
        )
        store.delete_tag(run_id, "a")
        assert "a" not in store.get_run(run_id).data.tags, "delete_tag left the tag in place"
        with refused("RESOURCE_DOES_NOT_EXIST", "delete_tag of a key that the run does not have"):
            store.delete_tag(run_id, "a")

    def test_params_are_read_back(self, store: Any, experiment: str) -> None:
        """Params keep their text exactly: empty, not ASCII, with line breaks, 6000 characters long."""
        run_id = new_run(store, experiment)
        params = {"empty": "", "lines": "a\nb\t'\"", "unicode": "Größe 大", "long": "x" * 6000, "dir/a.b-c": "1"}
        for key, value in params.items():
            store.log_param(run_id, Param(key, value))
        read = store.get_run(run_id).data.params
        assert read == params, f"params were read back changed: {[k for k in params if read.get(k) != params[k]]}"

    def test_a_param_does_not_change(self, store: Any, experiment: str) -> None:
        """Logging another value raises `INVALID_PARAMETER_VALUE` and keeps the first; the same value is accepted."""
        run_id = new_run(store, experiment)
        store.log_param(run_id, Param("p", "1"))
        store.log_param(run_id, Param("p", "1"))
        with refused("INVALID_PARAMETER_VALUE", "changing a param"):
            store.log_param(run_id, Param("p", "2"))
        with refused("INVALID_PARAMETER_VALUE", "changing a param in a batch"):
            store.log_batch(run_id, [], [Param("q", "1"), Param("p", "2")], [])
        assert store.get_run(run_id).data.params["p"] == "1", "a refused param replaced the first value"

    def test_bad_params_are_refused(self, store: Any, experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys that are empty, over 250 characters or no clean path, and values over 6000, are refused."""
        monkeypatch.setenv("MLFLOW_TRUNCATE_LONG_VALUES", "false")
        run_id = new_run(store, experiment)
        for key, value in [*((key, "1") for key in BAD_KEYS), ("p", "x" * 6001)]:
            what = f"the param {str(key)[:9]!r} with a value of {len(value)} characters"
            with refused("INVALID_PARAMETER_VALUE", what):
                store.log_param(run_id, Param(key, value))
        assert store.get_run(run_id).data.params == {}, "a refused param was kept"

    def test_bad_tags_are_refused(self, store: Any, experiment: str) -> None:
        """Tag keys that are empty, over 250 characters or no clean path raise `INVALID_PARAMETER_VALUE`."""
        run_id = new_run(store, experiment)
        for key in BAD_KEYS:
            with refused("INVALID_PARAMETER_VALUE", f"a tag with the key {str(key)[:9]!r}"):
                store.set_tag(run_id, RunTag(key, "v"))
        assert store.get_run(run_id).data.tags.keys() == {"mlflow.runName"}, "a refused tag was kept"

    def test_a_batch_is_logged_whole(self, store: Any, experiment: str) -> None:
        """Metrics, params and tags of one batch are all there, and logging it again changes nothing."""
        run_id = new_run(store, experiment)
        batch = ([Metric("m", 1.5, 1, 0)], [Param("p", "x")], [RunTag("t", "y")])
        store.log_batch(run_id, *batch)
        store.log_batch(run_id, *batch)
        data = store.get_run(run_id).data
        read = (data.metrics, data.params, data.tags.get("t"))
        assert read == ({"m": 1.5}, {"p": "x"}, "y"), f"a batch was read back as {read}"
        assert len(store.get_metric_history(run_id, "m")) == 1, "a repeated batch must not repeat its metric points"

    @pytest.mark.parametrize("kind", ["metrics", "params", "tags"])
    def test_the_limits_of_a_batch_hold(self, store: Any, experiment: str, kind: str) -> None:
        """1000 metrics, 100 params and 100 tags fit in a batch; one more raises `INVALID_PARAMETER_VALUE`."""
        run_id = new_run(store, experiment)
        count = {"metrics": 1001, "params": 101, "tags": 101}[kind]
        items: dict[str, list[Any]] = {"metrics": [], "params": [], "tags": []}
        make: dict[str, Any] = {
            "metrics": lambda i: Metric("m", float(i), i, i),
            "params": lambda i: Param(f"p{i}", "1"),
            "tags": lambda i: RunTag(f"t{i}", "1"),
        }
        items[kind] = [make[kind](i) for i in range(count)]
        with refused("INVALID_PARAMETER_VALUE", f"a batch with {count} {kind}"):
            store.log_batch(run_id, items["metrics"], items["params"], items["tags"])
        items[kind].pop()
        store.log_batch(run_id, items["metrics"], items["params"], items["tags"])
        data = store.get_run(run_id).data
        kept = len(store.get_metric_history(run_id, "m")) if kind == "metrics" else len(getattr(data, kind))
        wanted = count - 1 + (kind == "tags")  # the name of the run is a tag, too
        assert kept == wanted, f"a batch with {count - 1} {kind} must be kept whole, {kept} were kept"

    def test_a_batch_is_checked_before_it_is_written(self, store: Any, experiment: str) -> None:
        """When one part of a batch is invalid, nothing of it is written."""
        run_id = new_run(store, experiment)
        not_a_number: Any = "not a number"
        bad_metric = Metric("m", not_a_number, 1, 0)
        with refused("INVALID_PARAMETER_VALUE", "a batch with a metric that is no number"):
            store.log_batch(run_id, [Metric("good", 1.0, 1, 0), bad_metric], [Param("p", "1")], [RunTag("t", "1")])
        with refused("INVALID_PARAMETER_VALUE", "a batch with an empty tag key"):
            store.log_batch(run_id, [Metric("good", 1.0, 1, 0)], [Param("p", "1")], [RunTag("", "1")])
        data = store.get_run(run_id).data
        assert (data.metrics, data.params, data.tags.keys()) == ({}, {}, {"mlflow.runName"}), (
            f"an invalid batch must not be written in part: {data.metrics} {data.params} {data.tags}"
        )

    def test_a_batch_holds_each_param_once(self, store: Any, experiment: str) -> None:
        """Two values for one param in a batch raise `INVALID_PARAMETER_VALUE`, and neither is kept."""
        run_id = new_run(store, experiment)
        with refused("INVALID_PARAMETER_VALUE", "a batch with two values for one param"):
            store.log_batch(run_id, [], [Param("p", "1"), Param("p", "2")], [])
        assert store.get_run(run_id).data.params == {}, "a refused batch left one of its params"

    def test_threads_lose_no_param_and_no_tag(self, store: Any, experiment: str) -> None:
        """Eight threads that log different params and tags to one run lose none."""
        run_id = new_run(store, experiment)

        def work(number: int) -> None:
            store.log_batch(run_id, [], [Param(f"p{number}", str(number))], [])
            store.set_tag(run_id, RunTag(f"t{number}", str(number)))

        problems = errors_in(together(8, work))
        assert not problems, f"params and tags logged by eight threads at once must not fail: {problems}"
        data = store.get_run(run_id).data
        lost = [i for i in range(8) if data.params.get(f"p{i}") != str(i) or data.tags.get(f"t{i}") != str(i)]
        assert not lost, f"params or tags logged by eight threads at once were lost: {lost}"

    def test_of_many_threads_one_sets_the_param(self, store: Any, experiment: str) -> None:
        """When eight threads log different values of one param, one wins, and the others learn it."""
        run_id = new_run(store, experiment)
        results = together(8, lambda i: store.log_param(run_id, Param("p", str(i))))
        winners = [str(i) for i, r in enumerate(results) if r is None]
        kept = store.get_run(run_id).data.params.get("p")
        assert winners == [kept], (
            f"of eight threads that log one param exactly one must win; {winners} were told so, {kept} is kept"
        )

    def test_datasets_are_read_back(self, store: Any, experiment: str) -> None:
        """Datasets logged as inputs are read back with their tags; logging one again adds nothing."""
        run_id = new_run(store, experiment)
        store.log_inputs(run_id, datasets=[dataset_input("d1"), dataset_input("d2", context="test")])
        store.log_inputs(run_id, datasets=[dataset_input("d1")])
        inputs = sorted(store.get_run(run_id).inputs.dataset_inputs, key=lambda i: i.dataset.name)
        read = [(i.dataset.name, i.dataset.digest, i.dataset.source_type, i.tags[0].value) for i in inputs]
        assert read == [("d1", "1f", "local", "train"), ("d2", "1f", "local", "test")], (
            f"datasets were read back as {read}"
        )
