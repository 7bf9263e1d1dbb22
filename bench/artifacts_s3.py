"""The S3 part of `bench_artifacts.py`: MLflow's own repository, plain boto3, plain obstore and our plugin."""

from __future__ import annotations

import argparse
import asyncio
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from samples import WARM_UP, Sample, measure, take_turns
from seaweed import ACCESS_KEY, BUCKET, ENVIRONMENT, SECRET_KEY, client, delayed, seaweed
from tables import Table

MODULE = "artifacts_s3"
MLFLOW, BOTO3, BOTO3_16, OBSTORE = "MLflow's S3", "boto3, one by one", "boto3, 16 threads", "obstore"
OURS_BOTO3, OURS = "this plugin, boto3", "this plugin, obstore"
ALL = (MLFLOW, BOTO3, BOTO3_16, OBSTORE, OURS_BOTO3, OURS)
UP, DOWN = "upload", "download"
Operations = Mapping[str, Callable[[str], Any]]


def run(options: argparse.Namespace, folder: Path) -> Iterator[Table]:
    """The tables that the options ask for."""
    with seaweed(_made(folder / "weed")) as port, ExitStack() as stack:
        bench = _Bench(folder, options.rounds, port)
        if options.small:
            yield bench.small(port, 1000, "loopback")
            far = stack.enter_context(delayed(port, 30))
            yield bench.small(far, 200, "30 ms round trip")
        if options.list:
            yield bench.listing(5000)
        if options.large:
            yield from bench.large(512)
        if options.memory:
            yield bench.memory(5 * 1024)


class _Bench:
    """The measurements, with their source files below `folder`."""

    def __init__(self, folder: Path, rounds: int, port: int) -> None:
        self._folder, self._rounds, self._port = folder, rounds, port

    def small(self, port: int, count: int, where: str) -> Table:
        source = _made(self._folder / f"small-{count}")
        for number in range(count):
            (source / f"f{number:05}.bin").write_bytes(os.urandom(16 * 1024))
        table = Table(f"{count} files of 16 KiB, SeaweedFS, {where}", "s", ALL, MLFLOW)
        settings = {"port": port, "source": str(source), "prefix": f"small-{count}", "count": count}
        self._measure({UP: "up many", DOWN: "down many"}, settings, ALL, seconds=table)
        return table

    def listing(self, count: int) -> Table:
        s3 = client(self._port)

        def put(number: int) -> None:
            s3.put_object(Bucket=BUCKET, Key=f"list/e{number:06}.txt", Body=b"x")

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(put, range(count)))
        columns = (MLFLOW, BOTO3, OBSTORE, OURS)
        table = Table(f"A folder of {count} entries, SeaweedFS, loopback", "s", columns, MLFLOW)
        settings = {"port": self._port, "prefix": "warm", "listed": "list", "count": count}
        self._measure({"list": "list"}, settings, columns, seconds=table)
        return table

    def large(self, mebibytes: int) -> Iterator[Table]:
        source = self._folder / "large.bin"
        with open(source, "wb") as file:
            for _ in range(mebibytes):
                file.write(os.urandom(1024 * 1024))
        columns = (MLFLOW, BOTO3, OBSTORE, OURS_BOTO3, OURS)
        time = Table(f"One file of {mebibytes} MiB, SeaweedFS, loopback", "s", columns, MLFLOW)
        memory = Table("The same: growth of the peak of resident memory", "MB", columns)
        settings = {"port": self._port, "source": str(source), "prefix": "large", "count": 1}
        self._measure({UP: "up one", DOWN: "down one"}, settings, columns, seconds=time, memory=memory)
        yield time
        yield memory

    def memory(self, mebibytes: int) -> Table:
        source = self._folder / "huge.bin"
        with open(source, "wb") as file:  # a file of holes, so that the disk holds it only once
            file.truncate(mebibytes * 1024 * 1024)
        columns = (OURS_BOTO3, OURS)
        table = Table(f"One file of {mebibytes} MiB: growth of the peak of resident memory", "MB", columns)
        settings = {"port": self._port, "source": str(source), "prefix": "huge", "count": 1}
        for column in columns:
            for row, taken in zip((UP, DOWN), self._sample(column, ("up one", "down one"), settings), strict=True):
                table.add(row, column, taken.memory)
        source.unlink()
        return table

    def _measure(
        self, rows: Mapping[str, str], settings: Mapping[str, Any], columns: tuple[str, ...], **tables: Table
    ) -> None:
        def take(column: str, operations: Sequence[str]) -> list[Sample]:
            return self._sample(column, operations, settings)

        take_turns(self._rounds, rows, columns, take, settings["count"], **tables)

    def _sample(self, column: str, operations: Sequence[str], settings: Mapping[str, Any]) -> list[Sample]:
        plane = {OURS: "obstore", OURS_BOTO3: "boto3"}.get(column, "auto")
        env = ENVIRONMENT | {
            "MLFLOW_S3_ENDPOINT_URL": f"http://127.0.0.1:{settings['port']}",
            "MLFLOW_S3_ARTIFACTS_DATA_PLANE": plane,
            "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        }
        # Each implementation has its own objects, and down follows up.
        own = dict(settings) | {"folder": str(_made(self._folder / "out"))}
        own["prefix"] = f"{settings['prefix']}/{ALL.index(column)}"
        return measure(MODULE, column, operations, own, env)


def operations(implementation: str, settings: Mapping[str, Any]) -> Operations:
    """What one implementation does (called in the process that is measured)."""
    if implementation in (BOTO3, BOTO3_16):
        return _boto3(settings, 16 if implementation == BOTO3_16 else 1)
    return _obstore(settings) if implementation == OBSTORE else _repository(implementation, settings)


def _repository(implementation: str, settings: Mapping[str, Any]) -> Operations:
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    place = "s3://" if implementation == MLFLOW else f"s3+http://127.0.0.1:{settings['port']}/"
    repository = get_artifact_repository(f"{place}{BUCKET}/{settings['prefix']}")
    listed = get_artifact_repository(f"{place}{BUCKET}")
    source = str(settings.get("source"))

    def warm_up(folder: str) -> None:
        probe = Path(folder, "probe.txt")
        probe.write_text("x")
        repository.log_artifact(str(probe), "warm")
        repository.download_artifacts("warm/probe.txt", str(_made(Path(folder, "back"))))
        repository.list_artifacts("warm")

    return {
        WARM_UP: warm_up,
        "up many": lambda _: repository.log_artifacts(source, "many"),
        "down many": lambda folder: len(os.listdir(repository.download_artifacts("many", folder))),
        "up one": lambda _: repository.log_artifact(source, "one"),
        "down one": lambda folder: repository.download_artifacts(f"one/{os.path.basename(source)}", folder),
        "list": lambda _: len(listed.list_artifacts(settings["listed"])),
    }


def _boto3(settings: Mapping[str, Any], threads: int) -> Operations:
    import boto3
    from botocore.config import Config

    url = f"http://127.0.0.1:{settings['port']}"
    s3 = boto3.client("s3", endpoint_url=url, config=Config(max_pool_connections=max(10, threads)))
    prefix, source = settings["prefix"], str(settings.get("source"))

    def each(function: Callable[[str], Any], names: list[str]) -> int:
        if threads == 1:
            return len([function(name) for name in names])
        with ThreadPoolExecutor(threads) as pool:
            return len(list(pool.map(function, names)))

    def keys(below: str) -> list[str]:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=f"{below}/")
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def down_many(folder: str) -> int:
        return each(
            lambda key: s3.download_file(BUCKET, key, f"{folder}/{os.path.basename(key)}"), keys(f"{prefix}/many")
        )

    def up_many(_: str) -> int:
        return each(lambda n: s3.upload_file(f"{source}/{n}", BUCKET, f"{prefix}/many/{n}"), os.listdir(source))

    return {
        WARM_UP: lambda _: s3.put_object(Bucket=BUCKET, Key=f"{prefix}/warm", Body=b"x"),
        "up many": up_many,
        "down many": down_many,
        "up one": lambda _: s3.upload_file(source, BUCKET, f"{prefix}/one"),
        "down one": lambda folder: s3.download_file(BUCKET, f"{prefix}/one", f"{folder}/one"),
        "list": lambda _: len(keys(settings["listed"])),
    }


