"""The emulated OSS that all tests share, and the environment that names it."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from oss_emulator import Emulator  # found on the path that was just extended
from oss_emulator.signing import Key
from oss_emulator.storage import Bucket

KEY_ID, KEY_SECRET = "LTAI5tEmulatedKeyId", "emulatedSecret/8Zq+Kx7"


def environment(emulator: Emulator, **further: str) -> dict[str, str]:
    """The variables that lead to an emulator."""
    return {
        "MLFLOW_OSS_ENDPOINT_URL": emulator.url,
        "MLFLOW_OSS_KEY_ID": KEY_ID,
        "MLFLOW_OSS_KEY_SECRET": KEY_SECRET,
        "OSS_REGION": emulator.region,
        **further,
    }


@pytest.fixture(scope="session")
def shared_emulator() -> Iterator[Emulator]:
    with Emulator() as emulator:
        yield emulator


@pytest.fixture
def emulator(shared_emulator: Emulator) -> Emulator:
    """The session's server, emptied."""
    return reset(shared_emulator)


def reset(emulator: Emulator) -> Emulator:
    emulator.keys = {KEY_ID: Key(KEY_SECRET)}
    emulator.buckets = {"artifacts": Bucket()}
    emulator.accepted = {"v1", "v4"}
    emulator.denied, emulator.domains, emulator.intercept, emulator.damage = set(), {}, None, None
    emulator.counts.clear()
    emulator.versions.clear()
    emulator.log.clear()
    return emulator


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the machine's own takes part."""
    for name in list(os.environ):
        if name.startswith(("MLFLOW_OSS_", "OSS_", "ALIBABA_CLOUD_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture(params=["oss2", "v2"])
def sdk(request: pytest.FixtureRequest) -> str:
    """Each of the vendor's two SDKs."""
    if request.param == "v2":
        pytest.importorskip("alibabacloud_oss_v2", reason="the extra [v2] is not installed")
    return str(request.param)


@pytest.fixture(autouse=True)
def state_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal of unfinished uploads is each test's own: what another left is not cleaned up in this one."""
    monkeypatch.setenv("MLFLOW_PLUGKIT_STATE_DIR", str(tmp_path_factory.mktemp("state")))


@pytest.fixture
def oss_env(emulator: Emulator, sdk: str, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    """The process's environment names the emulator and the SDK."""
    env = environment(emulator, MLFLOW_OSS_SDK=sdk)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    return env
