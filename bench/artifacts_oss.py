"""The OSS part of `bench_artifacts.py`: the plugin with each SDK, and plain oss2, on the tests' emulator.

"oss2, one by one" is what aliyunstoreplugin does: V1 signatures, one PutObject or GetObject after the other. The
emulator is a process of its own but written in Python: it serves about a thousand requests a second, so that the
client's CPU time says more than the clock on loopback.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from samples import WARM_UP, Sample, measure, take_turns
from seaweed import delayed
from tables import Table

MODULE = "artifacts_oss"
PLAIN, THREADS, OURS, OURS_V2 = "oss2, one by one", "oss2, 16 threads", "this plugin, oss2", "this plugin, v2"
ALL = (PLAIN, THREADS, OURS, *([OURS_V2] if find_spec("alibabacloud_oss_v2") else []))
UP, DOWN = "upload", "download"
TESTS = Path(__file__).parent.parent / "packages" / "mlflow-oss-artifacts" / "tests"
Operations = Mapping[str, Callable[[str], Any]]


@contextmanager
def emulator() -> Iterator[dict[str, str]]:
    """The emulator in its own process: its port and what the clients need."""
    command = [sys.executable, "-m", "oss_emulator"]
    with subprocess.Popen(command, cwd=TESTS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        url, region, key_id, secret, bucket = process.stdout.readline().split()
        yield {"port": str(urlsplit(url).port), "region": region, "id": key_id, "secret": secret, "bucket": bucket}
        process.stdin.close()


def run(options: argparse.Namespace, folder: Path) -> Iterator[Table]:
    """The tables that the options ask for."""
    with emulator() as server:
        bench = _Bench(folder, options.rounds, server)
        if options.small:
            yield from bench.small(1000, "loopback")
            with delayed(int(server["port"]), 30) as port:
                yield from _Bench(folder, options.rounds, server | {"port": str(port)}).small(200, "30 ms round trip")
        if options.list:
            yield bench.listing(5000)
        if options.large:
            yield from bench.large(256)


class _Bench:
    """The measurements, with their source files below `folder`."""

    def __init__(self, folder: Path, rounds: int, server: Mapping[str, str]) -> None:
        self._folder, self._rounds, self._server = folder, rounds, dict(server)

    def small(self, count: int, where: str) -> Iterator[Table]:
        source = _made(self._folder / f"small-{count}")
        for number in range(count):
            (source / f"f{number:05}.bin").write_bytes(os.urandom(16 * 1024))
        time = Table(f"{count} files of 16 KiB, emulator, {where}", "s", ALL, PLAIN)
        cpu = Table("The same: CPU time of the client", "s", ALL, PLAIN)
        settings = {"source": str(source), "prefix": f"small-{count}", "count": count}
        self._measure({UP: "up many", DOWN: "down many"}, settings, ALL, seconds=time, cpu=cpu)
        yield time
        yield cpu

    def listing(self, count: int) -> Table:
        bucket, columns = _bucket(self._server, "v4"), tuple(c for c in ALL if c != THREADS)
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: bucket.put_object(f"list/e{number:06}.txt", b"x"), range(count)))
        table = Table(f"A folder of {count} entries, emulator, loopback", "s", columns, PLAIN)
        self._measure({"list": "list"}, {"prefix": "list", "count": count}, columns, seconds=table)
        return table

    def large(self, mebibytes: int) -> Iterator[Table]:
        source = self._folder / "large.bin"
        with open(source, "wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1024 * 1024))
        columns = tuple(c for c in ALL if c != THREADS)
        time = Table(f"One file of {mebibytes} MiB, emulator, loopback", "s", columns, PLAIN)
        memory = Table("The same: growth of the peak of resident memory", "MB", columns)
        settings = {"source": str(source), "prefix": "large", "count": 1}
        self._measure({UP: "up one", DOWN: "down one"}, settings, columns, seconds=time, memory=memory)
        yield time
        yield memory

    def _measure(
        self, rows: Mapping[str, str], settings: Mapping[str, Any], columns: tuple[str, ...], **tables: Table
    ) -> None:
        def take(column: str, operations: Sequence[str]) -> list[Sample]:
            return self._sample(column, operations, settings)

        take_turns(self._rounds, rows, columns, take, settings["count"], **tables)

    def _sample(self, column: str, operations: Sequence[str], settings: Mapping[str, Any]) -> list[Sample]:
        env = {
            "MLFLOW_OSS_ENDPOINT_URL": f"http://127.0.0.1:{self._server['port']}",
            "OSS_REGION": self._server["region"],
            "MLFLOW_OSS_KEY_ID": self._server["id"],
            "MLFLOW_OSS_KEY_SECRET": self._server["secret"],
            "MLFLOW_OSS_SDK": "v2" if column == OURS_V2 else "oss2",
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        own = dict(settings) | self._server | {"folder": str(_made(self._folder / "out"))}
        if "list" not in operations:
            own["prefix"] = f"{settings['prefix']}/{ALL.index(column)}"
        return measure(MODULE, column, operations, own, env)


def operations(implementation: str, settings: Mapping[str, Any]) -> Operations:
    """What one implementation does (called in the process that is measured)."""
    if implementation in (PLAIN, THREADS):
        return _plain(settings, 16 if implementation == THREADS else 1)
    return _repository(settings)


def _repository(settings: Mapping[str, Any]) -> Operations:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(f"oss://{settings['bucket']}/{settings['prefix']}")
    listed = get_artifact_repository(f"oss://{settings['bucket']}")
    source = str(settings.get("source"))

    def warm_up(folder: str) -> None:
        probe = Path(folder, "probe.txt")
        probe.write_text("x")
        for each in {repository, listed} if source != "None" else {listed}:
            each.log_artifact(str(probe), "warm")
            each.download_artifacts("warm/probe.txt", str(_made(Path(folder, "back"))))
            each.list_artifacts("warm")

    return {
        WARM_UP: warm_up,
        "up many": lambda _: repository.log_artifacts(source, "many"),
        "down many": lambda folder: len(os.listdir(repository.download_artifacts("many", folder))),
        "up one": lambda _: repository.log_artifact(source, "one"),
        "down one": lambda folder: repository.download_artifacts(f"one/{os.path.basename(source)}", folder),
        "list": lambda _: len(listed.list_artifacts(settings["prefix"])),
    }


def _bucket(settings: Mapping[str, Any], signature: str) -> Any:
    import oss2

    provider = oss2.StaticCredentialsProvider(settings["id"], settings["secret"])
    auth = oss2.ProviderAuthV4(provider) if signature == "v4" else oss2.ProviderAuth(provider)
    url = f"http://127.0.0.1:{settings['port']}"
    return oss2.Bucket(auth, url, settings["bucket"], region=settings["region"], session=oss2.Session(pool_size=16))


def _plain(settings: Mapping[str, Any], threads: int) -> Operations:
    import oss2

    bucket = _bucket(settings, "v1" if threads == 1 else "v4")
    prefix, source = settings["prefix"], str(settings.get("source"))

    def each(function: Callable[[str], Any], names: list[str]) -> int:
        if threads == 1:
            return len([function(name) for name in names])
        with ThreadPoolExecutor(threads) as pool:
            return len(list(pool.map(function, names)))

    def keys(below: str) -> list[str]:
        return [entry.key for entry in oss2.ObjectIterator(bucket, prefix=f"{below}/", delimiter="/")]

    def down_many(folder: str) -> int:
        return each(
            lambda key: bucket.get_object_to_file(key, f"{folder}/{os.path.basename(key)}"), keys(f"{prefix}/many")
        )

    def up_many(_: str) -> int:
        put = bucket.put_object_from_file
        return each(lambda name: put(f"{prefix}/many/{name}", f"{source}/{name}"), os.listdir(source))

    return {
        WARM_UP: lambda _: bucket.put_object("warm/plain", b"x"),
        "up many": up_many,
        "down many": down_many,
        "up one": lambda _: bucket.put_object_from_file(f"{prefix}/one", source).status,
        "down one": lambda folder: bucket.get_object_to_file(f"{prefix}/one", f"{folder}/one").status,
        "list": lambda _: len(keys(prefix)),
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
