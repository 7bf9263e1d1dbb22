"""Rules for an artifact repository: hostile paths, hostile listings and secrets."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from mlflow_plugkit_testing.artifacts_base import ArtifactSuite, fetched, listed, outcome, read_tree, store

if TYPE_CHECKING:
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

REFUSALS = ("INVALID_PARAMETER_VALUE", "BAD_REQUEST")


def hostile_paths(tmp_path: Path) -> list[str]:
    """Paths that lead out of a repository, or that two layers would read differently."""
    return [
        "../outside.txt",
        "sub/../../outside.txt",
        "%2e%2e/outside.txt",
        "%252e%252e/outside.txt",
        f"{tmp_path.as_posix()}/outside.txt",
        "..\\outside.txt",
        "nul\0byte.txt",
    ]


class ArtifactSafetyRules(ArtifactSuite):
    """Nothing outside the root is read, written or deleted, and no secret is shown."""

    @pytest.fixture
    def outer(self, repository: ArtifactRepository, tmp_path: Path) -> ArtifactRepository:
        """The repository around the inner one: it holds `outside.txt`."""
        store(repository, tmp_path / "outer", {"outside.txt": b"not yours"})
        return repository

    @pytest.fixture
    def inner(self, outer: ArtifactRepository, artifact_uri: str, tmp_path: Path) -> ArtifactRepository:
        """A repository one folder below, as MLflow makes one for each run; hostile paths try to leave it."""
        from mlflow.utils.uri import append_to_uri_path

        inner = self.make_repository(append_to_uri_path(artifact_uri, "inner"))
        store(inner, tmp_path / "inner", {"inside.txt": b"mine"})
        return inner

    def test_logging_refuses_hostile_paths(
        self, outer: ArtifactRepository, inner: ArtifactRepository, tmp_path: Path
    ) -> None:
        """`log_artifact` and `log_artifacts` refuse a path that leads out, and write nothing."""
        local = tmp_path / "tree" / "evil.txt"
        local.parent.mkdir()
        local.write_bytes(b"evil")
        paths = hostile_paths(tmp_path)
        wrong = _not_refused(paths, lambda path: inner.log_artifact(str(local), path))
        wrong |= _not_refused(paths, lambda path: inner.log_artifacts(str(local.parent), path))
        assert not wrong, f"logging must refuse hostile paths with INVALID_PARAMETER_VALUE: {wrong}"
        assert set(listed(outer)) == {"outside.txt", "inner/inside.txt"}, "a refused log wrote something"

    def test_listing_refuses_hostile_paths(self, inner: ArtifactRepository, tmp_path: Path) -> None:
        """`list_artifacts` refuses a path that leads out, rather than list what is there."""
        wrong = _not_refused(hostile_paths(tmp_path), inner.list_artifacts)
        assert not wrong, f"listing must refuse hostile paths with INVALID_PARAMETER_VALUE: {wrong}"

    def test_download_refuses_hostile_paths(self, inner: ArtifactRepository, tmp_path: Path) -> None:
        """`_download_file`, which MLflow also calls without any check of its own, refuses a path that leads out."""
        local = tmp_path / "download.txt"
        wrong = _not_refused(hostile_paths(tmp_path), lambda path: inner._download_file(path, str(local)))
        assert not wrong, f"_download_file must refuse hostile paths with INVALID_PARAMETER_VALUE: {wrong}"
        assert not local.exists(), "a refused download wrote its file"

    def test_deletion_refuses_hostile_paths(
        self, outer: ArtifactRepository, inner: ArtifactRepository, tmp_path: Path
    ) -> None:
        """`delete_artifacts` refuses a path that leads out, and deletes nothing."""
        wrong = _not_refused(hostile_paths(tmp_path), inner.delete_artifacts)
        assert not wrong, f"deletion must refuse hostile paths with INVALID_PARAMETER_VALUE: {wrong}"
        assert fetched(outer, "outside.txt", tmp_path) == b"not yours", "a refused deletion changed something"

    def test_hostile_listing_writes_nothing_outside(
        self, inner: ArtifactRepository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Names that a hostile backend lists cannot make a download write outside its destination."""
        from mlflow.entities import FileInfo

        names = ["../outside.txt", "x/../../outside.txt", f"{tmp_path.as_posix()}/absolute.txt"]
        target = tmp_path / "room" / "target"
        target.mkdir(parents=True)
        for name in names:
            monkeypatch.setattr(inner, "list_artifacts", lambda path=None, name=name: [FileInfo(name, False, 9)])
            outcome(lambda: inner.download_artifacts("", str(target)))
        strays = sorted(set(read_tree(tmp_path / "room")) - {f"target/{n}" for n in read_tree(target)})
        assert not strays, f"a hostile listing made the download write outside its destination: {strays}"
        assert not (tmp_path / "absolute.txt").exists(), (
            "a hostile listing made the download write outside its destination, to an absolute path"
        )

    def test_no_secret_is_shown(
        self,
        artifact_uri: str,
        secrets: tuple[str, ...],
        tmp_path: Path,
        capfd: pytest.CaptureFixture[str],
    ) -> None:
        """No secret stands in a repr, an exception, a log record at DEBUG or on the terminal."""
        if not secrets:
            pytest.skip("the plugin's tests name no secrets (fixture secrets)")
        with _everything_logged() as log:
            shown = [_errors(lambda: self._use(artifact_uri, tmp_path))]
            repository = self.make_repository(artifact_uri)
            shown += [repr(repository), str(repository)]
            shown.append(_errors(lambda: repository.download_artifacts("missing.txt", str(tmp_path))))
            shown.append(_errors(lambda: repository._download_file("missing.txt", str(tmp_path / "x"))))
            shown.append(_errors(lambda: repository.list_artifacts("../outside")))
            shown.append(_errors(lambda: repository.log_artifact(str(tmp_path / "absent"))))
        terminal = capfd.readouterr()
        places = {
            "a log record": log.getvalue(),
            "a repr or an exception": "\n".join(shown),
            "the terminal": terminal.out + terminal.err,
        }
        leaks = [place for place, text in places.items() if any(f in text for s in secrets for f in (s, quote(s, "")))]
        assert not leaks, f"a secret is shown in {' and in '.join(leaks)}"

    def _use(self, artifact_uri: str, tmp_path: Path) -> None:
        repository = self.make_repository(artifact_uri)
        store(repository, tmp_path / "in", {"a/file.txt": b"x"})
        listed(repository)
        fetched(repository, "a/file.txt", tmp_path)
        repository.delete_artifacts("a")


def _not_refused(paths: list[str], call: Callable[[str], Any]) -> dict[str, str]:
    results = {path: outcome(lambda path=path: call(path)) for path in paths}  # type: ignore[misc] # bound per turn
    return {path: result for path, result in results.items() if result not in REFUSALS}


def _errors(call: Callable[[], Any]) -> str:
    """The whole traceback of what a call raises, as a user would see it."""
    try:
        call()
    except Exception:  # noqa: BLE001 # its text is searched, whatever it is
        return traceback.format_exc()
    return ""


@contextmanager
def _everything_logged() -> Iterator[io.StringIO]:
    """All log records at DEBUG, also of loggers that do not propagate (MLflow's own)."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    known = [logging.getLogger(name) for name in list(logging.root.manager.loggerDict)]
    loggers = [logging.getLogger(), *known]
    before = [(logger, logger.level) for logger in loggers]
    tops = [logger for logger in loggers if logger is logging.root or not logger.propagate]
    try:
        for logger in loggers:
            logger.setLevel(logging.DEBUG)
        for logger in tops:
            logger.addHandler(handler)
        yield text
    finally:
        for logger in tops:
            logger.removeHandler(handler)
        for logger, level in before:
            logger.setLevel(level)
