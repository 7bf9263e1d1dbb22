"""A real Elasticsearch node as a process: started on loopback, killed, started again on its data, ended by its pid."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import requests

from mlflow_plugkit_testing import elasticsearch_distribution as distribution
from mlflow_plugkit_testing.elasticsearch_jars import Installation
from mlflow_plugkit_testing.server import LOOPBACK, free_port

START_SECONDS = 240.0
STOP_SECONDS = 20.0
REQUEST_SECONDS = 60.0
_ATTEMPTS = 5
_TAKEN = ("bindhttpexception", "address already in use")

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""


class NodeError(RuntimeError):
    """The node did not start or did not end; the message holds the end of its log."""


class Server:
    """What a test needs to know of an Elasticsearch, whoever runs it."""

    @property
    def url(self) -> str:
        """Its address, without a trailing slash."""
        raise NotImplementedError

    @property
    def version(self) -> str:
        """Such as `8.19.21`."""
        raise NotImplementedError

    @property
    def headers(self) -> dict[str, str]:
        """What a request must carry to be let in: nothing, or an Authorization header."""
        return {}

    @property
    def ca_file(self) -> Path | None:
        """The certificates of the authorities to trust; None for the system's, or without TLS."""
        return None

    def request(self, method: str, path: str, body: Any = None) -> requests.Response:
        """Send one request, with the headers that let in, and return what comes."""
        verify = str(self.ca_file) if self.ca_file else True
        return requests.request(
            method, f"{self.url}{path}", json=body, headers=self.headers, verify=verify, timeout=REQUEST_SECONDS
        )

    def api_key(self, roles: Mapping[str, Mapping[str, Any]]) -> str:
        """A new API key, as `Authorization: ApiKey` takes it; security has to be on.

        Args:
            roles: role descriptors by name, which bound what the key may do
                (https://www.elastic.co/docs/api/doc/elasticsearch/operation/operation-security-create-api-key).
        """
        body = {"name": uuid.uuid4().hex, "role_descriptors": dict(roles)}
        answer = self.request("POST", "/_security/api_key", body)
        answer.raise_for_status()
        return str(answer.json()["encoded"])


