"""A minimal correct artifact repository over HTTP, and its server: what a fault proxy can stand between.

The server holds objects in memory. PUT is refused when the body is not what Content-MD5 says; GET of a
path that ends in a slash lists it; all else is one object.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

import requests
from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from mlflow_plugkit.compat import init_artifact_repository
from mlflow_plugkit.errors import mlflow_error

SCHEME = "http-artifacts:"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    objects: dict[str, bytes]

    def do_PUT(self):
        size = int(self.headers["Content-Length"])
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True
        elif base64.b64encode(hashlib.md5(body).digest()).decode() != self.headers["Content-MD5"]:
            self.answer(400)
        else:
            self.objects[unquote(self.path)] = body
            self.answer(200)

    def do_GET(self):
        path = unquote(self.path)
        if path.endswith("/"):
            self.answer(200, json.dumps({k: len(v) for k, v in self.objects.items() if k.startswith(path)}).encode())
        elif path in self.objects:
            self.answer(200, self.objects[path])
        else:
            self.answer(404)

    def do_DELETE(self):
        self.objects.pop(unquote(self.path), None)
        self.answer(200)

    def answer(self, status, body=b""):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-MD5", base64.b64encode(hashlib.md5(body).digest()).decode())
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that go away are what the tests are about."""


@contextmanager
def http_artifact_server() -> Iterator[int]:
    """Serve on loopback; gives the port."""
    server = Server(("127.0.0.1", 0), type("Objects", (Handler,), {"objects": {}}))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


class HttpRepository(ArtifactRepository):
    attempts = 4

    def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **_):
        init_artifact_repository(self, ArtifactRepository, artifact_uri, tracking_uri, registry_uri)
        self.url = artifact_uri.removeprefix(SCHEME)

    def request(self, method, path, data=None, headers=None):
        """The body of a good answer; another attempt after anything that another attempt can mend."""
        for _ in range(self.attempts):
            try:
                answer = requests.request(method, f"{self.url}/{quote(path)}", data=data, headers=headers, timeout=10)
            except requests.RequestException as exc:
                problem = type(exc).__name__
                continue
            problem = str(answer.status_code)
            if answer.status_code == 404:
                raise mlflow_error(f"No such artifact: {path}", "RESOURCE_DOES_NOT_EXIST")
            if answer.status_code == 200 and self.is_sound(answer):
                return answer.content
        raise mlflow_error(f"{method} {path} failed: {problem}", "TEMPORARILY_UNAVAILABLE")

    def is_sound(self, answer):
        return base64.b64encode(hashlib.md5(answer.content).digest()).decode() == answer.headers["Content-MD5"]

    def log_artifact(self, local_file, artifact_path=None):
        body = Path(local_file).read_bytes()
        place = "/".join(filter(None, [artifact_path, os.path.basename(local_file)]))
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        self.request("PUT", place, body, {"Content-MD5": digest})

    def log_artifacts(self, local_dir, artifact_path=None):
        for file in sorted(p for p in Path(local_dir).rglob("*") if p.is_file()):
            inside = file.parent.relative_to(local_dir).as_posix()
            self.log_artifact(str(file), "/".join(p for p in (artifact_path, inside) if p and p != ".") or None)

    def log_artifact_from_stream(self, stream, artifact_file_name, artifact_path=None):
        body = stream.read()
        digest = base64.b64encode(hashlib.md5(body).digest()).decode()
        self.request("PUT", f"{artifact_path}/{artifact_file_name}", body, {"Content-MD5": digest})

    def list_artifacts(self, path=None):
        prefix = f"{path}/" if path else ""
        stored = json.loads(self.request("GET", prefix))
        root = "/" + self.url.split("/", 3)[3] + "/"
        found = {}
        for key, size in stored.items():
            inside = key.removeprefix(root).removeprefix(prefix)
            name, slash, _ = inside.partition("/")
            found[prefix + name] = FileInfo(prefix + name, bool(slash), None if slash else size)
        return [found[name] for name in sorted(found)]

    def _download_file(self, remote_file_path, local_path):
        content = self.request("GET", remote_file_path)
        Path(local_path).write_bytes(content)

    def delete_artifacts(self, artifact_path=None):
        for info in self.list_artifacts(artifact_path):
            if info.is_dir:
                self.delete_artifacts(info.path)
            else:
                self.request("DELETE", info.path)
        if artifact_path:
            self.request("DELETE", artifact_path)
