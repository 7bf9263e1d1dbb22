"""Tracking stores that are wrong, each in the way that its name says; all are MLflow's own store, sabotaged."""

from __future__ import annotations

import math
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

from mlflow.entities import Metric, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_plugkit_testing.stores_lazy import LazyTrackingStore
from mlflow_plugkit_testing.tracking import TrackingStoreConformance

sys.path.insert(0, str(Path(__file__).parent))

from sabotage import OnSqlite, backwards, deaf_to, permissive, rewriting, sabotaged, skipping, wrong_codes

ACCEPTED = "it was accepted"
WRONG = "it raised INTERNAL_ERROR"


class Broken(OnSqlite, TrackingStoreConformance):
    store_class = LazyTrackingStore


class TestWrongErrorCodes(Broken):
    store_class = sabotaged(LazyTrackingStore, wrong_codes)
    breaks = {
        "test_a_missing_experiment_is_named_as_such": "on an unknown experiment id must raise",
        "test_a_deleted_experiment_cannot_be_renamed": WRONG,
        "test_stages_are_not_left_twice": WRONG,
        "test_a_deleted_experiment_is_read_only": WRONG,
        "test_a_missing_run_is_named_as_such": "on an unknown run id must raise",
        "test_a_deleted_run_is_read_only": "on a deleted run must raise",
        "test_a_missing_logged_model_is_named_as_such": "on an unknown logged model must raise",
        "test_a_missing_trace_is_named_as_such": "on an unknown trace must raise",
        "test_an_assessment_needs_its_trace": WRONG,
    }


class TestEverythingIsAccepted(Broken):
    store_class = sabotaged(LazyTrackingStore, permissive)
    breaks = {
        "test_a_taken_name_is_refused": ACCEPTED,
        "test_bad_experiment_names_are_refused": ACCEPTED,
        "test_bad_new_experiment_names_are_refused": ACCEPTED,
        "test_bad_experiment_tags_are_refused": ACCEPTED,
        "test_bad_experiment_searches_are_refused": ACCEPTED,
        "test_bad_params_are_refused": ACCEPTED,
        "test_bad_tags_are_refused": ACCEPTED,
        "test_bad_metrics_are_refused": ACCEPTED,
        "test_bad_run_searches_are_refused": ACCEPTED,
        "test_bad_names_of_logged_models_are_refused": ACCEPTED,
        "test_bad_model_searches_are_refused": ACCEPTED,
        "test_bad_trace_searches_are_refused": ACCEPTED,
        "test_the_limits_of_a_batch_hold": ACCEPTED,
    }


class TestDeafToChanges(Broken):
    store_class = sabotaged(
        LazyTrackingStore,
        deaf_to(
            "rename_experiment", "delete_experiment_tag", "delete_run", "delete_tag", "update_run_info", "log_inputs",
            "log_param", "set_trace_tag", "delete_logged_model_tag", "delete_logged_model", "_hard_delete_run",
            "_hard_delete_experiment", "_hard_delete_logged_model", "log_logged_model_params", "log_outputs",
            "link_traces_to_run", "delete_assessment", "finalize_logged_model",
        ),
    )  # fmt: skip
    breaks = {
        "test_an_experiment_can_be_renamed": "rename_experiment did not change the name",
        "test_experiment_tags_can_be_deleted": "delete_experiment_tag left the tag in place",
        "test_runs_are_deleted_and_restored": "a deleted run must be in the stage 'deleted'",
        "test_tags_are_set_overwritten_and_deleted": "delete_tag left the tag in place",
        "test_datasets_are_read_back": "datasets were read back as []",
        "test_params_are_read_back": "params were read back changed",
        "test_trace_tags_are_set_overwritten_and_deleted": "tags of a trace must be overwritten by key",
        "test_a_deleted_logged_model_is_gone": ACCEPTED,
        "test_runs_are_deleted_for_good": ACCEPTED,
        "test_experiments_are_deleted_for_good": ACCEPTED,
        "test_logged_models_are_deleted_for_good": "_get_deleted_logged_models must list the deleted model",
        "test_params_are_added_to_a_logged_model": "must add to the model's params",
        "test_logged_models_are_linked_to_runs": "linked models were read back as",
        "test_traces_are_linked_to_a_run": "must be found by run_id",
        "test_assessments_are_updated_and_deleted": ACCEPTED,
    }


