"""A real Elasticsearch for tests: an existing cluster, or a node of its own from published jars.

    @pytest.fixture(scope="session")
    def elasticsearch():
        with shared_node("8") as node:
            yield node

`shared_node` takes, in this order: the cluster that ELASTICSEARCH_URL names; one node for all processes of the test
run, where Java and Maven are there; else it skips the tests and says what is missing. `elasticsearch_node` starts a
node for one test. By hand: `python -m mlflow_plugkit_testing.elasticsearch [--version 8|9] [--port N] [--folder DIR]`.
"""

from __future__ import annotations

import argparse
import base64
import getpass
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlflow_plugkit_testing.elasticsearch_jars import (
    FetchError,
    Installation,
    MissingError,
    exact_version,
    installation,
    missing,
)
from mlflow_plugkit_testing.elasticsearch_node import Node, NodeError, Server

__all__ = ["Cluster", "Node", "NodeError", "elasticsearch_node", "missing", "shared_node"]

CLUSTER_VARIABLE = "ELASTICSEARCH_URL"
_OWN_RUN = uuid.uuid4().hex
_users: Counter[Path] = Counter()
_users_lock = threading.Lock()


class Cluster(Server):
    """An existing cluster, named by the environment: tests may use it, but neither end nor start it."""

    def __init__(self, url: str, headers: Mapping[str, str], ca_file: str | None = None) -> None:
        self._url, self._headers, self._ca_file = url, dict(headers), ca_file

    @property
    def url(self) -> str:
        return self._url

    @property
    def headers(self) -> dict[str, str]:
        return self._headers

    @property
    def ca_file(self) -> Path | None:
        return Path(self._ca_file) if self._ca_file else None

    @property
    def version(self) -> str:
        """What the cluster says."""
        answer = self.request("GET", "/_nodes/_local")  # a node of jars has no `GET /`
        answer.raise_for_status()
        return str(next(iter(answer.json()["nodes"].values()))["version"])

    def start(self) -> None:
        """Skip the test that would start it."""
        pytest.skip(f"{CLUSTER_VARIABLE} names a cluster that a test must neither end nor start")

    kill = stop = start


@contextmanager
def elasticsearch_node(
    version: str | None = None,
    folder: Path | None = None,
    port: int | None = None,
    *,
    heap: str = "1g",
    settings: Mapping[str, str] | None = None,
    quick: bool = False,
    secured: bool = False,
    tls: bool = False,
) -> Iterator[Node]:
    """A node for the length of the block, of this process alone.

    Args:
        version: `8`, `9` or a release; MLFLOW_PLUGKIT_ELASTICSEARCH_VERSION or 8 if left out.
        folder: keep its data there; a temporary folder if left out.
        port: the HTTP port; a free one if left out.
        heap: the JVM's `-Xmx`.
        settings: further settings of Elasticsearch.
        quick: let Java compile lightly: half of the processor time for a start and a minute of tests. Not for
            measurements.
        secured: the whole distribution with security on, of the newest release that can be had as one, instead of
            the newest jars. `node.credentials` lets in, and API keys can be made.
        tls: HTTPS, for a secured node; `node.ca_file` is the certificate to trust.

    Raises:
        MissingError: Java or Maven is not installed.
        NodeError: it did not start.
    """
    found = installation(version, secured=secured)
    home = (folder or Path(tempfile.mkdtemp(prefix="plugkit-elasticsearch-"))).resolve()
    remove = None if folder else home
    node = Node(found, home, port, heap=heap, settings=settings, remove=remove, quick=quick, tls=tls)
    try:
        yield node.start()
    finally:
        if folder is None:
            node.kill()
            shutil.rmtree(home, ignore_errors=True)
        else:
            node.stop()


