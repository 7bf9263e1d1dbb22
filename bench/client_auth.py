"""What authentication costs each request, and whether a long training loses calls.

    python bench/client_auth.py [--requests 600] [--json FILE]
    python bench/client_auth.py --training [--seconds 60] [--calls 7200]

The first sends requests of MLflow's own client to a server on loopback, one with auth and one without in turn, and
gives the median of the paired differences; the part that the plugin spends is timed by itself, too, without a
network. The token is cached: it comes from a program that runs once. The second is the claim that matters: the calls of
a two-hour run (one metric each second) in one minute, with tokens of five seconds, against a real `mlflow server`
behind a proxy that checks each token; it needs node for the OpenID Connect provider, and the packages of the tests.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from typing import Any

from report import publish

TESTS = Path(__file__).resolve().parent.parent / "packages" / "mlflow-request-auth" / "tests"


class Server:
    """A server on loopback that answers every request at once."""

    def __init__(self) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.uri = f"http://127.0.0.1:{self._http.server_address[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._http.server_close()


def figures(requests: int = 600) -> dict[str, Any]:
    """The cost of one request with auth cached; `nox -s bench -- client` takes its part from here."""
    with Server() as server, tempfile.TemporaryDirectory() as folder:
        helper, token = Path(folder, "helper.py"), Path(folder, "token")
        helper.write_text("print('a-token-for-the-benchmark')")
        token.write_text("a-token-for-the-benchmark")
        os.environ |= {
            "MLFLOW_TRACKING_URI": server.uri,
            "MLFLOW_AUTH_COMMAND": f"'{sys.executable}' '{helper}'",
            "MLFLOW_AUTH_TOKEN_FILE": str(token),
            "MLFLOW_AUTH_TOKEN_URL": "http://localhost/token",
            "MLFLOW_AUTH_CLIENT_ID": "benchmark",
        }
        return {**wire(server.uri, requests), **alone(server.uri)}


def wire(uri: str, requests: int) -> dict[str, Any]:
    """Requests over loopback, with and without auth in turn."""
    from mlflow.utils.rest_utils import MlflowHostCreds, http_request

    plain, authenticated = MlflowHostCreds(uri), MlflowHostCreds(uri, auth="command")

    def send(creds: Any) -> float:
        return timed(lambda: http_request(creds, "/api/2.0/mlflow/runs/log-metric", "POST", json={"key": "loss"}))

    for creds in (plain, authenticated) * 20:
        send(creds)
    pairs = []
    for number in range(requests):  # whoever is second in a pair finds warmer caches: take turns
        if number % 2:
            with_auth, without = send(authenticated), send(plain)
        else:
            without, with_auth = send(plain), send(authenticated)
        pairs.append((without, with_auth))
    return {
        "request without auth, ms (median)": round(statistics.median(p[0] for p in pairs), 3),
        "request with auth cached, ms (median)": round(statistics.median(p[1] for p in pairs), 3),
        "difference, ms (median of pairs)": round(statistics.median(b - a for a, b in pairs), 3),
    }


def alone(uri: str) -> dict[str, Any]:
    """The plugin's own part: finding the auth object, and adding the header. No network."""
    import requests
    from mlflow.tracking.request_auth.registry import fetch_auth

    hold_a_token()
    found: dict[str, Any] = {}
    for name in ("oauth2", "command", "token-file"):
        os.environ["MLFLOW_TRACKING_AUTH"] = name
        request = requests.Request("POST", f"{uri}/api", json={"key": "loss"}).prepare()

        def once(name: str = name, request: Any = request) -> None:
            request.hooks["response"].clear()
            fetch_auth(name)(request)

        def hundred(once: Callable[[], None] = once) -> None:
            for _ in range(100):
                once()

        once()
        best = [timed(hundred) / 100 for _ in range(30)]
        found[f"{name}: added to a request, ms (median; without the network)"] = round(statistics.median(best), 4)
    return found


def hold_a_token() -> None:
    """Give the provider `oauth2` a token, as if it had just got one: what is timed is what comes after."""
    from mlflow_request_auth.oauth2 import OAuth2Client
    from mlflow_request_auth.tokens import Token

    held = Token("a-token-for-the-benchmark", time.time() + 3600, 3600.0)
    OAuth2Client.fetch = lambda self, previous=None: held  # type: ignore[method-assign]


def training(seconds: float, calls: int) -> dict[str, Any]:
    """The calls of a long run, compressed, with tokens of five seconds."""
    sys.path.insert(0, str(TESTS))
    from real_oidc import SECRET, OidcProvider  # type: ignore[import-not-found]
    from training import CheckingProxy, train  # type: ignore[import-not-found]

    from mlflow_plugkit_testing.server import MlflowServer

    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        oidc = stack.enter_context(OidcProvider())
        options = ["--serve-artifacts", "--artifacts-destination", str(folder / "artifacts")]
        server = stack.enter_context(MlflowServer(options, folder=folder))
        proxy = stack.enter_context(CheckingProxy(server.url, oidc.issuer))
        os.environ |= {
            "MLFLOW_TRACKING_URI": proxy.uri,
            "MLFLOW_TRACKING_AUTH": "oauth2",
            "MLFLOW_AUTH_ISSUER": oidc.issuer,
            "MLFLOW_AUTH_CLIENT_ID": "service",
            "MLFLOW_AUTH_CLIENT_SECRET": SECRET,
            "MLFLOW_AUTH_RESOURCE": "urn:jwt:mlflow:5s",
        }
        report = train(seconds, threads=8, calls=calls)
        return {
            "seconds": round(report.seconds, 1),
            "metrics logged": report.sent,
            "metrics that arrived": report.arrived,
            "files logged": report.files_sent,
            "files that arrived": report.files_arrived,
            "calls that failed": len(report.failures),
            "requests that the proxy let through": proxy.passed,
            "requests refused first, and sent again": proxy.refused,
            "tokens got from the provider": oidc.grants("service"),
        }


def timed(call: Callable[[], object]) -> float:
    """Milliseconds."""
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--training", action="store_true", help="the long run in place of the cost")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--calls", type=int, default=7200)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    options = parser.parse_args()
    report: dict[str, Any] = {"mlflow": version("mlflow-skinny"), "python": sys.version.split()[0]}
    report |= training(options.seconds, options.calls) if options.training else figures(options.requests)
    publish(report, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
