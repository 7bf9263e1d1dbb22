"""The conformance class for an artifact repository behind a real `mlflow server --serve-artifacts`."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import pytest

from mlflow_plugkit_testing.artifacts_base import MEBIBYTE, outcome, random_bytes, read_tree, write_tree
from mlflow_plugkit_testing.server import MlflowServer, fresh_database, plugin_env, run_cli
from mlflow_plugkit_testing.suite import ConformanceSuite

API = "/api/2.0/mlflow-artifacts/artifacts"
TREE = {
    "top.txt": b"top",
    "code/__init__.py": b"",
    "a/b/two words.txt": b"2",
    "a/plus+sign.bin": bytes(range(256)),
    # The server of MLflow 2 cannot send a file's own name beyond Latin-1 (gunicorn refuses the header).
    "Grüße/日本語/plain.txt": b"3",
}
HOSTILE = ("%2e%2e/outside.txt", "a/%2e%2e/%2e%2e/outside.txt", "%252e%252e/outside.txt", "..%5Coutside.txt")


class ProxiedArtifactsConformance(ConformanceSuite):
    """Clients that know nothing of the plugin store and read through MLflow's server, which uses it.

    Override the fixture `artifacts_destination`, of scope "class": one server serves all rules.

        class TestDemoProxied(ProxiedArtifactsConformance):
            @pytest.fixture(scope="class")
            @classmethod
            def artifacts_destination(cls, tmp_path_factory):
                return f"demo://{tmp_path_factory.mktemp('demo')}"
    """

    #: Bytes of the "large" file.
    large_file_size: int = 6 * MEBIBYTE
    #: Further options of `mlflow server`.
    server_options: tuple[str, ...] = ()

    @pytest.fixture(scope="class")
    @classmethod
    def artifacts_destination(cls) -> str:
        """Override it: the URI of an empty root, for `--artifacts-destination`."""
        raise NotImplementedError("override the class-scoped fixture artifacts_destination")

    @pytest.fixture(scope="class")
    @classmethod
    def secrets(cls) -> tuple[str, ...]:
        """Override it: the secret values that the server uses to reach the destination."""
        return ()

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls) -> Mapping[str, str]:
        """The environment of the server; override it for credentials: `plugin_env(env={...})`."""
        return plugin_env()

    @pytest.fixture(scope="class")
    @classmethod
    def server(
        cls, artifacts_destination: str, server_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[MlflowServer]:
        """The running server, which keeps its runs in a SQLite file."""
        folder = tmp_path_factory.mktemp("server")
        options = ["--serve-artifacts", "--artifacts-destination", artifacts_destination, *cls.server_options]
        with MlflowServer(
            ["--backend-store-uri", fresh_database(folder), *options], folder=folder, env=server_env
        ) as server:
            yield server

    @pytest.fixture(autouse=True)
    def tracking_uri(self, server: MlflowServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
        """This process is a client of the server, and gives up soon where MLflow would retry for minutes."""
        import mlflow

        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "60")
        before = mlflow.get_tracking_uri()
        mlflow.set_tracking_uri(server.url)
        yield server.url
        mlflow.set_tracking_uri(before)

    @pytest.fixture
    def run_id(self, server: MlflowServer) -> str:
        """A new run."""
        return str(_client().create_run(_experiment_id()).info.run_id)

    def test_a_file_passes_through_the_server(self, run_id: str, tmp_path: Path) -> None:
        """A client logs a file and reads the same bytes back."""
        content = bytes(range(256)) + b"\r\n\n"
        assert _round_trip(run_id, tmp_path, content) == content, "a file came back through the server with other bytes"

    def test_a_large_file_passes_through_the_server(self, run_id: str, tmp_path: Path) -> None:
        """A file that the server must stream comes back byte for byte."""
        content = random_bytes(self.large_file_size)
        assert _round_trip(run_id, tmp_path, content) == content, "a large file came back with other bytes"

    def test_a_tree_passes_through_the_server(self, run_id: str, tmp_path: Path) -> None:
        """Nested folders, empty files and names with blanks, plus signs and non-ASCII letters survive."""
        _client().log_artifacts(run_id, str(write_tree(tmp_path / "tree", TREE)), "tree")
        target = tmp_path / "target"
        target.mkdir()
        _client().download_artifacts(run_id, "tree", str(target))
        back = read_tree(target / "tree")
        assert back == TREE, f"a tree did not survive the server: {sorted(TREE.items() ^ back.items())}"

    def test_listing_through_the_server(self, run_id: str, tmp_path: Path) -> None:
        """The server lists names, sizes and folders, and nothing for a path that is not there."""
        _client().log_artifacts(run_id, str(write_tree(tmp_path / "tree", {"a.txt": b"12345", "b/c.txt": b"1"})))
        entries = {(info.path, info.is_dir, info.file_size) for info in _client().list_artifacts(run_id)}
        assert entries == {("a.txt", False, 5), ("b", True, None)}, f"the server lists something else: {entries}"
        assert list(_client().list_artifacts(run_id, "missing")) == [], "a missing path must list as empty"

    def test_a_missing_artifact_is_not_found(self, server: MlflowServer, run_id: str) -> None:
        """A missing artifact is HTTP 404 with MLflow's JSON, on which clients and the UI rely."""
        if not _base_class_passes_error_codes():
            pytest.skip("this MLflow has no way to pass a repository's error code through download_artifacts")
        status, body = _request(server, "GET", f"{API}/{_stored_at(run_id)}/missing.txt")
        code = _error_code(body)
        assert (status, code) == (404, "RESOURCE_DOES_NOT_EXIST"), (
            f"a missing artifact must be 404 RESOURCE_DOES_NOT_EXIST as JSON: HTTP {status}, {body[:300]!r}"
        )

    def test_deletion_through_the_server(self, server: MlflowServer, run_id: str, tmp_path: Path) -> None:
        """`DELETE` removes the artifact for real, and only it."""
        _client().log_artifacts(run_id, str(write_tree(tmp_path / "tree", {"a/x.txt": b"1", "ab/x.txt": b"2"})))
        status, body = _request(server, "DELETE", f"{API}/{_stored_at(run_id)}/a")
        assert status == 200, f"deletion through the server failed: HTTP {status}, {body[:300]!r}"
        names = {info.path for info in _client().list_artifacts(run_id)}
        assert "a" not in names, "an artifact that was deleted through the server is still listed"
        assert names == {"ab"}, "deletion through the server removed a sibling that shares its prefix"

    def test_the_server_refuses_hostile_paths(self, server: MlflowServer) -> None:
        """Encoded `..` and backslashes get a 4xx answer, on upload, download, listing and deletion."""
        requests = [(method, f"{API}/{path}") for path in HOSTILE for method in ("PUT", "GET", "DELETE")]
        requests += [("GET", f"{API}?path={quote(path)}") for path in ("../outside", "a/../../outside", "/etc")]
        wrong = {}
        for method, path in requests:
            status, _ = _request(server, method, path, b"evil" if method == "PUT" else None)
            if not 400 <= status < 500:
                wrong[f"{method} {path}"] = status
        assert not wrong, f"hostile paths must be refused with a 4xx answer: {wrong}"

    def test_stored_locations_show_no_secret(self, server: MlflowServer, secrets: tuple[str, ...]) -> None:
        """What the server stores and shows as artifact location holds no secret of the destination."""
        _skip_without(secrets)
        run = _client().create_run(_experiment_id())
        places = [e.artifact_location for e in _client().search_experiments()] + [run.info.artifact_uri]
        leaks = sum(any(_shows(place, secret) for secret in secrets) for place in places)
        assert not leaks, f"{leaks} stored artifact locations show a secret of the destination"

    def test_the_server_log_shows_no_secret(
        self, server: MlflowServer, run_id: str, secrets: tuple[str, ...], tmp_path: Path
    ) -> None:
        """Neither use nor failure brings a secret into the server's log or into an answer."""
        _skip_without(secrets)
        outcome(lambda: _round_trip(run_id, tmp_path, b"x"))
        _, body = _request(server, "GET", f"{API}/{_stored_at(run_id)}/missing.txt")
        assert not any(_shows(server.raw_log(), secret) for secret in secrets), "the server's log shows a secret"
        assert not any(_shows(body.decode(errors="replace"), secret) for secret in secrets), (
            "an error answer of the server shows a secret"
        )

    def test_gc_deletes_the_artifacts(
        self,
        server: MlflowServer,
        artifacts_destination: str,
        server_env: Mapping[str, str],
        run_id: str,
        tmp_path: Path,
    ) -> None:
        """`mlflow gc` removes the artifacts of a deleted run from the destination."""
        _client().log_artifacts(run_id, str(write_tree(tmp_path / "tree", {"a/x.txt": b"1", "y.txt": b"2"})))
        stored_at = _stored_at(run_id)
        _client().delete_run(run_id)
        backend = server.options[server.options.index("--backend-store-uri") + 1]
        command = ["mlflow", "gc", "--backend-store-uri", backend, "--run-ids", run_id]
        env = dict(server_env) | {"MLFLOW_TRACKING_URI": server.url}
        done = run_cli([*command, "--artifacts-destination", artifacts_destination], env=env, cwd=tmp_path)
        assert done.returncode == 0, f"mlflow gc failed: {(done.stdout + done.stderr)[-2000:]}"
        _, body = _request(server, "GET", f"{API}?path={stored_at}")
        left = json.loads(body).get("files", [])
        assert not left, f"mlflow gc left the artifacts of a deleted run: {left}; implement delete_artifacts"


