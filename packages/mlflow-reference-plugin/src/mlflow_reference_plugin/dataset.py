"""A dataset source (a local CSV file, `reference+csv:<path>`) and its constructor `mlflow.data.from_reference`."""

# No `from __future__ import annotations` here: MLflow asks whether the constructor's return annotation
# is a subclass of Dataset, and a string is none (mlflow.data.dataset_registry).

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource

SCHEME = "reference+csv:"


class ReferenceDatasetSource(DatasetSource):
    """Where a dataset came from: a local file."""

    def __init__(self, path: str) -> None:
        self.path = path

    @staticmethod
    def _get_source_type() -> str:
        return "reference_csv"

    @staticmethod
    def _can_resolve(raw_source: Any) -> bool:
        return isinstance(raw_source, str) and raw_source.startswith(SCHEME)

    @classmethod
    def _resolve(cls, raw_source: str) -> "ReferenceDatasetSource":
        return cls(raw_source.removeprefix(SCHEME))

    def load(self, **_: Any) -> str:
        """The path of the file; raises `MlflowException` (`RESOURCE_DOES_NOT_EXIST`) where it is gone."""
        if not Path(self.path).is_file():
            from mlflow_plugkit.errors import mlflow_error

            raise mlflow_error(f"The dataset's file {self.path!r} is not there any more.", "RESOURCE_DOES_NOT_EXIST")
        return self.path

    def to_dict(self) -> dict[str, str]:
        return {"path": self.path}

    @classmethod
    def from_dict(cls, source_dict: dict[Any, Any]) -> "ReferenceDatasetSource":
        return cls(source_dict["path"])


class ReferenceDataset(Dataset):
    """A CSV file with its number of rows; the digest is that of its content."""

    def _compute_digest(self) -> str:
        return sha256(Path(self.source.load()).read_bytes()).hexdigest()[:8]

    def to_dict(self) -> dict[str, str]:
        return {**super().to_dict(), "profile": json.dumps(self.profile)}

    @property
    def profile(self) -> dict[str, int]:
        """The number of lines after the header."""
        lines = Path(self.source.load()).read_text().splitlines()
        return {"num_rows": max(len(lines) - 1, 0)}

    @property
    def schema(self) -> None:
        """None: a CSV file declares no types."""


def from_reference(path: str, name: str | None = None, digest: str | None = None) -> ReferenceDataset:
    """Describe the CSV file at `path` for `mlflow.log_input`."""
    return ReferenceDataset(source=ReferenceDatasetSource(path.removeprefix(SCHEME)), name=name, digest=digest)
