"""A small store on disk, for what several processes do with one location: uploads that are killed and resumed.

As a script: `python disk.py <uri> <file>` logs the file.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow_plugkit.artifacts.backend import (
    DeleteFailure,
    Digest,
    MultipartBackend,
    Page,
    Part,
    PendingUpload,
    Source,
    StoredObject,
)
from mlflow_plugkit.artifacts.repository import EngineArtifactRepository
from mlflow_plugkit.errors import ErrorRow, ErrorTable
from mlflow_plugkit.uri import parse_uri

DELAY_VARIABLE = "DISK_PART_SECONDS"


class DiskBackend(MultipartBackend):
    """Objects under `<folder>/objects`, parts under `<folder>/uploads/<id>`; a part takes the variable's seconds."""

    errors = ErrorTable("Disk", [ErrorRow("builtins.ConnectionError", "TEMPORARILY_UNAVAILABLE")])
    part_size = 64 * 1024
    multipart_threshold = 128 * 1024
    parallel_transfers = 2
    retry_wait = 0.001

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def root(self) -> str:
        return f"disk:{self.folder}"

    def retry_delay(self, error: BaseException) -> float | None:
        return 0.0 if isinstance(error, ConnectionError) else None

    def at(self, path: str) -> Path:
        return self.folder / "objects" / path

    def head(self, path: str) -> StoredObject | None:
        return StoredObject(path, self.at(path).stat().st_size) if self.at(path).is_file() else None

    def list_page(self, path: str, token: str | None) -> Page:
        entries = list(self.at(path).iterdir()) if self.at(path).is_dir() else []
        names = {e: e.relative_to(self.at("")).as_posix() for e in entries}
        return Page(
            [StoredObject(names[e], e.stat().st_size) for e in entries if e.is_file()],
            [names[e] for e in entries if e.is_dir()],
        )

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        with self.at(path).open("rb") as file:
            file.seek(start)
            left = length if length is not None else sys.maxsize
            while left and (chunk := file.read(min(left, 1 << 20))):
                left -= len(chunk)
                yield chunk

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        self.folder.mkdir(parents=True, exist_ok=True)
        draft = self.folder / uuid.uuid4().hex
        with source.open() as reader, draft.open("wb") as file:
            shutil.copyfileobj(reader, file, 1 << 20)
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        draft.replace(self.at(path))
        return self.head(path)

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        for path in paths:
            self.at(path).unlink(missing_ok=True)
        return []

    def upload(self, upload_id: str) -> Path:
        return self.folder / "uploads" / upload_id

    def create_multipart(self, path: str, content_type: str | None, digest: Digest | None) -> str:
        upload_id = uuid.uuid4().hex
        self.upload(upload_id).mkdir(parents=True)
        (self.upload(upload_id) / "path").write_text(path)
        return upload_id

    def put_part(self, path: str, upload_id: str, number: int, source: Source) -> Part:
        time.sleep(float(os.environ.get(DELAY_VARIABLE, "0")))
        content, draft = source.read(), self.upload(upload_id) / f"draft-{uuid.uuid4().hex}"
        draft.write_bytes(content)
        draft.replace(self.upload(upload_id) / f"part-{number}")
        return Part(number, hashlib.sha256(content).hexdigest(), len(content))

    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[Part]) -> StoredObject | None:
        draft = self.upload(upload_id) / "whole"
        with draft.open("wb") as file:
            for part in parts:
                file.write((self.upload(upload_id) / f"part-{part.number}").read_bytes())
        self.at(path).parent.mkdir(parents=True, exist_ok=True)
        draft.replace(self.at(path))
        self.abort_multipart(path, upload_id)
        return self.head(path)

    def abort_multipart(self, path: str, upload_id: str) -> None:
        shutil.rmtree(self.upload(upload_id), ignore_errors=True)

    def list_parts(self, path: str, upload_id: str) -> Sequence[Part] | None:
        if not self.upload(upload_id).is_dir():
            return None
        files = list(self.upload(upload_id).glob("part-*"))
        return [Part(int(f.name[5:]), hashlib.sha256(f.read_bytes()).hexdigest(), f.stat().st_size) for f in files]

    def list_multiparts(self) -> list[PendingUpload]:
        folders = self.folder.glob("uploads/*")
        return [PendingUpload((f / "path").read_text(), f.name, f.stat().st_mtime) for f in folders]


class DiskRepository(EngineArtifactRepository):
    """`disk:<folder>`."""

    def make_backend(self, artifact_uri: str) -> DiskBackend:
        return DiskBackend(Path(parse_uri(artifact_uri).path))

    @property
    def backend(self) -> DiskBackend:
        return self._engine.backend


# The same name, run as a script or imported: the journal tells repositories by it.
DiskRepository.__module__ = "disk"

if __name__ == "__main__":
    DiskRepository(sys.argv[1]).log_artifact(sys.argv[2])