class Node(Server):
    """An Elasticsearch node whose state is on disk, so that several processes can hold one and end or restart it.

    Args:
        installation: what to run.
        folder: the node's home: its data, its configuration, its log. It is made if it is not there.
        port: the HTTP port; one that is free if left out. It stays the same from start to start.
        owner: the pid of the process without which the node must not be; this one's if left out.
        heap: the JVM's `-Xmx`.
        settings: further settings of Elasticsearch; they win.
        remove: the folder that the node removes when its owner has gone: its own, or one around it.
        quick: whether Java compiles lightly: a start and a minute of tests take half of the processor time, but lasting
            load runs slower. Not for measurements.
        tls: whether a secured node speaks HTTPS, with a certificate of its own authority (`ca_file`).
    """

    def __init__(
        self,
        installation: Installation,
        folder: Path,
        port: int | None = None,
        *,
        owner: int | None = None,
        heap: str = "1g",
        settings: Mapping[str, str] | None = None,
        remove: Path | None = None,
        quick: bool = False,
        tls: bool = False,
    ) -> None:
        self.installation, self.folder, self.heap, self.remove = installation, folder, heap, remove
        self.settings = dict(settings or {})
        self.quick, self.tls = quick, tls
        self._owner = owner or os.getpid()
        self._wanted_port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def version(self) -> str:
        return self.installation.version

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`, or `https`."""
        return f"{'https' if self.tls else 'http'}://{LOOPBACK}:{self.port}"

    @property
    def port(self) -> int:
        return self._state()["port"]

    @property
    def pid(self) -> int:
        """The Java process's id, of its latest start."""
        return self._state()["pid"]

    @property
    def credentials(self) -> tuple[str, str] | None:
        """User and password of a superuser; None of a node without security."""
        if not self.installation.secured:
            return None
        return distribution.USER, (self.folder / "password").read_text()

    @property
    def headers(self) -> dict[str, str]:
        """Nothing, or the superuser's Authorization header."""
        if self.credentials is None:
            return {}
        return {"Authorization": "Basic " + base64.b64encode(":".join(self.credentials).encode()).decode()}

    @property
    def ca_file(self) -> Path | None:
        """The certificate of the authority that signed the node's; None without TLS."""
        return self.folder / "ca.pem" if self.tls else None

    @property
    def is_running(self) -> bool:
        """Whether the process is there; not whether it answers yet."""
        state = self._state()
        return bool(state) and _runs(state["pid"], self.folder)

    def start(self) -> Node:
        """Start the node on the data that is there, and wait until all of it can be searched. Running, it stays.

        Raises:
            NodeError: it ended early, or was not ready in time.
        """
        if self.is_running:
            return self
        self._write_home()
        port = self._wanted_port or self._state().get("port")
        for _ in range(_ATTEMPTS):
            problem = self._spawn(port or free_port())
            if problem is None:
                return self
            taken = any(text in self.log().lower() for text in _TAKEN)
            self.kill()
            if port or not taken:
                break
        raise NodeError(f"Elasticsearch {self.version} {problem}. Its log ends with:\n{self.log()[-6000:]}")

    def kill(self) -> None:
        """End the process at once (SIGKILL), as a crash would; the data stays."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask the node to close, and kill it if it has not after twenty seconds; the data stays."""
        with suppress(NodeError):
            self._end(signal.SIGTERM)
        self.kill()

    def log(self) -> str:
        """What the node printed since its latest start."""
        path = self.folder / "node.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def _state(self) -> dict[str, int]:
        try:
            state: dict[str, int] = json.loads((self.folder / "node.json").read_text())
        except FileNotFoundError:
            return {}
        return state

    def _write_home(self) -> None:
        for name in ("config", "plugins", "tmp"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "config" / "log4j2.properties").write_text(LOGGING)
        if self.installation.secured:
            distribution.write_user(self.folder)
        for name, target in (("lib", self.installation.libraries), ("modules", self.installation.modules)):
            (self.folder / name).unlink(missing_ok=True)  # another version's, of a folder that is kept
            (self.folder / name).symlink_to(target, target_is_directory=True)

    def _spawn(self, port: int) -> str | None:
        """Start the process; None once it is ready, else what went wrong."""
        cluster = f"plugkit-{uuid.uuid4().hex[:8]}"  # one of its own tells this start from whoever else has the port
        with (self.folder / "node.log").open("wb") as log:
            self._process = subprocess.Popen(
                self._command(cluster, port),
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        temporary = self.folder / f"node.json.{os.getpid()}"
        temporary.write_text(json.dumps({"pid": self._process.pid, "port": port}))
        temporary.replace(self.folder / "node.json")
        return self._wait(cluster)

    def _command(self, cluster: str, port: int) -> list[str]:
        java = self.installation
        options = ["-Xms256m", f"-Xmx{self.heap}", "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"]
        if self.quick:
            options += ["-XX:TieredStopAtLevel=1"]
        if java.java_version >= 23:  # what Elasticsearch does warns from here on
            options += ["--enable-native-access=ALL-UNNAMED", "--sun-misc-unsafe-memory-access=allow"]
        options += [f"-Djava.io.tmpdir={self.folder / 'tmp'}", f"-Des.path.home={self.folder}"]
        options += [f"-Dlog4j2.configurationFile={self.folder / 'config' / 'log4j2.properties'}"]
        if java.secured:  # see SpacelessBreaks
            options += ["-Djava.locale.providers=SPI,CLDR"]
        else:  # the jars are without it, and its absence would take zstd, thus best_compression, along
            options += ["-Dorg.elasticsearch.nativeaccess.enableVectorLibrary=false"]
        classes = os.pathsep.join([str(java.classes), str(java.libraries / "*")])
        settings = {
            "cluster.name": cluster,
            "node.name": "node-1",
            "discovery.type": "single-node",
            "network.host": LOOPBACK,
            "http.port": str(port),
            "transport.port": "0",
            # A full disk must not make indices read-only, nor a forgotten mapping an index with a guessed one.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            "action.auto_create_index": "false",
            # Each test makes its own indices.
            "cluster.max_shards_per_node": "10000",
        }
        if java.secured:
            settings |= distribution.SETTINGS
        if self.tls:
            settings |= distribution.write_certificate(self.folder)
        settings |= self.settings
        main = ["StartNode", str(self.folder), str(self._owner), str(self.remove or "")]
        return [str(java.java), *options, "-cp", classes, *main, *(f"{k}={v}" for k, v in settings.items())]

    def _wait(self, cluster: str) -> str | None:
        assert self._process is not None
        end = time.monotonic() + START_SECONDS
        while time.monotonic() < end:
            code = self._process.poll()
            if code is not None:
                return f"ended with exit status {code} before it was ready"
            if self._is_ready(cluster):
                return None
            time.sleep(0.1)
        return f"was not ready after {START_SECONDS:g} seconds"

    def _is_ready(self, cluster: str) -> bool:
        """Whether our own node, and not another that took the port, has every primary shard."""
        try:
            answer = self.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=5s")
            return answer.status_code == 200 and answer.json()["cluster_name"] == cluster
        except (requests.RequestException, ValueError, KeyError):
            return False

    def _end(self, number: signal.Signals) -> None:
        state = self._state()
        if not state or not _runs(state["pid"], self.folder):
            return
        with suppress(ProcessLookupError):
            os.kill(state["pid"], number)
        end = time.monotonic() + STOP_SECONDS
        while _runs(state["pid"], self.folder):
            if self._process is not None:
                self._process.poll()
            if time.monotonic() > end:
                raise NodeError(f"Process {state['pid']} is there {STOP_SECONDS:g} seconds after {number.name}.")
            time.sleep(0.05)
        if self._process is not None and self._process.pid == state["pid"]:
            self._process.wait(STOP_SECONDS)


def _runs(pid: int, folder: Path) -> bool:
    """Whether the process is there, no zombie, and the node of this folder: a pid may have been given away."""
    import psutil  # type: ignore[import-untyped, unused-ignore] # its stubs are a package of their own

    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and f"-Des.path.home={folder}" in process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return False
