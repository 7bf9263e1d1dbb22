"""A minimal dataset source and constructor that keep every rule; the broken ones change one thing each.

No `from __future__ import annotations` here: MLflow reads the constructor's return annotation.
"""

import hashlib
from pathlib import Path

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource


class PlainSource(DatasetSource):
    def __init__(self, path):
        self.path = path

    @staticmethod
    def _get_source_type():
        return "plain"

    @staticmethod
    def _can_resolve(raw_source):
        return isinstance(raw_source, str) and raw_source.startswith("plain:")

    @classmethod
    def _resolve(cls, raw_source):
        return cls(raw_source.partition(":")[2].partition("?")[0])

    def to_dict(self):
        return {"path": self.path}

    @classmethod
    def from_dict(cls, source_dict):
        return cls(source_dict["path"])

    def load(self):
        return self.path


class PlainDataset(Dataset):
    def _compute_digest(self):
        return hashlib.sha256(Path(self.source.load()).read_bytes()).hexdigest()[:8]

    @property
    def profile(self):
        return None

    @property
    def schema(self):
        return None


def from_plain(raw_source, name=None, digest=None) -> PlainDataset:
    return PlainDataset(PlainSource._resolve(raw_source), name, digest)


def constructor_of(source_class, dataset_class=PlainDataset):
    def from_plain(raw_source, name=None, digest=None) -> dataset_class:
        return dataset_class(source_class._resolve(raw_source), name, digest)

    return from_plain