def _obstore(settings: Mapping[str, Any]) -> Operations:
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        BUCKET,
        endpoint=f"http://127.0.0.1:{settings['port']}",
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True, "timeout": "1h"},
    )
    source, prefix = Path(str(settings.get("source"))), settings["prefix"]

    async def each(function: Callable[[str], Any], names: list[str], at_once: int) -> None:
        turn = asyncio.Semaphore(at_once)

        async def one(name: str) -> None:
            async with turn:
                await function(name)

        await asyncio.gather(*(one(name) for name in names))

    def paths(below: str) -> list[str]:
        return [entry["path"] for page in obstore.list(store, prefix=below) for entry in page]

    async def put(name: str) -> None:
        await obstore.put_async(store, f"{prefix}/many/{name}", (source / name).read_bytes())

    def down_many(folder: str) -> int:
        async def get(path: str) -> None:
            answer = await obstore.get_async(store, path)
            Path(folder, os.path.basename(path)).write_bytes(await answer.bytes_async())

        asyncio.run(each(get, paths(f"{prefix}/many"), 32))
        return len(os.listdir(folder))

    def down_one(folder: str) -> None:
        size, step = obstore.head(store, f"{prefix}/one")["size"], 8 * 1024 * 1024
        descriptor = os.open(f"{folder}/one", os.O_CREAT | os.O_WRONLY)

        async def get(start: str) -> None:
            content = await obstore.get_range_async(
                store, f"{prefix}/one", start=int(start), end=min(size, int(start) + step)
            )
            os.pwrite(descriptor, content, int(start))

        asyncio.run(each(get, [str(start) for start in range(0, size, step)], 8))
        os.close(descriptor)

    return {
        WARM_UP: lambda _: obstore.put(store, f"{prefix}/warm", b"x"),
        "up many": lambda _: asyncio.run(each(put, os.listdir(source), 32)),
        "down many": down_many,
        "up one": lambda _: obstore.put(store, f"{prefix}/one", source),
        "down one": down_one,
        "list": lambda _: len(paths(settings["listed"])),
    }


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