class TestBackwards(Broken):
    store_class = sabotaged(LazyTrackingStore, backwards)
    breaks = {
        "test_experiment_order": "experiments that came in the wrong order",
        "test_run_order": "runs that came in the wrong order",
        "test_nan_is_ordered_after_numbers": "came as",
        "test_the_order_is_global_over_experiments": "must be global over the experiments",
        "test_a_metric_history_comes_in_order": "must be ordered by (timestamp, step, value)",
        "test_histories_of_several_runs_come_together": "must go by run id, then time",
        "test_points_at_given_steps_are_found": "must be those of 1 and 2",
        "test_traces_are_searched": "filters that chose the wrong traces",
    }


class TestPagesSkipARow(Broken):
    store_class = sabotaged(LazyTrackingStore, skipping)
    breaks = {
        "test_experiment_pages_cover_all_once": "cover all exactly once",
        "test_run_pages_cover_all_once": "must have the sizes",
        "test_a_metric_history_comes_in_pages": "must cover every point once",
        "test_pages_of_logged_models_cover_all_once": "must cover all exactly once",
        "test_pages_of_traces_cover_all_once": "must cover all exactly once",
    }


class TestLikeForgetsTheCase(Broken):
    store_class = sabotaged(
        LazyTrackingStore,
        rewriting(of=("search_experiments", "search_runs", "search_logged_models"), a=(" LIKE ", " ILIKE ")),
    )
    breaks = {
        "test_experiment_filters": "filters that chose the wrong experiments",
        "test_run_filters": "run filters that chose the wrong runs",
    }


class TestFiltersAreIgnored(Broken):
    class store_class(LazyTrackingStore):
        def search_runs(self, experiment_ids, filter_string, *args, **kwargs):
            return super().search_runs(experiment_ids, "", *args, **kwargs)

        def search_logged_models(self, experiment_ids, filter_string=None, *args, **kwargs):
            return super().search_logged_models(experiment_ids, None, *args, **kwargs)

        def search_experiments(self, view_type=ViewType.ALL, *args, **kwargs):
            return super().search_experiments(ViewType.ALL, *args, **kwargs)

    breaks = {
        "test_run_ids_are_filtered": "the filter run_id = found",
        "test_logged_models_are_searched": "filters that chose the wrong logged models",
        "test_a_run_is_found_as_soon_as_it_is_written": "was not found right after it was written",
        "test_experiment_search_obeys_the_view": "search_experiments with view type",
    }


class TestSearchesTooMuch(Broken):
    class store_class(LazyTrackingStore):
        def search_runs(self, experiment_ids, filter_string, run_view_type, *args, **kwargs):
            all_ids = [e.experiment_id for e in self.search_experiments(ViewType.ALL)]
            found = super().search_runs(all_ids, filter_string, ViewType.ALL, *args, **kwargs)
            for run in found:
                run.data.params.clear()
            return found

    breaks = {
        "test_only_the_named_experiments_are_searched": "found a run of another experiment",
        "test_run_search_obeys_the_view": "search_runs with view type",
        "test_found_runs_are_whole": "must equal the run that get_run reads",
    }


class TestWorksInItsConstructor(Broken):
    class store_class(SqlAlchemyStore):
        def __init__(self, store_uri, artifact_uri=None):
            super().__init__(store_uri, str(artifact_uri))

        def restore_run(self, run_id):
            raise NotImplementedError

    breaks = {
        "test_the_constructor_only_parses": "the constructor must only parse its arguments",
        "test_without_an_artifact_uri_a_default_root_is_chosen": "must get a default root",
        "test_every_member_of_the_abstract_store_is_answered": "restore_run (NotImplementedError",
    }


