"""Conformance of dataset sources and constructors.

Entry points `mlflow.dataset_source` (a DatasetSource class) and `mlflow.dataset_constructor` (a function
`from_...` or `load_...`). MLflow loads both during `import mlflow`, and asks each source class about each raw
source (mlflow/data/dataset_source_registry.py, mlflow/data/dataset_registry.py).
"""

from __future__ import annotations

import inspect
import json
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, ClassVar

import pytest

from mlflow_plugkit_testing.local import LocalTracking
from mlflow_plugkit_testing.providers import must_not_raise

FOREIGN = (
    "https://example.com/data.csv", "http://example.com/data.csv", "s3://bucket/data.csv", "gs://bucket/data.csv",
    "abfss://container@account.dfs.core.windows.net/data.csv", "dbfs:/data.csv", "hdfs://host/data.csv",
    "ftp://host/data.csv", "sftp://host/data.csv", "models:/model/1", "runs:/0123/data.csv", "file:///data.csv",
    "/data/data.csv", "data.csv", "catalog.schema.table@2", " ", "\x00", "://", ":", "\udcff",
)  # fmt: skip
MAX_DIGEST, MAX_SOURCE, MAX_NAME = 36, 65535, 500
"""From mlflow.utils.validation: MAX_DATASET_DIGEST_SIZE, MAX_DATASET_SOURCE_SIZE, MAX_DATASET_NAME_SIZE."""


