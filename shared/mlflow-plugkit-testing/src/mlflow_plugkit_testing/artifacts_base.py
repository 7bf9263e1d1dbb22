"""What the rules for artifact repositories share: fixtures, capability properties and small helpers."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlflow_plugkit.uri import redact_text
from mlflow_plugkit_testing.suite import ConformanceSuite

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

MEBIBYTE = 1024 * 1024


class ArtifactSuite(ConformanceSuite):
    """Fixtures, hooks and capabilities; the rules are in the subclasses of the `artifacts_*` modules."""

    #: Bytes of the "large" file: more than one part of the backend's multipart protocol.
    large_file_size: int = 6 * MEBIBYTE
    #: The backend's page of a listing; the rules about pages store a few more files than this.
    page_size: int = 1000
    #: The least size of a part, other than the last, in the backend's multipart protocol (S3: 5 MiB).
    multipart_part_size: int = 5 * MEBIBYTE
    #: Whether a folder of more than `page_size` files can be stored in reasonable time.
    supports_many_files: bool = True
    #: True admits that the plugin replaces `download_artifacts`, with which it takes over MLflow's checks.
    overrides_download_artifacts: bool = False

    @pytest.fixture
    def artifact_uri(self) -> str:
        """Override it: the URI of a fresh, empty root for each test, without a trailing slash."""
        raise NotImplementedError("override the fixture artifact_uri: the URI of a fresh, empty artifact root")

    @pytest.fixture
    def secrets(self) -> tuple[str, ...]:
        """Override it: the secret values that the repository uses in these tests."""
        return ()

    @pytest.fixture
    def repository(self, artifact_uri: str) -> ArtifactRepository:
        """The repository under test at `artifact_uri`."""
        return self.make_repository(artifact_uri)

    def make_repository(self, uri: str) -> ArtifactRepository:
        """The repository for a URI; by default the one that MLflow's own registry makes."""
        from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

        repository: ArtifactRepository = get_artifact_repository(uri)
        return repository

    def repository_factory(self, uri: str) -> Callable[..., Any]:
        """What the entry point of the URI's scheme names: a class or a function."""
        from mlflow.store.artifact.artifact_repository_registry import _artifact_repository_registry
        from mlflow.utils.uri import get_uri_scheme

        factory: Callable[..., Any] = _artifact_repository_registry.get_registered_artifact_repositories()[
            get_uri_scheme(uri)
        ]
        return factory

    def interrupted_downloads(self, repository: ArtifactRepository) -> AbstractContextManager[None] | None:
        """Optional hook: a context in which the connection breaks in the middle of each download."""
        return None

    def corrupted_downloads(self, repository: ArtifactRepository) -> AbstractContextManager[None] | None:
        """Optional hook: a context in which a byte of each download is changed on its way."""
        return None


def write_tree(folder: Path, files: Mapping[str, bytes]) -> Path:
    """Write files, named by POSIX paths below `folder`, and return the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return folder


def read_tree(folder: str | Path) -> dict[str, bytes]:
    """All files below a folder: POSIX path to content."""
    root = Path(folder)
    return {p.relative_to(root).as_posix(): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def store(repository: ArtifactRepository, folder: Path, files: Mapping[str, bytes]) -> None:
    """Log files, named by POSIX paths below the root, one `log_artifact` each."""
    for number, (name, content) in enumerate(files.items()):
        parent, _, base = name.rpartition("/")
        local = folder / f"stored-{number}" / base
        local.parent.mkdir(parents=True, exist_ok=True)
        local.write_bytes(content)
        repository.log_artifact(str(local), parent or None)


def listed(repository: ArtifactRepository, path: str | None = None) -> dict[str, int | None]:
    """All files below `path`, by recursive listing: path to size in bytes."""
    found: dict[str, int | None] = {}
    for info in repository.list_artifacts(path):
        if not info.is_dir:
            found[info.path] = info.file_size
        elif info.path != path:
            found |= listed(repository, info.path)
    return found


def fetched(repository: ArtifactRepository, path: str, folder: Path) -> bytes:
    """The content of one artifact, downloaded by MLflow's `download_artifacts` into a new part of `folder`."""
    target = folder / f"fetched-{len(os.listdir(folder))}"
    target.mkdir()
    return Path(repository.download_artifacts(path, str(target))).read_bytes()


def random_bytes(size: int) -> bytes:
    """Bytes that no transfer encoding or compression leaves alone by accident."""
    return os.urandom(size)


def outcome(call: Callable[[], Any]) -> str:
    """The MLflow error code that a call raises; `"accepted"`, or the class of any other exception."""
    from mlflow.exceptions import MlflowException

    try:
        call()
    except MlflowException as exc:
        return str(exc.error_code)
    except Exception as exc:  # noqa: BLE001 # the rule reports whatever came instead of an MlflowException
        return f"{type(exc).__name__}: {redact_text(str(exc))[:200]}"
    return "accepted"
