"""The SQL part of `bench_artifacts.py`: the plugin beside its driver, on a real PostgreSQL of the benchmark's own.

"psycopg" is what the driver gives without any of the plugin's work: the same rows of the same size, in one
transaction on one connection, without checksums, and to and from memory instead of a file.
"""

from __future__ import annotations

import argparse
import os
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from samples import WARM_UP, Sample, measure, take_turns
from tables import Table

sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "mlflow-sqlserver-artifacts" / "tests"))

import servers  # type: ignore[import-not-found] # beside the package's tests

MODULE = "artifacts_sql"
RAW, OURS = "psycopg", "this plugin"
UP, DOWN = "upload", "download"
MEBIBYTE = 1024 * 1024
PREFIX = "MLFLOW_SQLSERVER_ARTIFACTS"
Operations = Mapping[str, Callable[[str], Any]]


def run(options: argparse.Namespace, folder: Path) -> Iterator[Table]:
    """The tables that the options ask for."""
    with servers.postgresql("-c", "max_wal_size=8GB") as server:
        bench = _Bench(folder, options.rounds, server.port, server.user)
        if options.large:
            yield bench.large(512)
        if options.small:
            yield bench.small(1000)
        if options.list:
            yield bench.listing(1_000_000)
        if options.memory:
            yield bench.memory(5 * 1024)


class _Bench:
    def __init__(self, folder: Path, rounds: int, port: int, user: str) -> None:
        self._folder, self._rounds = folder, rounds
        self._settings = {"port": port, "user": user}
        self._env = {f"{PREFIX}_USERNAME": user, f"{PREFIX}_PASSWORD": servers.PASSWORD}

    def large(self, megabytes: int) -> Table:
        source = self._file(megabytes)
        table = Table(f"One file of {megabytes} MiB, PostgreSQL on loopback", "s", (RAW, OURS), RAW)
        self._measure(table, {UP: "up", DOWN: "down"}, {"source": str(source), "size": megabytes}, (RAW, OURS))
        return table

    def small(self, count: int) -> Table:
        source = self._folder / "small"
        source.mkdir()
        for number in range(count):
            (source / f"f{number:05}.bin").write_bytes(os.urandom(16 * 1024))
        table = Table(f"{count} files of 16 KiB, PostgreSQL on loopback", "s", (OURS,))
        self._measure(table, {UP: "up many", DOWN: "down many"}, {"source": str(source)}, (OURS,))
        return table

    def listing(self, count: int) -> Table:
        table = Table(f"Listing in a store of {count:,} files, PostgreSQL on loopback", "s", (OURS,))
        for name, operation in {"a folder of 1,000 files": "list leaf", "1,000 folders": "list top"}.items():
            for _ in range(self._rounds):
                (sample,) = measure(MODULE, OURS, [operation], {**self._settings, "count": count}, self._env)
                table.add(name, OURS, sample.seconds)
        return table

    def memory(self, megabytes: int) -> Table:
        source = self._file(megabytes)
        table = Table(f"Growth of the peak of resident memory, one file of {megabytes} MiB", "MB", (OURS,))
        settings = {**self._settings, "source": str(source), "size": megabytes, "root": "memory"}
        for name, taken in zip((UP, DOWN), measure(MODULE, OURS, ("up", "down"), settings, self._env), strict=True):
            table.add(name, OURS, taken.memory)
        return table

    def _measure(
        self, table: Table, rows: Mapping[str, str], settings: Mapping[str, Any], columns: tuple[str, ...]
    ) -> None:
        def take(column: str, operations: Sequence[str]) -> list[Sample]:
            given = {**self._settings, **settings, "root": uuid.uuid4().hex}
            return measure(MODULE, column, [*operations, "clean"], given, self._env)

        take_turns(self._rounds, rows, columns, take, 1000, seconds=table)

    def _file(self, megabytes: int) -> Path:
        path = self._folder / f"{megabytes}.bin"
        with open(path, "wb") as file:
            for _ in range(megabytes):
                file.write(os.urandom(MEBIBYTE))
        return path


def operations(implementation: str, settings: Mapping[str, Any]) -> Operations:
    """What one process may be asked to measure."""
    return _raw(settings) if implementation == RAW else _ours(settings)


