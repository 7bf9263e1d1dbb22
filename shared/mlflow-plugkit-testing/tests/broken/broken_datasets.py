"""Dataset sources and constructors that are wrong, each in the way that its name says."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from mlflow_plugkit_testing.datasets import DatasetSourceConformance

sys.path.insert(0, str(Path(__file__).parent))

from plain_datasets import PlainDataset, PlainSource, constructor_of


class Rules(DatasetSourceConformance):
    source_type = "plain"
    source_class = PlainSource
    constructor_name = "from_plain"

    @property
    def constructor(self):
        return constructor_of(self.source_class)

    @pytest.fixture
    def raw_source(self, tmp_path):
        (tmp_path / "data.csv").write_text("a,b\n1,2\n")
        return f"plain:{tmp_path}/data.csv"

    @pytest.fixture
    def secret_source(self, raw_source):
        return f"{raw_source}?token=s3cret-token", "s3cret-token"


class TestTypeOfAnotherSource(Rules):
    breaks = {"test_source_type_is_unique": "the source type 'http' belongs to ['HTTPDatasetSource'] as well"}

    class source_class(PlainSource):
        @staticmethod
        def _get_source_type():
            return "http"


class TestSourceThatDeniesItsOwn(Rules):
    breaks = {"test_own_sources_are_resolved": "_can_resolve is False for the plugin's own source"}

    class source_class(PlainSource):
        @staticmethod
        def _can_resolve(raw_source):
            return False


class TestSourceThatResolvesToAnother(Rules):
    breaks = {"test_own_sources_are_resolved": "to a PlainSource"}

    class source_class(PlainSource):
        @classmethod
        def _resolve(cls, raw_source):
            return PlainSource._resolve(raw_source)


class TestSourceThatTakesAnyUri(Rules):
    breaks = {"test_foreign_sources_are_left_alone": "_can_resolve claims sources of others: ['https://example.com"}

    class source_class(PlainSource):
        @staticmethod
        def _can_resolve(raw_source):
            return isinstance(raw_source, str) and ":" in raw_source


class TestSourceThatLooksAtThePrefixOnly(Rules):
    breaks = {"test_foreign_sources_are_left_alone": "_can_resolve claims sources of others: ['plainx:"}

    class source_class(PlainSource):
        @staticmethod
        def _can_resolve(raw_source):
            return isinstance(raw_source, str) and raw_source.startswith("plain")


class TestSourceThatExpectsText(Rules):
    breaks = {"test_any_object_can_be_asked_about": "_can_resolve raised for a NoneType"}

    class source_class(PlainSource):
        @staticmethod
        def _can_resolve(raw_source):
            return raw_source.startswith("plain:")


class TestDictionaryOfPaths(Rules):
    breaks = {"test_dictionary_round_trip": "to_dict() returned what JSON cannot hold"}

    class source_class(PlainSource):
        def to_dict(self):
            return {"path": Path(self.path)}


class TestDictionaryThatIsForgotten(Rules):
    breaks = {
        "test_dictionary_round_trip": "from_dict(to_dict()) became",
        "test_registry_reads_it_back": "read back with other values",
        "test_load_returns_the_data": "which does not exist",
        "test_log_input_works_end_to_end": "cannot be read and loaded",
    }

    class source_class(PlainSource):
        @classmethod
        def from_dict(cls, source_dict):
            return cls("/nowhere/at/all")


class TestLoadOfNothing(Rules):
    breaks = {"test_load_returns_the_data": "load() returned None"}

    class source_class(PlainSource):
        def load(self):
            return None


class TestConstructorWithAnotherName(Rules):
    breaks = {
        "test_constructor_is_well_formed": "MLflow refuses names without from_ or load_",
        "test_constructor_is_reachable": "mlflow.data has no plain: MLflow refused the constructor",
    }
    constructor_name = "plain"


def without_digest(raw_source, name=None):
    return None


def with_a_text_for_its_class(raw_source, name=None, digest=None) -> PlainDataset:  # text, by the import above
    return None


class TestConstructorWithoutDigest(Rules):
    breaks = {"test_constructor_is_well_formed": "the constructor lacks the parameters ['digest']"}
    constructor = staticmethod(without_digest)


class TestConstructorWithATextForItsClass(Rules):
    breaks = {
        "test_constructor_is_well_formed": "no class: leave out `from __future__ import annotations`",
        "test_constructor_is_reachable": "MLflow refused the constructor",
    }
    constructor = staticmethod(with_a_text_for_its_class)


class TestConstructorThatForgetsTheName(Rules):
    class Forgetful(PlainDataset):
        def __init__(self, source, name=None, digest=None):
            super().__init__(source)

    breaks = {"test_constructor_is_reachable": "name and digest of the caller became"}
    constructor = staticmethod(constructor_of(PlainSource, Forgetful))


class TestRandomDigest(Rules):
    class Random(PlainDataset):
        def _compute_digest(self):
            return os.urandom(4).hex()

    breaks = {"test_digest_is_deterministic": "the same source got different digests"}
    constructor = staticmethod(constructor_of(PlainSource, Random))


class TestLongDigest(Rules):
    class Long(PlainDataset):
        def _compute_digest(self):
            return "0" * 64

    breaks = {
        "test_digest_is_deterministic": "the digest has 64 characters",
        "test_log_input_works_end_to_end": "mlflow.log_input failed",
    }
    constructor = staticmethod(constructor_of(PlainSource, Long))


class TestSecretInTheSource(Rules):
    breaks = {"test_secrets_are_not_stored": "the secret of the raw source is shown by ['to_json()', 'the dataset']"}

    class source_class(PlainSource):
        @classmethod
        def _resolve(cls, raw_source):
            return cls(raw_source.partition(":")[2])

        def load(self):
            return self.path.partition("?")[0]
