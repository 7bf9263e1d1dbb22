"""A training run against a real `mlflow server` behind a proxy that checks every access token.

The tests run it for some seconds; bench/client_auth.py for a minute, with the calls of two hours.
"""

from __future__ import annotations

import http.client
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import mlflow
import requests
from joserfc import jwt
from joserfc.jwk import KeySet


class CheckingProxy:
    """Lets requests through whose bearer token the provider signed and that has not ended: to the second, no leeway."""

    def __init__(self, upstream: str, issuer: str) -> None:
        proxy = self
        host = upstream.removeprefix("http://")
        keys = KeySet.import_key_set(requests.get(f"{issuer}/jwks", timeout=10).json())
        self.passed = self.refused = 0
        self.tokens: dict[str, float] = {}
        self._lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def handle_any(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                if not proxy.admits(self.headers.get("Authorization", ""), keys, issuer):
                    self.answer(401, [], b"{}")
                    return
                skip = ("host", "authorization", "connection", "content-length")
                headers = {n: v for n, v in self.headers.items() if n.lower() not in skip}
                try:
                    response, content = self.forward(body, headers)
                except (http.client.HTTPException, ConnectionError):  # the server closed an idle connection
                    self.upstream.close()
                    response, content = self.forward(body, headers)
                kept = [(n, v) for n, v in response.getheaders() if n.lower() in ("content-type",)]
                self.answer(response.status, kept, content)

            def setup(self) -> None:
                super().setup()
                self.upstream = http.client.HTTPConnection(host, timeout=60)

            def finish(self) -> None:
                self.upstream.close()
                super().finish()

            def forward(self, body: bytes, headers: dict[str, str]) -> tuple[http.client.HTTPResponse, bytes]:
                self.upstream.request(self.command, self.path, body, headers)
                response = self.upstream.getresponse()
                return response, response.read()

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any

            def answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 128

        self._http = Server(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True)
        self.uri = f"http://127.0.0.1:{self._http.server_address[1]}"

    def admits(self, header: str, keys: Any, issuer: str) -> bool:
        scheme, _, token = header.partition(" ")
        if token not in self.tokens:
            try:
                claims = jwt.decode(token, keys, algorithms=["RS256"]).claims
                self.tokens[token] = float(claims["exp"]) if claims["iss"] == issuer else 0.0
            except Exception:  # whatever is wrong with a token, it is not let in
                self.tokens[token] = 0.0
        good = scheme == "Bearer" and time.time() < self.tokens[token]
        with self._lock:
            self.passed, self.refused = self.passed + good, self.refused + (not good)
        return good

    def __enter__(self) -> CheckingProxy:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._http.shutdown()
        self._thread.join(10)
        self._http.server_close()


@dataclass
class Report:
    """What a run did, and what arrived."""

    sent: int = 0
    arrived: int = 0
    files_sent: int = 0
    files_arrived: int = 0
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)


def train(seconds: float, threads: int = 4, calls: int | None = None) -> Report:
    """Log metrics one by one from several threads, and a file now and then; then read all of it back.

    Args:
        seconds: how long, or over how long to spread the calls.
        threads: how many loops log at once.
        calls: how many metrics in all; as many as there is time for if left out.
    """
    report = Report()
    client = mlflow.MlflowClient()
    run = client.create_run(client.create_experiment(f"training-{time.time_ns()}"))
    start = time.monotonic()
    lock = threading.Lock()

    def loop(number: int) -> None:
        share = None if calls is None else calls // threads
        step = 0
        with tempfile.TemporaryDirectory() as folder:
            while (time.monotonic() - start < seconds) if share is None else step < share:
                if share is not None:  # keep to the timetable, as a training loop does
                    time.sleep(max(0.0, start + seconds * step / share - time.monotonic()))
                try:
                    client.log_metric(run.info.run_id, f"loss-{number}", float(step), step=step)
                    if step % 40 == 0:
                        Path(folder, f"{number}-{step}.bin").write_bytes(bytes(100_000))
                        client.log_artifact(run.info.run_id, str(Path(folder, f"{number}-{step}.bin")))
                        with lock:
                            report.files_sent += 1
                except Exception as exc:  # counted: the claim is that there is none
                    report.failures.append(str(exc))
                step += 1
        with lock:
            report.sent += step

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(loop, range(threads)))
    report.seconds = time.monotonic() - start
    for number in range(threads):
        report.arrived += len({m.step for m in client.get_metric_history(run.info.run_id, f"loss-{number}")})
    report.files_arrived = len(client.list_artifacts(run.info.run_id))
    return report