class TestOtherConstructorArguments(Broken):
    def store_builder(self, uri):
        return lambda db_uri, root: LazyTrackingStore(db_uri, root)

    breaks = {"test_the_entry_point_takes_store_uri_and_artifact_uri_by_keyword": "does not take"}


class TestShowsItsSecret(Broken):
    secret_uri = ("sqlite:////srv/x.db?password=hunter2secret", "hunter2secret")

    class store_class(LazyTrackingStore):
        def __repr__(self):
            return f"Store({self._settings})"

    breaks = {"test_no_secret_is_shown": "the store shows its secret in repr or str"}


class TestIgnoresTheArtifactRoot(Broken):
    class store_class(LazyTrackingStore):
        def __init__(self, store_uri, artifact_uri=None):
            super().__init__(store_uri, "/elsewhere")

    breaks = {"test_the_given_artifact_root_is_used": "must lie below the artifact_uri"}


class TestKeepsACopyOfRuns(Broken):
    class store_class(LazyTrackingStore):
        def create_run(self, *args, **kwargs):
            run = super().create_run(*args, **kwargs)
            vars(self).setdefault("copies", {})[run.info.run_id] = run
            return run

        def get_run(self, run_id):
            return vars(self).get("copies", {}).get(run_id) or super().get_run(run_id)

    breaks = {
        "test_two_stores_on_one_uri_see_each_others_writes": "must be read at once",
        "test_run_info_can_be_updated": "after update_run_info the run was read back",
        "test_the_run_name_tag_renames_the_run": "must rename the run",
        "test_a_batch_is_logged_whole": "a batch was read back as",
        "test_asynchronous_logging_works": "asynchronous logging lost what was logged",
        "test_threads_lose_no_param_and_no_tag": "were lost",
        "test_of_many_threads_one_sets_the_param": "exactly one must win",
    }


class TestOnlyOneMayOpen(Broken):
    class store_class(LazyTrackingStore):
        opened: set[str] = set()

        def get_experiment(self, experiment_id):
            uri = self._settings[0]
            if "opened" not in vars(self):
                if uri in self.opened:
                    raise MlflowException("another store is on this URI")
                self.opened.add(uri)
                vars(self)["opened"] = True
            return super().get_experiment(experiment_id)

    breaks = {"test_eight_stores_may_be_used_first_at_the_same_time": "must all find the default experiment"}


class TestSharesARunBetweenThreads(Broken):
    class store_class(LazyTrackingStore):
        def set_tag(self, run_id, tag):
            last = vars(self).setdefault("last", SimpleNamespace(tag=None))
            last.tag = RunTag(tag.key, "the first thread's") if last.tag is None else last.tag
            return super().set_tag(run_id, last.tag)

    breaks = {"test_one_store_serves_many_threads": "must not disturb each other"}


class TestNarrowSignature(Broken):
    class store_class(LazyTrackingStore):
        def create_run(self, experiment_id, user_id, start_time, tags):
            return super().create_run(experiment_id, user_id, start_time, tags, "x")

    breaks = {"test_signatures_are_those_of_the_abstract_store": "create_run: has no parameter 'run_name'"}


class TestLosesConcurrentMetrics(Broken):
    class store_class(LazyTrackingStore):
        owner = None

        def log_metric(self, run_id, metric):
            me = threading.get_ident()
            if vars(self).setdefault("owner", me) == me:
                super().log_metric(run_id, metric)

    breaks = {"test_threads_lose_no_metric": "logged by eight threads at once were lost"}


