"""One fake Hub for all tests, and an environment in which nothing of this user's own Hub login takes part."""

from __future__ import annotations

import os
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

# huggingface_hub reads these when it is imported.
for name in [n for n in os.environ if n.startswith(("HF_", "HUGGING", "MLFLOW_XET_"))]:
    del os.environ[name]
# hf_xet would repeat a request for minutes; it reads these when its session is made.
os.environ |= {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "50ms"}
sys.path.insert(0, str(Path(__file__).parent))

from fake_hub import FakeHub  # noqa: E402 # found by the line above
from fake_hub.server import TOKEN  # noqa: E402


@pytest.fixture(scope="session", autouse=True)
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeHub]:
    """The Hub, which the environment names: its URL, the token and an own home for huggingface_hub."""
    folder = tmp_path_factory.mktemp("hub")
    with pytest.MonkeyPatch.context() as environment, FakeHub(folder) as hub:
        environment.setenv("HF_HOME", str(folder / "home"))
        environment.setenv("HF_ENDPOINT", hub.url)
        environment.setenv("HF_TOKEN", TOKEN)
        environment.setenv("HF_HUB_DISABLE_TELEMETRY", "1")
        yield hub


@pytest.fixture(autouse=True)
def calm(hub: FakeHub) -> Iterator[None]:
    """What a test did to the Hub's behaviour ends with it."""
    yield
    hub.before_commit.clear()
    hub.refusals.clear()
    hub.counts.clear()
    hub.undeletable.clear()
    hub.page_size, hub.damaged_downloads = 1000, False


@pytest.fixture
def new_repository(hub: FakeHub) -> Callable[..., str]:
    """Makes a repository on the Hub and answers its id."""

    def make(kind: str = "model") -> str:
        name = f"me/{uuid.uuid4().hex[:12]}"
        hub.state.create(kind, name)
        return name

    return make


@pytest.fixture
def repo_id(new_repository: Callable[..., str]) -> str:
    return new_repository()


@pytest.fixture
def bucket_id(hub: FakeHub) -> str:
    name = f"me/{uuid.uuid4().hex[:12]}"
    hub.state.buckets[name] = {}
    return name


@pytest.fixture
def own_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub for one test whose storage another process opens: hf_xet's local storage is for one process at a time."""
    with FakeHub(tmp_path / "own-hub") as own:
        monkeypatch.setenv("HF_ENDPOINT", own.url)
        own.state.create("model", "me/models")
        own.state.buckets["me/bucket"] = {}
        yield own
