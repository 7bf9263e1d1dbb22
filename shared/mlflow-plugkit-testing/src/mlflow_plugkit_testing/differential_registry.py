"""The state machine of the model registry."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import Bundle, initialize, multiple, rule
from mlflow.entities.model_registry import ModelVersionTag, RegisteredModelTag

from mlflow_plugkit_testing.differential import DifferentialMachine, pages_of

NAMES = st.sampled_from(["alpha", "alpha", "Alpha", "beta_1 ü", ""])
TEXTS = st.sampled_from(["one", "One", "two", "größer", "a'b", ""])
KEYS = st.sampled_from(["t", "k.a-b"])
ALIASES = st.sampled_from(["champion", "Challenger", "latest", "v1", "a b"])
STAGES = st.sampled_from(["Staging", "Production", "Archived", "None", "production", "Nowhere"])
SIZES = st.sampled_from([1, 2, 1000])


def version_shown(version: Any) -> tuple[Any, ...]:
    """A model version in the form that is compared: without its clock."""
    return (
        (version.name, str(version.version), version.current_stage, version.description or ""),
        (version.source, version.run_id, version.status),
        dict(sorted(version.tags.items())),
        sorted(version.aliases or []),
    )


def found_shown(version: Any) -> tuple[Any, ...]:
    """A model version found by a search: MLflow's own store leaves the aliases out there."""
    return version_shown(version)[:3]


def model_shown(model: Any) -> tuple[Any, ...]:
    """A registered model in the form that is compared, with its latest versions in the order of stages."""
    latest = sorted((v.current_stage, str(v.version)) for v in model.latest_versions or [])
    aliases = {alias: str(version) for alias, version in sorted((model.aliases or {}).items())}
    return model.name, model.description or "", dict(sorted(model.tags.items())), aliases, latest