class TestNoDefaultExperiment(Broken):
    class store_class(LazyTrackingStore):
        def search_experiments(self, *args, **kwargs):
            found = super().search_experiments(*args, **kwargs)
            found[:] = [e for e in found if e.experiment_id != "0"]
            return found

    breaks = {"test_the_default_experiment_exists": "must hold exactly the experiment '0'"}


class TestOwnExperimentIds(Broken):
    class store_class(LazyTrackingStore):
        def create_experiment(self, name, artifact_location=None, tags=None):
            return "exp-" + super().create_experiment(name, None, None)

    breaks = {"test_experiment_ids_are_numeric_strings": "must be a string of digits"}


class TestLosesExperimentArguments(Broken):
    class store_class(LazyTrackingStore):
        def create_experiment(self, name, artifact_location=None, tags=None):
            try:
                return super().create_experiment(name, None, None)
            except MlflowException:
                return self.get_experiment_by_name(name).experiment_id

        def get_experiment_by_name(self, experiment_name):
            found = super().get_experiment_by_name(experiment_name)
            return found if found and found.lifecycle_stage == "active" else None

        def set_experiment_tag(self, experiment_id, tag):
            if tag.key not in self.get_experiment(experiment_id).tags:
                super().set_experiment_tag(experiment_id, tag)

        def delete_experiment(self, experiment_id):
            super().delete_experiment(experiment_id)
            for run in self.search_runs([experiment_id], "", ViewType.ALL):
                self.restore_run(run.info.run_id)

    breaks = {
        "test_a_created_experiment_is_read_back": "a new experiment was read back as",
        "test_an_explicit_artifact_location_is_kept": "the explicit artifact_location was changed",
        "test_of_many_threads_one_gets_the_name": "exactly one must win",
        "test_an_experiment_is_found_by_its_name": "must find a deleted experiment too",
        "test_experiment_tags_are_set_and_overwritten": "tags of an experiment must be overwritten by key",
        "test_deletion_and_restoration_take_the_runs_along": "the runs of a deleted experiment must be deleted too",
    }


class TestLosesRunArguments(Broken):
    class store_class(LazyTrackingStore):
        def create_run(self, experiment_id, user_id, start_time, tags, run_name):
            tags = [t for t in tags if t.key != "mlflow.runName"]
            run = super().create_run(experiment_id, "nobody", start_time, tags, run_name or "x")
            if run_name is None:
                run.info._run_name = ""
            return run

    breaks = {
        "test_a_created_run_is_read_back": "a new run was read back as",
        "test_a_run_without_a_name_gets_one": "a run without a name must get one",
        "test_the_name_of_a_run_comes_from_its_tag_too": "the tag mlflow.runName must name a new run",
    }


class TestLastWriteWins(Broken):
    class store_class(LazyTrackingStore):
        def log_metric(self, run_id, metric):
            self.log_batch(run_id, [metric], [], [])

        def log_batch(self, run_id, metrics, params, tags):
            super().log_batch(run_id, metrics, params, tags)
            shown = vars(self).setdefault("shown", {})
            shown.update({(run_id, m.key): m.value for m in metrics})

        def get_run(self, run_id):
            run = super().get_run(run_id)
            shown = vars(self).get("shown", {})
            run.data._metrics = {k: shown.get((run_id, k), v) for k, v in run.data.metrics.items()}
            return run

    breaks = {
        "test_the_latest_metric_has_the_highest_step_time_and_value": "the latest metric of a run is the one with"
    }


class TestSmallNumbers(Broken):
    class store_class(LazyTrackingStore):
        def log_metric(self, run_id, metric):
            value = 0.0 if math.isnan(metric.value) else metric.value
            step = max(-(2**31), min(2**31 - 1, metric.step))
            timestamp = metric.timestamp + len(self.get_metric_history(run_id, metric.key)) * (metric.key == "m")
            super().log_metric(run_id, Metric(metric.key, value, timestamp, step))

    breaks = {
        "test_nan_and_infinities_are_kept": "a NaN metric was read back as",
        "test_steps_and_times_have_64_bits": "64-bit steps were read back as",
        "test_a_metric_history_holds_every_point_once": "must hold every point exactly once",
    }


