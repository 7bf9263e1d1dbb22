"""The conformance class for server apps (entry-point group `mlflow.app`), under uvicorn and under gunicorn."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from mlflow_plugkit.compat import mlflow_version
from mlflow_plugkit_testing.artifacts_base import MEBIBYTE, random_bytes
from mlflow_plugkit_testing.server import MlflowServer, ServerError, answers, fresh_database, plugin_env, run_cli
from mlflow_plugkit_testing.suite import ConformanceSuite

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
UPLOAD = "/api/2.0/mlflow-artifacts/artifacts/plugkit/large.bin"
ROUTES = ("/health", "/version", "/", SEARCH, "/api/2.0/mlflow-artifacts/artifacts?path=plugkit", "/no/such/page")
NATIVE_ROUTES = ("/api/3.0/mlflow/server-info", "/v1/traces")
CREDENTIAL = "plugkit-client-credential-7f3a"
PREFIX = "/pre/fix"
TIMEOUT = 60


@dataclass
class RunningApp:
    """An app's server, or why it does not run."""

    kind: str
    server: MlflowServer
    headers: Mapping[str, str]
    error: str | None = None

    def request(self, method: str, path: str, **kwargs: Any) -> requests.Response:
        """The answer to one request; a server that did not start fails the rule that asks."""
        assert self.error is None, f"mlflow server with this app does not start under {self.kind}: {self.error}"
        headers = dict(self.headers) | kwargs.pop("headers", {})
        return requests.request(method, self.server.url + path, headers=headers, timeout=TIMEOUT, **kwargs)

    def get(self, path: str) -> requests.Response:
        """`request` with GET."""
        return self.request("GET", path)

    def at_root(self, path: str) -> requests.Response:
        """GET, without the static prefix."""
        root = self.server.url.removesuffix(PREFIX)
        return requests.get(root + path, headers=dict(self.headers), timeout=TIMEOUT)