@contextmanager
def shared_node(version: str | None = None, *, secured: bool = False) -> Iterator[Node | Cluster]:
    """The Elasticsearch of this test run, for a fixture of scope `session`.

    All workers of pytest-xdist get the same node of a version; it ends with the run, however that ends. A test makes
    indices under a name of its own and deletes them. ELASTICSEARCH_URL wins, with ELASTICSEARCH_API_KEY, or
    ELASTICSEARCH_USERNAME and ELASTICSEARCH_PASSWORD, and ELASTICSEARCH_CA_CERTS.

    Args:
        version: as in `elasticsearch_node`.
        secured: as in `elasticsearch_node`.
    """
    if os.environ.get(CLUSTER_VARIABLE):
        yield _cluster(os.environ, version)
        return
    if reason := missing(version, secured=secured):
        pytest.skip(reason)
    found = installation(version, secured=secured)
    folder, owner = _run_folder(found)
    node = Node(found, folder / "node", owner=owner, remove=folder, quick=True)
    with _in_use(node, folder, ends_here=owner == os.getpid()):
        yield node


@contextmanager
def _in_use(node: Node, folder: Path, *, ends_here: bool) -> Iterator[None]:
    """Start the node unless another process has; end it after its last use in the process that the run ends with."""
    from filelock import FileLock

    with _users_lock:
        _users[folder] += 1
        folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / "lock"):
            node.start()
        yield
    finally:
        with _users_lock:
            _users[folder] -= 1
            if ends_here and not _users[folder]:
                node.kill()
                shutil.rmtree(folder, ignore_errors=True)


def _run_folder(found: Installation) -> tuple[Path, int]:
    """Where the node of this test run lives, and the pid of the process that the run ends with.

    A worker of pytest-xdist is a child of the process that leads the run.
    """
    is_worker = "PYTEST_XDIST_WORKER" in os.environ
    owner = os.getppid() if is_worker else os.getpid()
    run = os.environ["PYTEST_XDIST_TESTRUNUID"] if is_worker else _OWN_RUN
    parent = Path(tempfile.gettempdir(), f"plugkit-elasticsearch-{getpass.getuser()}").resolve()
    parent.mkdir(mode=0o700, exist_ok=True)  # another user's is none of ours: the name holds the user
    return parent / f"{found.version}-{'secured' if found.secured else 'plain'}-{run}", owner


def _cluster(environment: Mapping[str, str], version: str | None) -> Cluster:
    """The cluster that the environment names; the test is skipped where it is of another major version."""
    url = environment[CLUSTER_VARIABLE].rstrip("/")
    headers = {}
    if key := environment.get("ELASTICSEARCH_API_KEY"):
        headers["Authorization"] = f"ApiKey {key}"
    elif password := environment.get("ELASTICSEARCH_PASSWORD"):
        user = environment.get("ELASTICSEARCH_USERNAME", "elastic")
        headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    cluster = Cluster(url, headers, environment.get("ELASTICSEARCH_CA_CERTS"))
    if version and cluster.version.partition(".")[0] != version.partition(".")[0]:
        pytest.skip(f"{CLUSTER_VARIABLE} names a cluster of version {cluster.version}; this test is for {version}")
    return cluster


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a node until Ctrl-C or SIGTERM; its URL is the one line on the standard output."""
    parser = argparse.ArgumentParser(prog="python -m mlflow_plugkit_testing.elasticsearch", description=main.__doc__)
    parser.add_argument("--version", help="8, 9 or a release; 8 by default")
    parser.add_argument("--port", type=int, help="the HTTP port; a free one by default")
    parser.add_argument("--folder", type=Path, help="keep the data there; by default it is removed at the end")
    parser.add_argument("--heap", default="1g", help="the most memory for Java's heap; 1g by default")
    parser.add_argument("--secured", action="store_true", help="the whole distribution, with security and a password")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        _tell(f"Elasticsearch {exact_version(given.version, secured=given.secured)} is starting ...")
        options = {"heap": given.heap, "secured": given.secured}
        with elasticsearch_node(given.version, given.folder, given.port, **options) as node:
            sys.stdout.write(f"{node.url}\n")
            sys.stdout.flush()
            if node.credentials:
                _tell("User {}, password {}".format(*node.credentials))
            _tell("Ctrl-C ends it.")
            while node.is_running:
                time.sleep(0.5)
            _tell(f"It has ended. Its log ends with:\n{node.log()[-2000:]}")
    except KeyboardInterrupt:
        return 0
    except (MissingError, FetchError, NodeError, ValueError) as error:
        _tell(str(error))
    return 1


def _tell(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    sys.exit(main())