class TestWholeHistoryAsSample(Broken):
    class store_class(LazyTrackingStore):
        def get_metric_history_bulk_interval(self, run_ids, metric_key, max_results, start_step, end_step):
            return self.get_metric_history_bulk(run_ids, metric_key, 1000)

    breaks = {"test_a_sample_of_a_history_is_bounded_and_keeps_its_ends": "a sample of 10 points must be bounded"}


class TestParamsChange(Broken):
    class store_class(LazyTrackingStore):
        def log_param(self, run_id, param):
            try:
                super().log_param(run_id, param)
            except MlflowException:
                vars(self)["changed"] = param

    breaks = {"test_a_param_does_not_change": "changing a param must raise"}


class TestWritesBatchesInParts(Broken):
    class store_class(LazyTrackingStore):
        def log_batch(self, run_id, metrics, params, tags):
            for metric in metrics:
                self.log_metric(run_id, metric)
            for param in params:
                self.log_param(run_id, param)
            for tag in tags:
                self.set_tag(run_id, tag)

    breaks = {
        "test_a_batch_is_checked_before_it_is_written": "must not be written in part",
        "test_a_batch_holds_each_param_once": "a refused batch left one of its params",
    }


class TestOddHiddenMethods(Broken):
    class store_class(LazyTrackingStore):
        def _search_datasets(self, experiment_ids):
            return super()._search_datasets(["0", *(e.experiment_id for e in self.search_experiments())])

        def _get_deleted_runs(self, older_than=0):
            return super()._get_deleted_runs()

    breaks = {
        "test_the_datasets_of_experiments_are_listed": "_search_datasets of one experiment listed",
        "test_deleted_runs_are_listed_for_gc": "must leave out runs deleted more recently",
    }


class TestForgetfulModels(Broken):
    class store_class(LazyTrackingStore):
        def create_logged_model(
            self, experiment_id, name=None, source_run_id=None, tags=None, params=None, *args, **kwargs
        ):
            model = super().create_logged_model(experiment_id, name, source_run_id, None, params, *args, **kwargs)
            if name is None:
                model._name = ""
            return model

        def finalize_logged_model(self, model_id, status):
            return self.get_logged_model(model_id)

        def set_logged_model_tags(self, model_id, tags):
            super().set_logged_model_tags(model_id, tags[:1])

        def log_batch(self, run_id, metrics, params, tags):
            super().log_batch(run_id, [Metric(m.key, m.value, m.timestamp, m.step) for m in metrics], params, tags)

    breaks = {
        "test_a_logged_model_is_read_back": "a logged model was read back as",
        "test_a_logged_model_without_a_name_gets_one": "a logged model without a name must get one",
        "test_a_logged_model_is_finalized": "must return the model with its new status",
        "test_tags_of_logged_models": "tags of a logged model must be overwritten by key",
        "test_metrics_belong_to_a_logged_model": "must be shown by its model",
    }


class TestForgetfulTraces(Broken):
    class store_class(LazyTrackingStore):
        def start_trace(self, trace_info):
            trace_info.request_preview = None
            return super().start_trace(trace_info)

        def delete_traces(self, *args, **kwargs):
            super().delete_traces(*args, **kwargs)
            return 0

        def log_spans(self, location, spans, tracking_uri=None):
            return super().log_spans(location, spans[:1], tracking_uri)

        def create_assessment(self, assessment):
            assessment.rationale = None
            return super().create_assessment(assessment)

    breaks = {
        "test_a_trace_is_read_back": "a trace was read back as",
        "test_traces_are_deleted": "delete_traces by id must return 1",
        "test_spans_are_read_back": "spans were read back as",
        "test_assessments_are_read_back": "feedback was read back as",
    }