def _client() -> Any:
    from mlflow import MlflowClient

    return MlflowClient()


def _experiment_id() -> str:
    client = _client()
    experiment = client.get_experiment_by_name("plugkit-proxied")
    return str(experiment.experiment_id if experiment else client.create_experiment("plugkit-proxied"))


def _stored_at(run_id: str) -> str:
    """Where a run's artifacts lie, below the destination."""
    return urlsplit(str(_client().get_run(run_id).info.artifact_uri)).path.lstrip("/")


def _round_trip(run_id: str, tmp_path: Path, content: bytes) -> bytes:
    (tmp_path / "file.bin").write_bytes(content)
    _client().log_artifact(run_id, str(tmp_path / "file.bin"), "folder")
    target = tmp_path / "target"
    target.mkdir()
    return Path(_client().download_artifacts(run_id, "folder/file.bin", str(target))).read_bytes()


def _request(server: MlflowServer, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    """Send a path as it stands: requests and urllib3 would resolve `%2e%2e` before sending it."""
    address = urlsplit(server.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port or 80, timeout=60)
    try:
        connection.request(method, address.path + path, body)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _error_code(body: bytes) -> str | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer.get("error_code") if isinstance(answer, dict) else None


def _base_class_passes_error_codes() -> bool:
    """Whether `download_artifacts` keeps the error code of `_download_file` (it does since MLflow 3)."""
    from mlflow.store.artifact.artifact_repo import ArtifactRepository

    from mlflow_plugkit.errors import mlflow_error

    class Missing(ArtifactRepository):  # type: ignore[misc] # partly untyped
        def list_artifacts(self, path: str | None = None) -> list[Any]:
            return []

        def _download_file(self, remote_file_path: Any, local_path: Any) -> None:
            raise mlflow_error("missing", "RESOURCE_DOES_NOT_EXIST")

    probe: Any = Missing
    return outcome(lambda: probe("probe:/").download_artifacts("missing")) == "RESOURCE_DOES_NOT_EXIST"


def _shows(text: str, secret: str) -> bool:
    return secret in text or quote(secret, "") in text


def _skip_without(secrets: tuple[str, ...]) -> None:
    if not secrets:
        pytest.skip("the plugin's tests name no secrets (fixture secrets)")