class AppConformance(ConformanceSuite):
    """Every rule for a server app, which must serve as ASGI under uvicorn and as WSGI under gunicorn.

    MLflow >= 3 runs the app under uvicorn by default, and a plain function as a factory; under
    `--gunicorn-opts`, and in MLflow 2, it must be WSGI. `_MLFLOW_SGI_NAME` tells a factory which.

        class TestDemoApp(AppConformance):
            app_name = "demo"

            def check_app_behaviour(self, response):
                assert "x-request-id" in response.headers
    """

    #: The name of the entry point, for `mlflow server --app-name`.
    app_name: str = ""
    #: Headers that a client must send to be let in.
    client_headers: Mapping[str, str] = {}
    #: Bytes of the upload that the app must pass on whole.
    large_file_size: int = 6 * MEBIBYTE

    def check_app_behaviour(self, response: requests.Response) -> None:
        """Override it: assert what the app adds to every answer, whichever part of MLflow gave it."""
        pytest.skip("the plugin's tests define no check_app_behaviour")

    @pytest.fixture(scope="class")
    @classmethod
    def server_env(cls) -> Mapping[str, str]:
        """The environment of the server; override it for the app's configuration: `plugin_env(env={...})`."""
        return plugin_env()

    @pytest.fixture(scope="class", params=["uvicorn", "gunicorn"])
    @classmethod
    def app(
        cls,
        request: pytest.FixtureRequest,
        server_env: Mapping[str, str],
        tmp_path_factory: pytest.TempPathFactory,
    ) -> Iterator[RunningApp]:
        """The app on a server of each kind."""
        if request.param == "uvicorn" and not _has_uvicorn():
            pytest.skip("this MLflow has no uvicorn server")
        options = ["--gunicorn-opts", "--timeout 60"] if request.param == "gunicorn" else []
        yield from cls._run(request.param, options, server_env, tmp_path_factory)

    @pytest.fixture(scope="class")
    @classmethod
    def prefixed_app(
        cls, server_env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[RunningApp]:
        """The app on MLflow's default server, below a static prefix."""
        yield from cls._run("the default server", ["--static-prefix", PREFIX], server_env, tmp_path_factory)

    @classmethod
    def _run(
        cls, kind: str, options: list[str], env: Mapping[str, str], tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[RunningApp]:
        assert cls.app_name, "set app_name to the name of the mlflow.app entry point"
        folder = tmp_path_factory.mktemp("app")
        artifacts = ["--serve-artifacts", "--artifacts-destination", (folder / "artifacts").as_uri()]
        server = MlflowServer(["--app-name", cls.app_name, *artifacts, *options], folder=folder, env=env, ready=answers)
        running = RunningApp(kind, server, cls.client_headers)
        try:
            server.start()
        except ServerError as exc:
            running.error = str(exc)
        try:
            yield running
        finally:
            server.stop()

    def test_the_server_is_healthy(self, app: RunningApp) -> None:
        """`/health` answers 200 OK, for load balancers."""
        response = app.get("/health")
        assert (response.status_code, response.text) == (200, "OK"), (
            f"/health must answer 200 OK under {app.kind}: {response.status_code} {response.text[:200]!r}"
        )

    def test_the_version_is_served(self, app: RunningApp) -> None:
        """`/version` answers MLflow's version, which clients compare with theirs."""
        version = str(mlflow_version())
        response = app.get("/version")
        assert (response.status_code, response.text) == (200, version), (
            f"/version must answer {version} under {app.kind}: {response.status_code}"
        )

    def test_the_ui_is_served(self, app: RunningApp) -> None:
        """`/` answers MLflow's page."""
        response = app.get("/")
        kind = response.headers.get("Content-Type", "")
        assert response.status_code == 200, f"the UI's page is not served under {app.kind}: {response.status_code}"
        assert kind.startswith("text/html"), f"the UI's page is not served as HTML under {app.kind}: {kind}"

    def test_the_rest_api_is_served(self, app: RunningApp) -> None:
        """The REST API answers through the app."""
        response = app.get(SEARCH)
        assert response.status_code == 200, (
            f"experiments/search fails under {app.kind}: {response.status_code} {response.text[:200]!r}"
        )
        assert "experiments" in response.json(), f"experiments/search answers something else: {response.text[:200]!r}"

    def test_errors_stay_json(self, app: RunningApp) -> None:
        """MLflow's errors keep their status and their JSON, which clients and the UI read."""
        response = app.get("/api/2.0/mlflow/experiments/get?experiment_id=404404")
        try:
            code = response.json().get("error_code")
        except requests.JSONDecodeError:
            code = f"no JSON: {response.text[:200]!r}"
        assert (response.status_code, code) == (404, "RESOURCE_DOES_NOT_EXIST"), (
            f"an error must stay JSON with its status under {app.kind}: {response.status_code}, {code}"
        )

    def test_streams_pass_whole(self, app: RunningApp) -> None:
        """An upload in chunks of unknown total length, and its download, pass the app byte for byte."""
        content = random_bytes(self.large_file_size)
        chunks = (content[start : start + 100_000] for start in range(0, len(content), 100_000))
        response = app.request("PUT", UPLOAD, data=chunks)
        assert response.status_code == 200, (
            f"a streamed upload fails under {app.kind}: {response.status_code} {response.text[:200]!r}"
        )
        assert app.get(UPLOAD).content == content, f"a streamed file came back with other bytes under {app.kind}"

    def test_every_route_passes_through_the_app(self, app: RunningApp) -> None:
        """The app's behaviour shows on every route: under uvicorn, MLflow's native routes lie in front of Flask."""
        routes = ROUTES + (NATIVE_ROUTES if app.kind == "uvicorn" else ())
        missed = {}
        for route in routes:
            response = app.request("POST" if route == "/v1/traces" else "GET", route)
            try:
                self.check_app_behaviour(response)
            except AssertionError as exc:
                missed[route] = str(exc)[:80]
        assert not missed, f"routes that bypass the app under {app.kind}: {missed}; wrap the whole ASGI app, not Flask"

    def test_the_static_prefix_is_honoured(self, prefixed_app: RunningApp) -> None:
        """With `--static-prefix` the UI and its API answer below it (health and version beside it in MLflow 2)."""
        ajax = SEARCH.replace("/api/", "/ajax-api/")  # MLflow 2 leaves /api/ where it is
        found = {route: prefixed_app.get(route).status_code for route in ("/", ajax)}
        for route in ("/health", "/version"):
            below = prefixed_app.get(route).status_code
            found[route] = below if below != 404 else prefixed_app.at_root(route).status_code
        assert set(found.values()) == {200}, f"routes that do not answer below --static-prefix {PREFIX}: {found}"

    def test_other_scopes_do_not_crash(self, server_env: Mapping[str, str], tmp_path: Path) -> None:
        """The lifespan starts, and a WebSocket handshake is answered, if only by closing it."""
        if not _has_uvicorn():
            pytest.skip("this MLflow has no uvicorn server")
        variables = {
            "_MLFLOW_SGI_NAME": "uvicorn",
            "_MLFLOW_SERVER_FILE_STORE": fresh_database(tmp_path),
            "_MLFLOW_SERVER_ARTIFACT_ROOT": (tmp_path / "artifacts").as_uri(),
        }
        done = run_cli(
            ["mlflow_plugkit_testing.app_scopes", self.app_name], env=dict(server_env) | variables, cwd=tmp_path
        )
        assert done.returncode == 0, f"ASGI scopes other than HTTP crash the app: {done.stderr[-2000:]}"
        results = json.loads(done.stdout.splitlines()[-1])
        wrong = {scope: result for scope, result in results.items() if result != "ok"}
        assert not wrong, f"ASGI scopes other than HTTP are not handled: {wrong}; pass them on to MLflow's app"

    def test_client_credentials_stay_out_of_the_log(self, app: RunningApp) -> None:
        """What a client sends to authenticate does not stand in the server's log."""
        for headers in ({"Authorization": f"Bearer {CREDENTIAL}"}, {"Cookie": f"session={CREDENTIAL}"}):
            for route in ("/version", SEARCH, "/no/such/page"):
                app.request("GET", route, headers=headers)
        assert CREDENTIAL not in app.server.raw_log(), f"a client's credential stands in the log under {app.kind}"


def _has_uvicorn() -> bool:
    import mlflow

    return (Path(mlflow.__file__).parent / "server" / "fastapi_app.py").exists()
