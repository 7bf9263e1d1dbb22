"""The metadata service of an ECS instance, and a credentials URL: temporary keys that the emulator knows."""

from __future__ import annotations

import json
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

from oss_emulator.server import Emulator
from oss_emulator.signing import Key

ROLES = "/latest/meta-data/ram/security-credentials/"


class MetadataService:
    """Hands out keys that live `lifetime` seconds, in the hardened mode (a session token is asked for) or not.

    Attributes:
        issued: the keys handed out, latest last.
        failing: True answers 500.
    """

    def __init__(self, oss: Emulator, role: str = "training", *, lifetime: float = 3600, hardened: bool = True) -> None:
        self.oss, self.role, self.lifetime, self.hardened = oss, role, lifetime, hardened
        self.issued: list[dict[str, Any]] = []
        self.failing = False
        self.session = uuid.uuid4().hex
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"service": self}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> MetadataService:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def issue(self) -> dict[str, Any]:
        """A new temporary key, as the service answers it."""
        number, expires = len(self.issued), time.time() + self.lifetime
        found = {
            "Code": "Success",
            "AccessKeyId": f"STS.Temporary{number}{uuid.uuid4().hex[:8]}",
            "AccessKeySecret": f"temporary-secret-{uuid.uuid4().hex}",
            "SecurityToken": f"temporary-token/+{uuid.uuid4().hex}==",
            "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(expires)),
        }
        self.oss.keys[found["AccessKeyId"]] = Key(found["AccessKeySecret"], found["SecurityToken"], expires)
        self.issued.append(found)
        return found


class _Handler(BaseHTTPRequestHandler):
    service: ClassVar[MetadataService]

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_PUT(self) -> None:
        known = self.service.hardened and self.path == "/latest/api/token"
        self._reply(200 if known else 404, self.service.session if known else "")

    def do_GET(self) -> None:
        service = self.service
        if service.failing:
            self._reply(500, "")
        elif self.path.startswith("/token/"):
            self._reply(200, json.dumps(service.issue()))
        elif service.hardened and self.headers.get("X-aliyun-ecs-metadata-token") != service.session:
            self._reply(403, "")
        elif self.path == ROLES:
            self._reply(200, service.role)
        elif self.path == ROLES + service.role:
            self._reply(200, json.dumps(service.issue()))
        else:
            self._reply(404, "")

    def _reply(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
