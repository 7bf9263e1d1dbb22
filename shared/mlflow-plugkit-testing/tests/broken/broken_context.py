"""Run context and default experiment providers that are wrong, each in the way that its name says."""

from __future__ import annotations

import os
import socket
import threading
import time

import pytest

from mlflow_plugkit_testing.context import DefaultExperimentProviderConformance, RunContextProviderConformance


class Context:
    def in_context(self):
        return "BROKEN_JOB" in os.environ

    def tags(self):
        return {"broken.job": os.environ["BROKEN_JOB"]}


class ContextRules(RunContextProviderConformance):
    provider_class = Context
    variables = ("BROKEN_JOB",)

    @pytest.fixture
    def configured(self, monkeypatch):
        monkeypatch.setenv("BROKEN_JOB", "42")
        return {"broken.job": "42"}


class TestValuesTakenAsTheyCome(ContextRules):
    breaks = {
        "test_tags_are_valid": "MLflow refuses the tag 'broken.job'",
        "test_tags_fit": "the value of 'broken.job' has 20000 characters",
        "test_no_secret_in_tags": "tags that show a secret with BROKEN_JOB=",
    }


class TestAlwaysActive(ContextRules):
    breaks = {"test_inactive_when_unconfigured": "although nothing is configured"}

    class provider_class(Context):
        def in_context(self):
            return True


class TestActiveByATruthyText(ContextRules):
    breaks = {"test_active_when_configured": "in_context() is '42' with the configuration present"}

    class provider_class(Context):
        def in_context(self):
            return os.environ.get("BROKEN_JOB")


class TestNumbersAsValues(ContextRules):
    breaks = {"test_tags_are_text": "tags whose key or value is no text: ['broken.job']"}

    class provider_class(Context):
        def tags(self):
            return {"broken.job": 42}


class TestKeyWithAColonAndASemicolon(ContextRules):
    breaks = {"test_tags_are_valid": "MLflow refuses the tag 'broken;job'"}

    class provider_class(Context):
        def tags(self):
            return {"broken;job": "42"}


class TestLongKey(ContextRules):
    breaks = {"test_tags_fit": "a tag's key has 251 characters"}

    class provider_class(Context):
        def tags(self):
            return {"k" * 251: "42"}


class TestTagsOfMlflow(ContextRules):
    breaks = {"test_mlflows_tags_are_left_alone": "tags of MLflow's own namespace, undeclared: ['mlflow.user']"}

    class provider_class(Context):
        def tags(self):
            return {"mlflow.user": "somebody"}


class TestTokenInATag(ContextRules):
    breaks = {"test_no_secret_in_tags": "tags that show a secret as configured: ['broken.token']"}

    class provider_class(Context):
        def tags(self):
            return {"broken.token": "ghp_0123456789abcdefghij0123456789abcdef"}


class TestTagsThatDependOnTheCaller(ContextRules):
    breaks = {"test_tags_land_on_the_run": "tags that did not land on a run started by mlflow.start_run"}

    class provider_class(Context):
        asked = False

        def in_context(self):
            asked, self.asked = self.asked, True
            return asked


class TestProviderThatRaises(ContextRules):
    breaks = {"test_never_raises": "in_context() or tags() raised in a hostile environment"}

    class provider_class(Context):
        def tags(self):
            return {"broken.job": str(int(os.environ["BROKEN_JOB"]))}


class TestSlowTags(ContextRules):
    breaks = {"test_tags_are_fast_on_repeat": "ms to each mlflow.start_run"}

    class provider_class(Context):
        def tags(self):
            time.sleep(0.06)
            return super().tags()


class TestTagsThatDifferBetweenThreads(ContextRules):
    breaks = {"test_threads_share_the_provider": "parallel threads get different tags"}

    class provider_class(Context):
        def tags(self):
            return {f"thread-{threading.get_ident()}": "1"}


class Experiment:
    def in_context(self):
        return "BROKEN_EXPERIMENT" in os.environ

    def get_experiment_id(self):
        return os.environ["BROKEN_EXPERIMENT"]


class ExperimentRules(DefaultExperimentProviderConformance):
    provider_class = Experiment
    variables = ("BROKEN_EXPERIMENT",)

    @pytest.fixture
    def configured(self, tracking_uri, monkeypatch):
        import mlflow

        experiment_id = mlflow.MlflowClient().create_experiment("broken")
        monkeypatch.setenv("BROKEN_EXPERIMENT", experiment_id)
        return experiment_id


class TestExperimentForEverybody(ExperimentRules):
    breaks = {"test_inactive_when_unconfigured": "although nothing is configured"}

    class provider_class(Experiment):
        def in_context(self):
            return True


class TestExperimentForNobody(ExperimentRules):
    breaks = {
        "test_active_when_configured": "with the configuration present",
        "test_runs_land_in_the_experiment": "mlflow.start_run landed in experiment 0",
    }

    class provider_class(Experiment):
        def in_context(self):
            return False


class TestExperimentProviderThatAsksAServer(ExperimentRules):
    breaks = {"test_asking_connects_nowhere": "although it is only asked"}

    class provider_class(Experiment):
        def in_context(self):
            with socket.socket() as s:
                s.connect_ex(("127.0.0.1", 9))
            return True


class TestNumberAsExperimentId(ExperimentRules):
    breaks = {"test_experiment_exists": "MLflow expects the id as text"}

    class provider_class(Experiment):
        def get_experiment_id(self):
            return int(super().get_experiment_id())


class TestNameInsteadOfTheExperimentId(ExperimentRules):
    breaks = {"test_experiment_exists": "an experiment that does not exist"}

    class provider_class(Experiment):
        def get_experiment_id(self):
            return "987654"


class TestNewExperimentForEachQuestion(ExperimentRules):
    breaks = {"test_answers_agree": "the provider names different experiments"}

    class provider_class(Experiment):
        lock = threading.Lock()

        def get_experiment_id(self):
            import mlflow

            with self.lock:
                return mlflow.MlflowClient().create_experiment(f"broken {time.perf_counter_ns()}")


class TestExperimentProviderThatRaises(ExperimentRules):
    breaks = {"test_never_raises": "in_context() raised with BROKEN_EXPERIMENT="}

    class provider_class(Experiment):
        def in_context(self):
            return int(os.environ["BROKEN_EXPERIMENT"]) >= 0


class TestSlowExperiment(ExperimentRules):
    breaks = {"test_answer_is_fast_on_repeat": "ms to each mlflow.start_run"}

    class provider_class(Experiment):
        def get_experiment_id(self):
            time.sleep(0.3)
            return super().get_experiment_id()