class RegistryMachine(DifferentialMachine):
    """Operations on registered models and their versions; a name or a version may be unknown, or a bad one.

    Each sequence starts with the models "alpha", with two versions, and "Alpha", with one.
    """

    names = Bundle("names")
    versions = Bundle("versions")

    def __init__(self) -> None:
        super().__init__()
        for name, count in (("alpha", 2), ("Alpha", 1)):
            self.create_registered_model(name, [("t", "One")], None)
            for _ in range(count):
                self.create_model_version(name, "run1", "one")

    def audit(self) -> None:
        """Ask for all models and versions, by filters, orders and pages, and by aliases."""
        for filter_string in (None, "name LIKE 'a%'", "name ILIKE 'a%'", "tags.t != 'one'"):
            self.search_registered_models(filter_string, ["name DESC"], 1 if filter_string is None else 1000)
        for filter_string in (None, "name LIKE 'a%'", "run_id = 'run1'", "tags.t = 'one'"):
            order = ["version_number DESC", "name ASC"]
            self.search_model_versions(filter_string, order, 2 if filter_string is None else 1000)
        for name in ("alpha", "absent"):
            self.get_latest_versions(name, None)
            self.use_alias(name, "champion", False)
        self.get_model_version(("alpha", 1))

    @initialize(target=names)
    def start_names(self) -> Any:
        """Name the models that both registries have, and one that none has."""
        return multiple("alpha", "Alpha", "absent")

    @initialize(target=versions)
    def start_versions(self) -> Any:
        """Name the versions that both registries have, and some that none has."""
        return multiple(("alpha", 1), ("alpha", 2), ("Alpha", 1), ("absent", 1), ("alpha", "x"))

    @rule(target=names, name=NAMES, tags=st.lists(st.tuples(KEYS, TEXTS), max_size=2), description=st.none() | TEXTS)
    def create_registered_model(self, name: str, tags: list[Any], description: str | None) -> Any:
        """Create a registered model; the name may be taken or empty."""
        all_tags = [RegisteredModelTag(*t) for t in tags]
        made = self.pair.same(
            "create_registered_model",
            lambda s: model_shown(s.store.create_registered_model(name, all_tags, description)),
        )
        return multiple() if made is None else multiple(name, name, name)

    @rule(name=names, description=TEXTS)
    def update_registered_model(self, name: str, description: str) -> None:
        """Describe a registered model."""
        self.pair.same(
            "update_registered_model", lambda s: model_shown(s.store.update_registered_model(name, description))
        )

    @rule(target=names, name=names, new=NAMES)
    def rename_registered_model(self, name: str, new: str) -> Any:
        """Rename a registered model; the name may be taken, empty or its own."""
        self.pair.same("rename_registered_model", lambda s: model_shown(s.store.rename_registered_model(name, new)))
        self._read(new)
        return new

    @rule(name=names, key=KEYS, value=TEXTS, delete=st.booleans())
    def tag_registered_model(self, name: str, key: str, value: str, delete: bool) -> None:
        """Set or delete a tag of a registered model."""
        if delete:
            self.pair.same("delete_registered_model_tag", lambda s: s.store.delete_registered_model_tag(name, key))
        else:
            tag = RegisteredModelTag(key, value)
            self.pair.same("set_registered_model_tag", lambda s: s.store.set_registered_model_tag(name, tag))
        self._read(name)

    @rule(target=versions, name=names, run=st.sampled_from([None, "run1", "run2"]), tag=st.none() | TEXTS)
    def create_model_version(self, name: str, run: str | None, tag: str | None) -> Any:
        """Create the next version."""
        tags = [] if tag is None else [ModelVersionTag("t", tag)]
        made = self.pair.same(
            "create_model_version",
            lambda s: version_shown(s.store.create_model_version(name, "s3://b/m", run, tags)),
        )
        if made is None:
            return multiple()
        version = (name, int(made[0][1]))
        return multiple(version, version, version)

    @rule(version=versions, description=TEXTS)
    def update_model_version(self, version: tuple[str, Any], description: str) -> None:
        """Describe a version."""
        self.pair.same(
            "update_model_version",
            lambda s: version_shown(s.store.update_model_version(*version, description)),
        )

    @rule(version=versions, stage=STAGES, archive=st.booleans())
    def transition_model_version_stage(self, version: tuple[str, Any], stage: str, archive: bool) -> None:
        """Move a version to a stage."""
        self.pair.same(
            "transition_model_version_stage",
            lambda s: version_shown(s.store.transition_model_version_stage(*version, stage, archive)),
        )
        self._read(version[0])

    @rule(version=versions, whole=st.booleans())
    def delete(self, version: tuple[str, Any], whole: bool) -> None:
        """Delete a version, whose number is not used again and whose aliases go; or the whole model."""
        if whole:
            self.pair.same("delete_registered_model", lambda s: s.store.delete_registered_model(version[0]))
        else:
            self.pair.same("delete_model_version", lambda s: s.store.delete_model_version(*version))
        self._read(version[0])

    @rule(version=versions, key=KEYS, value=TEXTS, delete=st.booleans())
    def tag_model_version(self, version: tuple[str, Any], key: str, value: str, delete: bool) -> None:
        """Set or delete a tag of a version."""
        if delete:
            self.pair.same("delete_model_version_tag", lambda s: s.store.delete_model_version_tag(*version, key))
        else:
            tag = ModelVersionTag(key, value)
            self.pair.same("set_model_version_tag", lambda s: s.store.set_model_version_tag(*version, tag))
        self.get_model_version(version)

    @rule(alias=ALIASES, version=versions)
    def set_registered_model_alias(self, alias: str, version: tuple[str, Any]) -> None:
        """Set an alias, which may be reserved or a bad one, and which another version may have."""
        self.pair.same(
            "set_registered_model_alias", lambda s: s.store.set_registered_model_alias(version[0], alias, version[1])
        )
        self._read(version[0])

    @rule(name=names, alias=ALIASES, delete=st.booleans())
    def use_alias(self, name: str, alias: str, delete: bool) -> None:
        """Delete an alias, or follow it."""
        if delete:
            self.pair.same(
                "delete_registered_model_alias", lambda s: s.store.delete_registered_model_alias(name, alias)
            )
        self.pair.same(
            "get_model_version_by_alias", lambda s: version_shown(s.store.get_model_version_by_alias(name, alias))
        )

    @rule(version=versions)
    def get_model_version(self, version: tuple[str, Any]) -> None:
        """Read a version and its download URI."""
        self.pair.same("get_model_version", lambda s: version_shown(s.store.get_model_version(*version)))
        self.pair.same("get_model_version_download_uri", lambda s: s.store.get_model_version_download_uri(*version))

    @rule(name=names, stages=st.none() | st.lists(STAGES, max_size=2))
    def get_latest_versions(self, name: str, stages: list[str] | None) -> None:
        """Read the latest versions of some stages, in any order."""
        self.pair.same(
            "get_latest_versions",
            lambda s: sorted(str(version_shown(v)) for v in s.store.get_latest_versions(name, stages)),
        )

    @rule(
        filter_string=st.sampled_from(
            [
                None,
                "name = 'alpha'",
                "name LIKE 'a%'",
                "name ILIKE 'a%'",
                "tags.t = 'one'",
                "tags.t != 'one'",
                "x = 'y'",
            ]
        ),
        order_by=st.sampled_from([None, ["name DESC"], ["last_updated_timestamp DESC"], ["timestamp ASC"], ["x ASC"]]),
        size=SIZES,
    )
    def search_registered_models(self, filter_string: str | None, order_by: Any, size: int) -> None:
        """Search registered models, page by page."""
        self.pair.same(
            "search_registered_models",
            lambda s: pages_of(
                lambda token: s.store.search_registered_models(filter_string, size, order_by, token), model_shown
            ),
        )

    @rule(
        filter_string=st.sampled_from(
            [
                None,
                "name = 'alpha'",
                "name LIKE 'a%'",
                "run_id = 'run1'",
                "run_id IN ('run1', 'run2')",
                "tags.t = 'one'",
                "version_number > 1",
                "name = 'alpha' AND version_number <= 2",
                "x = 'y'",
            ]
        ),
        order_by=st.sampled_from(
            [None, ["name ASC", "version_number ASC"], ["version_number DESC", "name ASC"], ["creation_timestamp ASC"]]
        ),
        size=SIZES,
    )
    def search_model_versions(self, filter_string: str | None, order_by: Any, size: int) -> None:
        """Search model versions, page by page."""
        self._search_versions(filter_string, order_by, size)

    def _search_versions(self, filter_string: str | None, order_by: Any, size: int) -> None:
        self.pair.same(
            "search_model_versions",
            lambda s: pages_of(
                lambda token: s.store.search_model_versions(filter_string, size, order_by, token), found_shown
            ),
        )

    def _read(self, name: str) -> None:
        self._search_versions(None, None, 1000)
        self.pair.same("get_registered_model", lambda s: model_shown(s.store.get_registered_model(name)))
