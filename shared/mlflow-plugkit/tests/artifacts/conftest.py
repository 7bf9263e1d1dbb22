"""Fresh repositories in memory, and a state folder of the test's own."""

import sys
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))  # pytest's importlib mode leaves sys.path alone

from memory import BUCKETS, MemoryRepository

from mlflow_plugkit.artifacts.journal import STATE_VARIABLE


@pytest.fixture(autouse=True)
def state(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the journal: never the user's own."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv(STATE_VARIABLE, str(folder))
    return folder / "uploads"


@pytest.fixture
def uri() -> Iterator[str]:
    """A fresh location in memory."""
    name = f"bucket-{uuid.uuid4().hex}"
    yield f"memory://{name}/root"
    BUCKETS.pop(name, None)


@pytest.fixture
def repository(uri: str) -> MemoryRepository:
    """A repository at a fresh location in memory."""
    return MemoryRepository(uri)