def _raw(settings: Mapping[str, Any]) -> Operations:
    import psycopg

    login = {"host": "127.0.0.1", "port": settings["port"], "user": settings["user"], "password": servers.PASSWORD}
    connection = psycopg.connect(dbname="postgres", **login)
    cursor = connection.cursor(binary=True)
    table = f'"raw_{settings["root"]}"'
    chunks = [os.urandom(MEBIBYTE) for _ in range(16)]

    def up(_: str) -> None:
        cursor.execute(f"CREATE TABLE {table} (id bigint, number int, data bytea, PRIMARY KEY (id, number))")
        cursor.execute(f"ALTER TABLE {table} ALTER COLUMN data SET STORAGE EXTERNAL")
        for number in range(settings["size"]):
            cursor.execute(f"INSERT INTO {table} VALUES (1, %s, %s)", (number, chunks[number % 16]))
        connection.commit()

    def down(_: str) -> None:
        total = 0
        for first in range(0, settings["size"], 4):
            query = f"SELECT number, data FROM {table} WHERE id = 1 AND number BETWEEN %s AND %s ORDER BY number"
            total += sum(len(row[1]) for row in cursor.execute(query, (first, first + 3)))
        assert total == settings["size"] * MEBIBYTE

    def clean(_: str) -> None:
        cursor.execute(f"DROP TABLE {table}")
        connection.commit()

    def warm_up(_: str) -> None:
        cursor.execute("SELECT 1")
        connection.commit()

    return {WARM_UP: warm_up, "up": up, "down": down, "clean": clean}


def _ours(settings: Mapping[str, Any]) -> Operations:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    base = f"sql+postgresql://127.0.0.1:{settings['port']}/postgres"
    repository = get_artifact_repository(f"{base}/{settings.get('root', 'million')}")
    source = settings.get("source", "")

    def warm_up(folder: str) -> None:
        other = get_artifact_repository(f"{base}/warm-{uuid.uuid4().hex}")
        Path(folder, "x").write_bytes(b"x")
        other.log_artifact(str(Path(folder, "x")))
        Path(folder, "x").unlink()
        other.download_artifacts("x", folder)
        other.delete_artifacts()
        if "count" in settings:
            _fill(settings)

    return {
        WARM_UP: warm_up,
        "up": lambda _: repository.log_artifact(source),
        "down": lambda folder: bool(repository.download_artifacts(Path(source).name, folder)),
        "up many": lambda _: repository.log_artifacts(source),
        "down many": lambda folder: len(os.listdir(repository.download_artifacts("", folder))),
        "list leaf": lambda _: len(repository.list_artifacts("run-7")),
        "list top": lambda _: len(repository.list_artifacts()),
        "clean": lambda _: repository.delete_artifacts(),
    }


def _fill(settings: Mapping[str, Any]) -> None:
    """Rows of many empty files, a thousand in each folder, written past the plugin: once for the whole benchmark."""
    import psycopg

    login = {"host": "127.0.0.1", "port": settings["port"], "user": settings["user"], "password": servers.PASSWORD}
    with psycopg.connect(dbname="postgres", **login) as connection:
        names = "mlflow_artifact_folders", "mlflow_artifact_files"
        if connection.execute(f"SELECT count(*) FROM {names[0]} WHERE path = 'million'").fetchone() == (1,):
            return
        connection.execute(f"INSERT INTO {names[0]} VALUES (sha256('million'), sha256(''), 'million')")
        folders = settings["count"] // 1000
        path = "('million/run-' || n)"
        connection.execute(
            f"INSERT INTO {names[0]} SELECT sha256({path}::bytea), sha256('million'), {path} "
            f"FROM generate_series(0, {folders - 1}) n"
        )
        connection.execute(
            f"INSERT INTO {names[1]} SELECT sha256({path}::bytea), sha256(({path} || '/f' || m)::bytea), 'f' || m, "
            f"0, 0, sha256(''), NULL, 1048576, 0, now() FROM generate_series(0, {folders - 1}) n, "
            "generate_series(0, 999) m"
        )
        connection.commit()
        connection.autocommit = True
        connection.execute("VACUUM ANALYZE")
