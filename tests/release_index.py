"""A real package index on loopback: pypiserver, which asks for a user and a password before it takes an upload."""

from __future__ import annotations

import base64
import hashlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "releaser"
PASSWORD = "hunter2-never-to-be-printed"
DEADLINE = 30


@dataclass(frozen=True)
class Index:
    """A running index: its upload URL and the folder of its files."""

    url: str
    store: Path

    def put(self, filename: str) -> None:
        """List a file under this name; an index tells versions from names."""
        (self.store / filename).write_bytes(b"")


@contextmanager
def package_index(folder: Path, *, private: bool = False) -> Iterator[Index]:
    """Run an index over an empty store; a private one asks for the password before it lists anything, too."""
    store = folder / "store"
    store.mkdir(parents=True)
    digest = base64.b64encode(hashlib.sha1(PASSWORD.encode()).digest()).decode()
    (folder / "htpasswd").write_text(f"{USER}:{{SHA}}{digest}\n")
    port = free_port()
    asks = "update,list,download" if private else "update"
    options = ["-i", "127.0.0.1", "-p", str(port), "-P", str(folder / "htpasswd"), "-a", asks, "--disable-fallback"]
    with (folder / "log").open("wb") as log:
        command = [sys.executable, "-m", "pypiserver", "run", *options, str(store)]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            url = f"http://127.0.0.1:{port}/"
            wait_until_it_answers(url, process, folder / "log")
            yield Index(url, store)
        finally:
            process.terminate()
            process.wait(DEADLINE)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        assert process.poll() is None, f"pypiserver ended with {process.returncode}: {log.read_text()}"
        try:
            urllib.request.urlopen(f"{url}health", timeout=5).close()
            return
        except urllib.error.URLError:
            time.sleep(0.05)
    raise AssertionError(f"pypiserver did not answer within {DEADLINE} s: {log.read_text()}")