class DatasetSourceConformance(LocalTracking):
    """The rules for a dataset source and its constructor.

    Override `source_type`, `constructor_name`, and the fixtures `raw_source` and `secret_source`; for classes
    without entry points also `source_class` and `constructor`:

        class TestDatasets(DatasetSourceConformance):
            source_type = "demo"
            constructor_name = "from_demo"

            @pytest.fixture
            def raw_source(self, tmp_path):
                (tmp_path / "data.csv").write_text("a")
                return f"demo:{tmp_path}/data.csv"

            @pytest.fixture
            def secret_source(self, raw_source):
                return raw_source + "?token=s3cret-token", "s3cret-token"
    """

    source_type: ClassVar[str] = ""
    """What `_get_source_type()` returns."""
    constructor_name: ClassVar[str] = ""
    """The name of the entry point of the constructor, such as `from_demo`; empty where there is none."""
    claims: ClassVar[tuple[str, ...]] = ()
    """Prefixes of raw sources that the plugin takes over on purpose, such as `s3://`."""

    @property
    def source_class(self) -> type[Any]:
        """The class under test. By default the one that MLflow's registry knows by `source_type`."""
        found = [s for s in _sources() if s._get_source_type() == self.source_type]
        if not found:
            pytest.fail(f"MLflow knows no dataset source of type {self.source_type!r}; is its distribution installed?")
        cls: type[Any] = found[-1]
        return cls

    @property
    def constructor(self) -> Callable[..., Any] | None:
        """The constructor under test. By default what `mlflow.data` shows under `constructor_name`."""
        import mlflow.data

        return getattr(mlflow.data, self.constructor_name, None) if self.constructor_name else None

    @property
    def may_hold_secrets(self) -> bool:
        """Whether a raw source can hold a password or token. Then `secret_source` is needed."""
        return True

    @pytest.fixture
    def raw_source(self, tmp_path: Path) -> Any:
        """A raw source whose data exists. Override it."""
        raise NotImplementedError("override the fixture 'raw_source' of the conformance suite")

    @pytest.fixture
    def secret_source(self, tmp_path: Path) -> tuple[Any, str]:
        """A raw source that holds a secret, and the secret. Override it, or set `may_hold_secrets` to False."""
        raise NotImplementedError("override the fixture 'secret_source', or set may_hold_secrets = False")

    @pytest.fixture(autouse=True)
    def _registered(self) -> Iterator[None]:
        with registered_source(self.source_class), registered_constructor(self.constructor_name, self.constructor):
            yield

    def make_dataset(self, raw_source: Any, **kwargs: Any) -> Any:
        """A dataset as users make it: by the constructor, or MLflow's MetaDataset where there is none."""
        import mlflow.data
        from mlflow.data.meta_dataset import MetaDataset

        if not self.constructor_name:
            source = self.source_class._resolve(raw_source)
            return MetaDataset(source, **kwargs)  # type: ignore[abstract] # MLflow's own class leaves `profile` out
        return getattr(mlflow.data, self.constructor_name)(raw_source, **kwargs)

    def check_loaded(self, loaded: Any) -> None:
        """Look at what `load()` returned; override it to compare the content."""
        assert loaded is not None, "load() returned None; MLflow expects a local path or the data"
        if isinstance(loaded, (str, os.PathLike)):
            assert Path(loaded).exists(), f"load() returned the path {loaded}, which does not exist"

    def test_source_type_is_unique(self) -> None:
        """`_get_source_type()` can be asked of the class, and names no other source of MLflow's registry."""
        with must_not_raise("_get_source_type() cannot be called on the class; MLflow asks the class"):
            name = self.source_class._get_source_type()
        assert isinstance(name, str), f"_get_source_type() returned {name!r}, which is no text"
        assert name, "_get_source_type() is empty"
        rivals = [s.__name__ for s in _sources() if s is not self.source_class and s._get_source_type() == name]
        assert not rivals, f"the source type {name!r} belongs to {rivals} as well; stored datasets would be mixed up"

    def test_own_sources_are_resolved(self, raw_source: Any) -> None:
        """MLflow resolves a raw source of the plugin to the plugin's class, and finds it in no doubt."""
        from mlflow.data.dataset_source_registry import resolve_dataset_source

        answer = self.source_class._can_resolve(raw_source)
        assert answer is True, f"_can_resolve is {answer!r} for the plugin's own source {raw_source!r}"
        with warnings.catch_warnings(record=True) as caught, must_not_raise("MLflow cannot resolve the source"):
            warnings.simplefilter("always")
            source = resolve_dataset_source(raw_source)
        assert type(source) is self.source_class, f"MLflow resolved {raw_source!r} to a {type(source).__name__}"
        doubts = [str(w.message) for w in caught if "multiple ways" in str(w.message)]
        assert not doubts, f"MLflow warns users of the plugin: {doubts}"

    def test_foreign_sources_are_left_alone(self, raw_source: Any) -> None:
        """The last registered class wins: what belongs to others, or only looks similar, is not claimed."""
        foreign = [f for f in FOREIGN if not f.startswith(self.claims or ("\x00",))]
        if isinstance(raw_source, str) and ":" in raw_source:
            scheme, _, rest = raw_source.partition(":")
            foreign += [f"{scheme}x:{rest}", f"x{raw_source}", scheme]
        with must_not_raise("_can_resolve raised"):
            taken = [f for f in foreign if self.source_class._can_resolve(f)]
        assert not taken, f"_can_resolve claims sources of others: {taken}"

    def test_any_object_can_be_asked_about(self) -> None:
        """MLflow asks about whatever a user passes; raising makes it warn every user of every other source."""
        import numpy
        import pandas

        objects: tuple[Any, ...] = (
            None,
            7,
            1.5,
            b"x",
            [],
            {},
            (),
            object(),
            pandas.DataFrame({"a": [1, 2]}),
            numpy.zeros((2, 2)),
        )
        for thing in objects:
            with must_not_raise(f"_can_resolve raised for a {type(thing).__name__}"):
                answer = self.source_class._can_resolve(thing)
            assert answer is False, f"_can_resolve is {answer!r} for a {type(thing).__name__}; MLflow expects False"

    def test_dictionary_round_trip(self, raw_source: Any) -> None:
        """`to_dict` gives what JSON can hold, and `from_dict` makes an equal source of it."""
        source = self.source_class._resolve(raw_source)
        given = source.to_dict()
        with must_not_raise("to_dict() returned what JSON cannot hold"):
            through = json.loads(json.dumps(given))
        assert through == given, f"to_dict() does not survive JSON: {given!r} became {through!r}"
        again = self.source_class.from_dict(through)
        assert type(again) is self.source_class, f"from_dict returned a {type(again).__name__}"
        assert again.to_dict() == given, f"from_dict(to_dict()) became {again.to_dict()!r} instead of {given!r}"

    def test_registry_reads_it_back(self, raw_source: Any) -> None:
        """MLflow finds the class by the stored source type and reads the stored JSON."""
        from mlflow.data.dataset_source_registry import get_dataset_source_from_json

        source = self.source_class._resolve(raw_source)
        with must_not_raise("MLflow cannot read the stored source back"):
            again = get_dataset_source_from_json(source.to_json(), source._get_source_type())
        assert type(again) is self.source_class, f"the stored source was read as a {type(again).__name__}"
        assert again.to_dict() == source.to_dict(), "the stored source was read back with other values"

    def test_load_returns_the_data(self, raw_source: Any) -> None:
        """`load()` returns a local path or the data, also after a round trip through JSON."""
        source = self.source_class._resolve(raw_source)
        for loading in (source, self.source_class.from_json(source.to_json())):
            with must_not_raise("load() raised although the data exists"):
                loaded = loading.load()
            self.check_loaded(loaded)

    def test_constructor_is_well_formed(self) -> None:
        """mlflow.data.dataset_registry asks for `from_` or `load_`, `name` and `digest`, and a class as annotation."""
        if not self.constructor_name:
            pytest.skip("the plugin has no dataset constructor")
        from mlflow.data.dataset import Dataset

        assert self.constructor_name.startswith(("from_", "load_")), (
            f"the constructor is called {self.constructor_name!r}; MLflow refuses names without from_ or load_"
        )
        assert self.constructor is not None, f"there is no mlflow.data.{self.constructor_name}: MLflow refused it"
        signature = inspect.signature(self.constructor)
        missing = {"name", "digest"} - signature.parameters.keys()
        assert not missing, f"the constructor lacks the parameters {sorted(missing)}"
        returns = signature.return_annotation
        assert isinstance(returns, type), (
            f"the constructor's return annotation is {returns!r}, no class: "
            "leave out `from __future__ import annotations`"
        )
        assert issubclass(returns, Dataset), f"the constructor's return annotation {returns} is no Dataset"

    def test_constructor_is_reachable(self, raw_source: Any) -> None:
        """Users call `mlflow.data.<name>(raw_source, name=..., digest=...)` and get the annotated Dataset."""
        if not self.constructor_name:
            pytest.skip("the plugin has no dataset constructor")
        import mlflow.data

        function = getattr(mlflow.data, self.constructor_name, None)
        assert function is not None, f"mlflow.data has no {self.constructor_name}: MLflow refused the constructor"
        with must_not_raise("the constructor raised"):
            dataset = function(raw_source, name="plugkit", digest="0123abcd")
        wanted = inspect.signature(function).return_annotation
        assert isinstance(dataset, wanted), f"the constructor returned a {type(dataset).__name__}, not a {wanted}"
        assert (dataset.name, dataset.digest) == ("plugkit", "0123abcd"), (
            f"name and digest of the caller became {dataset.name!r} and {dataset.digest!r}"
        )
        assert type(dataset.source) is self.source_class, f"the dataset's source is a {type(dataset.source).__name__}"

    def test_digest_is_deterministic(self, raw_source: Any) -> None:
        """The same source has the same digest, short enough to be stored."""
        digests = {self.make_dataset(raw_source).digest for _ in range(3)}
        assert len(digests) == 1, f"the same source got different digests: {sorted(map(str, digests))}"
        digest = digests.pop()
        assert isinstance(digest, str), f"the digest is {digest!r}, which is no text"
        assert 0 < len(digest) <= MAX_DIGEST, (
            f"the digest has {len(digest)} characters; MLflow stores 1 to {MAX_DIGEST}"
        )

    def test_log_input_works_end_to_end(self, raw_source: Any, tracking_uri: str) -> None:
        """`mlflow.log_input` stores the dataset, and from the stored run its source is found and loaded again."""
        import mlflow
        import mlflow.data

        dataset = self.make_dataset(raw_source)
        with mlflow.start_run() as run, must_not_raise("mlflow.log_input failed"):
            mlflow.log_input(dataset, context="training")
        inputs = mlflow.get_run(run.info.run_id).inputs
        assert inputs is not None
        stored = inputs.dataset_inputs[0].dataset
        assert (stored.name, stored.digest) == (dataset.name, dataset.digest), "another name or digest was stored"
        assert len(stored.source) <= MAX_SOURCE, f"the stored source has {len(stored.source)} characters"
        assert len(stored.name) <= MAX_NAME, f"the dataset's name has {len(stored.name)} characters"
        with must_not_raise("the source of the stored dataset cannot be read and loaded"):
            source = mlflow.data.get_source(stored)
            self.check_loaded(source.load())
        assert source.to_dict() == dataset.source.to_dict(), "the stored source was read back with other values"

    def test_secrets_are_not_stored(self, request: pytest.FixtureRequest) -> None:
        """MLflow stores a source's JSON in clear and shows it in its UI: no password or token stands in it."""
        if not self.may_hold_secrets:
            pytest.skip("a raw source of the plugin cannot hold a secret")
        raw, secret = request.getfixturevalue("secret_source")
        source = self.source_class._resolve(raw)
        dataset = self.make_dataset(raw)
        texts = {"to_json()": source.to_json(), "repr": f"{source!r} {source!s}", "the dataset": dataset.to_json()}
        shown = [where for where, text in texts.items() if secret in text]
        assert not shown, f"the secret of the raw source is shown by {shown}"


def _sources() -> list[Any]:
    from mlflow.data.dataset_source_registry import _dataset_source_registry

    sources: list[Any] = _dataset_source_registry.sources
    return sources


@contextmanager
def registered_source(cls: type[Any]) -> Iterator[None]:
    """Have MLflow's registry hold the class, as its last where it does not hold it yet."""
    sources = _sources()
    before = list(sources)
    if cls not in sources:
        sources.append(cls)
    try:
        yield
    finally:
        sources[:] = before


@contextmanager
def registered_constructor(name: str, function: Callable[..., Any] | None) -> Iterator[None]:
    """Have `mlflow.data` hold the constructor, if MLflow accepts it; the rules say why it does not."""
    import mlflow.data
    from mlflow.data.dataset_registry import _dataset_registry, register_constructor
    from mlflow.exceptions import MlflowException

    if not name or function is None or name in _dataset_registry.constructors:
        yield
        return
    with suppress(MlflowException, TypeError):
        register_constructor(function, name)
    try:
        yield
    finally:
        if _dataset_registry.constructors.pop(name, None) is not None:
            delattr(mlflow.data, name)
            mlflow.data.__all__.remove(name)
