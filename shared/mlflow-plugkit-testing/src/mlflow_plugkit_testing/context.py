"""Conformance of run context providers and default experiment providers.

Entry points `mlflow.run_context_provider` and `mlflow.default_experiment_provider`. MLflow asks them at each
`mlflow.start_run` and swallows what they raise (mlflow/tracking/context/registry.py and
mlflow/tracking/default_experiment/registry.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest

from mlflow_plugkit.uri import redact_text
from mlflow_plugkit_testing.local import LocalTracking
from mlflow_plugkit_testing.providers import (
    PLANTED_PASSWORD,
    ContextualProviderConformance,
    hostile_environments,
    in_threads,
    median_seconds,
    must_not_raise,
    recorded_io,
    registered_provider,
)

TAGS_SECONDS = 0.05
EXPERIMENT_SECONDS = 0.25


class RunContextProviderConformance(LocalTracking, ContextualProviderConformance):
    """The rules for a run context provider.

    Override `entry_point_name` (or `provider_class`), `variables`, and the fixture `configured`, which makes
    the provider active and returns the tags that a run must have, or None where they are not known.
    """

    entry_point_group: ClassVar[str] = "mlflow.run_context_provider"
    variables: ClassVar[tuple[str, ...]] = ()
    mlflow_tags: ClassVar[frozenset[str]] = frozenset()
    """The tags of MLflow's own namespace `mlflow.` that the provider sets on purpose."""

    @contextmanager
    def in_use(self) -> Iterator[Any]:
        """Register a new provider with MLflow."""
        from mlflow.tracking.context.registry import _run_context_provider_registry as registry

        self.reset()
        provider = self.make_provider()
        with registered_provider(registry, self.provider_class, provider):
            yield provider

    def tags_everywhere(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, dict[str, str]]]:
        """The provider's tags as configured, then in each hostile environment."""
        yield "as configured", self._tags()
        for where in hostile_environments(self.variables, monkeypatch):
            self.reset()
            yield where, self._tags()

    def _tags(self) -> dict[str, str]:
        provider = self.make_provider()
        return dict(provider.tags()) if provider.in_context() else {}

    def test_tags_are_text(self, configured: Mapping[str, str] | None) -> None:
        """`tags()` returns a dictionary of text."""
        tags = self.make_provider().tags()
        assert isinstance(tags, dict), f"tags() returned a {type(tags).__name__}, not a dict"
        wrong = [key for key, value in tags.items() if not isinstance(key, str) or not isinstance(value, str)]
        assert not wrong, f"tags whose key or value is no text: {wrong}"

    def test_tags_are_valid(self, configured: Mapping[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Each key passes mlflow.utils.validation; whatever the environment says."""
        from mlflow.exceptions import MlflowException
        from mlflow.utils.validation import _validate_tag_name

        for where, tags in self.tags_everywhere(monkeypatch):
            for key, value in tags.items():
                try:
                    _validate_tag_name(key)
                    value.encode()
                except (MlflowException, UnicodeEncodeError) as exc:
                    raise AssertionError(f"MLflow refuses the tag {key!a} {where}: {exc}") from exc

    def test_tags_fit(self, configured: Mapping[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Keys and values keep MLflow's limits; SQLite takes longer ones, a server's database does not."""
        from mlflow.utils.validation import MAX_ENTITY_KEY_LENGTH, MAX_TAG_VAL_LENGTH

        for where, tags in self.tags_everywhere(monkeypatch):
            for key, value in tags.items():
                assert len(key) <= MAX_ENTITY_KEY_LENGTH, f"a tag's key has {len(key)} characters {where}"
                assert len(value) <= MAX_TAG_VAL_LENGTH, f"the value of {key!r} has {len(value)} characters {where}"

    def test_mlflows_tags_are_left_alone(self, configured: Mapping[str, str] | None) -> None:
        """Later providers overwrite earlier ones: only tags named in `mlflow_tags` may start with `mlflow.`."""
        taken = sorted(k for k in self.make_provider().tags() if k.startswith("mlflow.") and k not in self.mlflow_tags)
        assert not taken, f"tags of MLflow's own namespace, undeclared: {taken}; name them in mlflow_tags or rename"

    def test_no_secret_in_tags(self, configured: Mapping[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Tags are shown to everyone who may see the run: no passwords of URLs, tokens, keys."""
        for where, tags in self.tags_everywhere(monkeypatch):
            shown = [k for k, v in tags.items() if PLANTED_PASSWORD in v or redact_text(v) != v]
            assert not shown, f"tags that show a secret {where}: {shown}"

    def test_tags_land_on_the_run(self, tracking_uri: str, configured: Mapping[str, str] | None) -> None:
        """A run started by `mlflow.start_run` has the provider's tags."""
        import mlflow

        with self.in_use() as provider:
            wanted = dict(configured) if configured is not None else provider.tags()
            with mlflow.start_run() as run:
                pass
        found = mlflow.get_run(run.info.run_id).data.tags
        missing = sorted(k for k, v in wanted.items() if found.get(k) != v)
        assert wanted, "there is no tag to look for: return the expected tags from the fixture 'configured'"
        assert not missing, f"tags that did not land on a run started by mlflow.start_run: {missing}"

    def test_never_raises(self, configured: Mapping[str, str] | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """MLflow swallows what a provider raises, and the run goes without its tags; so it must not raise."""
        with must_not_raise("in_context() or tags() raised in a hostile environment"):
            for _ in self.tags_everywhere(monkeypatch):
                pass

    def test_tags_are_fast_on_repeat(self, configured: Mapping[str, str] | None) -> None:
        """Each `start_run` asks: once warm, the median of `in_context()` and `tags()` is under 50 ms."""
        provider = self.make_provider()
        spent = median_seconds(lambda: (provider.in_context(), provider.tags()), times=11)
        assert spent < TAGS_SECONDS, f"the provider adds {spent * 1000:.0f} ms to each mlflow.start_run"

    def test_threads_share_the_provider(self, configured: Mapping[str, str] | None) -> None:
        """Sixteen threads that start runs at once get the same tags."""
        provider = self.make_provider()
        with must_not_raise("a thread failed while another one used the provider"):
            tags = in_threads(lambda: sorted(provider.tags()) if provider.in_context() else None)
        assert all(t == tags[0] for t in tags), "parallel threads get different tags from one provider"


class DefaultExperimentProviderConformance(LocalTracking, ContextualProviderConformance):
    """The rules for a default experiment provider.

    Override `entry_point_name` (or `provider_class`), `variables`, and the fixture `configured`, which takes
    the fixture `tracking_uri`, makes the provider active and returns the expected experiment id, or None.
    """

    entry_point_group: ClassVar[str] = "mlflow.default_experiment_provider"
    variables: ClassVar[tuple[str, ...]] = ()

    @contextmanager
    def in_use(self) -> Iterator[Any]:
        """Register a new provider with MLflow."""
        from mlflow.tracking.default_experiment.registry import _default_experiment_provider_registry as registry

        self.reset()
        provider = self.make_provider()
        with registered_provider(registry, self.provider_class, provider):
            yield provider

    def test_asking_connects_nowhere(self, tracking_uri: str, configured: str | None) -> None:
        """`in_context()` runs at each start_run, also where another provider wins: it opens no connection."""
        provider = self.make_provider()
        with recorded_io(files=False) as done:
            provider.in_context()
        assert not done, f"in_context() does input and output, although it is only asked: {done}"

    def test_experiment_exists(self, tracking_uri: str, configured: str | None) -> None:
        """`get_experiment_id()` returns the id, as text, of an experiment in the current store."""
        import mlflow
        from mlflow.exceptions import MlflowException

        found = self.make_provider().get_experiment_id()
        assert isinstance(found, str), f"get_experiment_id() returned {found!r}; MLflow expects the id as text"
        try:
            experiment = mlflow.MlflowClient().get_experiment(found)
        except MlflowException as exc:
            raise AssertionError(f"get_experiment_id() returned {found!r}, an experiment that does not exist") from exc
        assert experiment.lifecycle_stage == "active", f"experiment {found} is deleted: no run can start in it"

    def test_runs_land_in_the_experiment(self, tracking_uri: str, configured: str | None) -> None:
        """`mlflow.start_run` without an experiment lands in the provider's."""
        import mlflow

        with self.in_use() as provider:
            wanted = configured if configured is not None else provider.get_experiment_id()
            with mlflow.start_run() as run:
                pass
        assert run.info.experiment_id == wanted, (
            f"mlflow.start_run landed in experiment {run.info.experiment_id}, not in {wanted}"
        )

    def test_answers_agree(self, tracking_uri: str, configured: str | None) -> None:
        """Asked again, by another instance, and by parallel threads, the provider names the same experiment."""
        first = self.make_provider()
        with must_not_raise("a thread failed while another one asked for the experiment"):
            found = {first.get_experiment_id(), self.make_provider().get_experiment_id()}
            found |= set(in_threads(first.get_experiment_id))
        assert len(found) == 1, f"the provider names different experiments: {sorted(map(str, found))}"

    def test_never_raises(self, tracking_uri: str, configured: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """An active provider that raises makes MLflow fall back silently; an unusable value means not active."""
        for where in hostile_environments(self.variables, monkeypatch):
            self.reset()
            with must_not_raise(f"in_context() raised {where}"):
                self.make_provider().in_context()

    def test_answer_is_fast_on_repeat(self, tracking_uri: str, configured: str | None) -> None:
        """Each `start_run` asks: once warm, the median is under 250 ms."""
        provider = self.make_provider()
        spent = median_seconds(lambda: (provider.in_context(), provider.get_experiment_id()), times=5)
        assert spent < EXPERIMENT_SECONDS, f"the provider adds {spent * 1000:.0f} ms to each mlflow.start_run"
