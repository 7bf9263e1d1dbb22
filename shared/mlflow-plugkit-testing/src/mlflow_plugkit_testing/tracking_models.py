"""Rules about logged models (MLflow 3)."""

from __future__ import annotations

from typing import Any

import pytest
from mlflow.entities import Metric

from mlflow_plugkit_testing.stores import all_pages, noting, refused
from mlflow_plugkit_testing.tracking_base import TrackingStoreSuite, mlflow_has, need, new_run

MISSING = "m-0123456789abcdef0123456789abcdef"

FILTERS = [
    ("name = 'a'", "a"),
    ("name LIKE 'b%'", "b"),
    ("params.p = '2'", "b"),
    ("tags.t = 'x'", "ab"),
    ("model_type = 'agent' AND tags.t = 'x'", "b"),
    ("metrics.acc > 0.5", "b"),
]


class LoggedModelRules(TrackingStoreSuite):
    """Creating, finalizing, tagging, deleting and searching logged models, and linking them to runs."""

    @pytest.fixture
    def models(self, store: Any) -> Any:
        """The store, where this MLflow and the plugin have logged models."""
        mlflow_has("create_logged_model", "logged models")
        need(self.supports_logged_models, "logged models")
        return store

    def test_a_logged_model_is_read_back(self, models: Any, experiment: str) -> None:
        """Name, type, run, tags and params of a new logged model are read back; it is pending."""
        from mlflow.entities import LoggedModelParameter, LoggedModelTag

        run_id = new_run(models, experiment)
        made = models.create_logged_model(
            experiment, "modél", run_id, [LoggedModelTag("t", "1")], [LoggedModelParameter("p", "2")], "agent"
        )
        model = models.get_logged_model(made.model_id)
        read = (model.name, model.model_type, model.source_run_id, model.tags, model.params, str(model.status))
        assert read == ("modél", "agent", run_id, {"t": "1"}, {"p": "2"}, "PENDING"), (
            f"a logged model was read back as {read}"
        )
        assert model.experiment_id == experiment, "a logged model was put in another experiment"
        assert model.model_id in model.artifact_location, "the artifact_location of a logged model must contain its id"

    def test_a_logged_model_without_a_name_gets_one(self, models: Any, experiment: str) -> None:
        """Without a name the store invents one."""
        assert models.create_logged_model(experiment).name, "a logged model without a name must get one"

    def test_bad_names_of_logged_models_are_refused(self, models: Any, experiment: str) -> None:
        """A name with a slash, colon, dot, percent sign or quote in it raises `INVALID_PARAMETER_VALUE`."""
        for name in ("a/b", "a:b", "a.b", "50%", "it's", 'a"b'):
            with refused("INVALID_PARAMETER_VALUE", f"a logged model named {name!r}"):
                models.create_logged_model(experiment, name)

    def test_a_logged_model_is_finalized(self, models: Any, experiment: str) -> None:
        """`finalize_logged_model`, which every `log_model` ends with, sets the status."""
        from mlflow.entities import LoggedModelStatus

        model_id = models.create_logged_model(experiment, "m").model_id
        assert models.finalize_logged_model(model_id, LoggedModelStatus.READY).status == LoggedModelStatus.READY, (
            "finalize_logged_model must return the model with its new status"
        )
        assert models.get_logged_model(model_id).status == LoggedModelStatus.READY, "the status was not kept"

    def test_tags_of_logged_models(self, models: Any, experiment: str) -> None:
        """Tags are set, overwritten by key and deleted."""
        from mlflow.entities import LoggedModelTag

        model_id = models.create_logged_model(experiment, "m", tags=[LoggedModelTag("a", "1")]).model_id
        models.set_logged_model_tags(model_id, [LoggedModelTag("a", "2"), LoggedModelTag("b", "3")])
        tags = models.get_logged_model(model_id).tags
        assert tags == {"a": "2", "b": "3"}, f"tags of a logged model must be overwritten by key: {tags}"
        models.delete_logged_model_tag(model_id, "a")
        assert models.get_logged_model(model_id).tags == {"b": "3"}, "delete_logged_model_tag left the tag in place"
        with refused("RESOURCE_DOES_NOT_EXIST", "deleting an unknown tag of a logged model"):
            models.delete_logged_model_tag(model_id, "a")

    @pytest.mark.parametrize("operation", ["get", "delete", "finalize", "set_tags"])
    def test_a_missing_logged_model_is_named_as_such(self, models: Any, operation: str) -> None:
        """An unknown model id raises `RESOURCE_DOES_NOT_EXIST`."""
        from mlflow.entities import LoggedModelStatus, LoggedModelTag

        call: Any = {
            "get": lambda: models.get_logged_model(MISSING),
            "delete": lambda: models.delete_logged_model(MISSING),
            "finalize": lambda: models.finalize_logged_model(MISSING, LoggedModelStatus.READY),
            "set_tags": lambda: models.set_logged_model_tags(MISSING, [LoggedModelTag("a", "1")]),
        }[operation]
        with refused("RESOURCE_DOES_NOT_EXIST", f"{operation} on an unknown logged model"):
            call()

    def test_a_deleted_logged_model_is_gone(self, models: Any, experiment: str) -> None:
        """A deleted logged model is neither read nor found."""
        gone, kept = (models.create_logged_model(experiment, name).model_id for name in ("gone", "kept"))
        models.delete_logged_model(gone)
        with refused("RESOURCE_DOES_NOT_EXIST", "get_logged_model of a deleted model"):
            models.get_logged_model(gone)
        found = [m.model_id for m in models.search_logged_models([experiment])]
        assert found == [kept], "search_logged_models found a deleted model, or lost another"

    def test_logged_models_are_linked_to_runs(self, models: Any, experiment: str) -> None:
        """`log_outputs` and `log_inputs` link logged models to a run."""
        from mlflow.entities import LoggedModelInput, LoggedModelOutput

        run_id = new_run(models, experiment)
        first, second = (models.create_logged_model(experiment, name).model_id for name in ("m1", "m2"))
        models.log_outputs(run_id, [LoggedModelOutput(first, 3)])
        models.log_inputs(run_id, models=[LoggedModelInput(second)])
        run = models.get_run(run_id)
        outputs = [(m.model_id, m.step) for m in run.outputs.model_outputs]
        inputs = [m.model_id for m in run.inputs.model_inputs]
        assert (outputs, inputs) == ([(first, 3)], [second]), f"linked models were read back as {outputs} and {inputs}"

    def test_metrics_belong_to_a_logged_model(self, models: Any, experiment: str) -> None:
        """A metric logged with a model_id is shown by that model, and by the run."""
        run_id = new_run(models, experiment)
        model_id = models.create_logged_model(experiment, "m", run_id).model_id
        models.log_batch(run_id, [Metric("acc", 0.5, 1, 0, model_id=model_id, run_id=run_id)], [], [])
        shown = [(m.key, m.value, m.run_id) for m in models.get_logged_model(model_id).metrics or []]
        assert shown == [("acc", 0.5, run_id)], f"a metric with a model_id must be shown by its model: {shown}"
        assert models.get_run(run_id).data.metrics == {"acc": 0.5}, (
            "a metric with a model_id must be shown by its run too"
        )

    def test_logged_models_are_searched(self, models: Any, experiment: str) -> None:
        """Filters on attributes, params, tags and metrics choose logged models."""
        from mlflow.entities import LoggedModelParameter, LoggedModelTag

        run_id = new_run(models, experiment)
        for name, value, acc, kind in (("a", "1", 0.1, "plain"), ("b", "2", 0.9, "agent")):
            model = models.create_logged_model(
                experiment, name, run_id, [LoggedModelTag("t", "x")], [LoggedModelParameter("p", value)], kind
            )
            point = Metric("acc", acc, 1, 0, model_id=model.model_id, run_id=run_id)
            models.log_batch(run_id, [point], [], [])
        models.create_logged_model(experiment, "c")
        wrong: list[str] = []
        for filter_string, wanted in FILTERS:
            with noting(wrong, filter_string):
                found = "".join(sorted(m.name for m in models.search_logged_models([experiment], filter_string)))
                assert found == wanted, f"found {found!r}, not {wanted!r}"
        assert not wrong, "filters that chose the wrong logged models: " + "; ".join(wrong)

    def test_pages_of_logged_models_cover_all_once(self, models: Any, experiment: str) -> None:
        """Pages hold at most max_results models and cover all exactly once, in the order asked for."""
        for name in "edbac":
            models.create_logged_model(experiment, name)
        order = [{"field_name": "name", "ascending": True}]
        pages = all_pages(
            lambda token: models.search_logged_models([experiment], max_results=2, order_by=order, page_token=token)
        )
        names = ["".join(m.name for m in page) for page in pages]
        assert names == ["ab", "cd", "e"], f"pages of logged models must cover all exactly once, in order: {names}"

    def test_bad_model_searches_are_refused(self, models: Any, experiment: str) -> None:
        """A filter that MLflow does not know raises `INVALID_PARAMETER_VALUE`."""
        for filter_string in ("colour.x = 'red'", "params.p > '1'", "name ="):
            with refused("INVALID_PARAMETER_VALUE", f"search_logged_models({filter_string!r})"):
                models.search_logged_models([experiment], filter_string)
