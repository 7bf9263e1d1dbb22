"""The storage backend: content in chunk rows, published by one short transaction.

An upload is a row of its own. Its chunks are stored in transactions of a few megabytes, so that neither the
transaction log nor the locks grow with a file. Nothing shows them before the last transaction, which points
the file at the upload. What a crash leaves behind is an upload that makes no progress, which the next
process removes. A replaced or deleted file's upload is marked as obsolete in the same transaction, and its
chunks are removed after it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO

import sqlalchemy as sa

from mlflow_plugkit.artifacts.backend import (
    MEBIBYTE,
    DeleteFailure,
    Digest,
    MultipartBackend,
    Page,
    Part,
    PendingUpload,
    Source,
    StoredObject,
)
from mlflow_plugkit.artifacts.retries import Retries
from mlflow_plugkit.uri import join_path
from mlflow_sqlserver_artifacts.cleaning import Cleaner
from mlflow_sqlserver_artifacts.database import Database
from mlflow_sqlserver_artifacts.errors import SQL_ERRORS, DatabaseError, is_retryable
from mlflow_sqlserver_artifacts.layout import Layout, batches, check_length, key_of, parent_of
from mlflow_sqlserver_artifacts.schema import ensure_tables, settings_tables, tables_are_there
from mlflow_sqlserver_artifacts.settings import DatabaseSettings
from mlflow_sqlserver_artifacts.statements import PAGE, Statements
from mlflow_sqlserver_artifacts.tables import IN_PARTS, OPEN, STORED
from mlflow_sqlserver_artifacts.transactions import Transactions, place_of, settled

BATCH_SIZE = 4 * MEBIBYTE  # content of one transaction, and of one answer to a read
PARALLEL = 4  # more of them slowed a PostgreSQL on the same two cores down
KEYS = 200  # keys in one IN list: SQL Server takes 2,100 parameters in all


class SqlBackend(MultipartBackend):
    """Artifacts in the tables that settings name. Making one connects to nothing."""

    errors = SQL_ERRORS
    checksum = "sha256"
    streams = True
    max_parts = 100_000

    def __init__(self, settings: DatabaseSettings) -> None:
        self.settings = settings
        self.parallel_transfers = 1 if settings.family == "sqlite" else min(settings.connections, PARALLEL)
        self._database = Database(settings)
        self._statements = Statements(settings_tables(settings))
        self._transactions = Transactions(self._database, self._statements, settings.chunk_size)
        self._cleaner = Cleaner(self._database, self._statements)
        self._retries = Retries(self)

    @property
    def root(self) -> str:
        return self.settings.location

    def secrets(self) -> Sequence[str]:
        return self.settings.secrets()

    def retry_delay(self, error: BaseException) -> float | None:
        return 0.0 if is_retryable(error) else None

    def head(self, path: str) -> StoredObject | None:
        row = self._find(path)
        return None if row is None else _stored(path, row)

    def list_page(self, path: str, token: str | None) -> Page:
        """Folders first, then files, each in the order of their keys; the token is the last key."""
        kind, _, after = (token or "folders:").partition(":")
        if not tables_are_there(self._database):
            return Page([], [])
        given = {"folder_": key_of(self._full(path)), "after": bytes.fromhex(after)}
        names: list[str] = []
        with self._database.read() as connection:
            if kind == "folders":
                folders = connection.execute(self._statements.list_folders, given).all()
                names = [join_path(path, row.path.rpartition("/")[2]) for row in folders]
                if len(folders) == PAGE:
                    return Page([], names, f"folders:{folders[-1].folder.hex()}")
                given["after"] = b""
            files = connection.execute(self._statements.list_files, given).all()
        more = f"files:{files[-1].file.hex()}" if len(files) == PAGE else None
        return Page([_stored(f"{path}/{row.name}" if path else row.name, row) for row in files], names, more)

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        end = None if length is None else start + length
        if version is None or end is None:
            row = self._find(path)
            if row is None or (version is not None and version != str(_layout(row))):
                raise DatabaseError(f"{path!r} was replaced or deleted meanwhile", "changed")
            version, end = str(_layout(row)), min(end or row.size, row.size)
        layout = Layout.parse(version)
        most = max(1, BATCH_SIZE // layout.chunk_size)
        for part, first, last, offset in layout.windows(start, end, most):
            given = {"upload_": layout.upload, "part_": part, "first": first, "last": last}
            with self._database.read() as connection:
                rows = connection.execute(self._statements.read_chunks, given).all()
            if [row.number for row in rows] != list(range(first, last + 1)):
                raise DatabaseError(f"{path!r} was replaced or deleted while it was read", "changed")
            for row in rows:
                skipped, kept = max(0, start - offset), end - offset
                yield row.data[skipped:kept] if skipped or len(row.data) > kept else row.data
                offset += len(row.data)

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        about = self._prepare(path, content_type)
        with source.open() as reader:
            # A stream cannot be read again: its transactions are repeated here, one by one.
            call = settled if source.rewindable else self._persistent
            return self._put(path, about, reader, digest, call)

    def _put(
        self, path: str, about: dict[str, Any], reader: BinaryIO, digest: Digest | None, call: Callable[..., Any]
    ) -> StoredObject:
        total, size = hashlib.sha256(), 0
        layout: Layout | None = None
        replaced: list[int] = []
        try:
            for rows, is_last in batches(reader, self.settings.chunk_size, BATCH_SIZE, total):
                size += sum(row["size"] for row in rows)
                file = about | {"size": size, "sha256": total.digest()}
                if is_last and digest is not None and digest.value != total.hexdigest():
                    raise DatabaseError(f"{path!r} changed while it was uploaded", "changed")
                if layout is None and is_last:
                    layout, replaced = call(self._transactions.store_at_once, file, rows)
                    break
                layout = layout or call(self._transactions.begin, about, OPEN)
                call(self._transactions.add_chunks, layout.upload, 1, rows)
                if is_last:
                    replaced = call(self._transactions.publish, layout, file)
        except BaseException:
            if layout is not None:
                self._cleaner.abandon(layout.upload)
            raise
        self._cleaner.purge_quietly(replaced)
        return StoredObject(path, size, str(layout), Digest("sha256", total.hexdigest()))

    def create_multipart(self, path: str, content_type: str | None, digest: Digest | None) -> str:
        about = self._prepare(path, content_type) | {"sha256": bytes.fromhex(digest.value) if digest else None}
        return str(settled(self._transactions.begin, about, IN_PARTS).upload)

    def put_part(self, path: str, upload_id: str, number: int, source: Source) -> Part:
        receipt, size = hashlib.sha256(), 0
        with source.open() as reader:
            for rows, _ in batches(reader, self.settings.chunk_size, BATCH_SIZE, None):
                settled(self._transactions.add_chunks, int(upload_id), number, rows)
                for row in rows:
                    receipt.update(row["sha256"])
                    size += row["size"]
        return Part(number, receipt.hexdigest(), size)

    def complete_multipart(self, path: str, upload_id: str, parts: Sequence[Part]) -> StoredObject | None:
        about, stored = self._parts(upload_id)
        if about is None:
            raise DatabaseError(f"the upload of {path!r} was cleaned up meanwhile", "upload gone")
        sizes = [part.size for part in stored]
        if [(p.number, p.size) for p in stored] != [(p.number, p.size) for p in parts] or len(set(sizes[:-1])) > 1:
            raise DatabaseError(f"the parts of {path!r} are not those that were uploaded", "changed")
        layout = Layout(int(upload_id), self.settings.chunk_size, sizes[0] if len(sizes) > 1 else 0)
        file = {
            "path": self._full(path),
            "size": sum(sizes),
            "sha256": about.sha256,
            "content_type": about.content_type,
        }
        self._cleaner.purge_quietly(settled(self._transactions.publish, layout, file))
        digest = Digest("sha256", about.sha256.hex()) if about.sha256 else None
        return StoredObject(path, sum(sizes), str(layout), digest)

    def abort_multipart(self, path: str, upload_id: str) -> None:
        self._cleaner.drop(int(upload_id))

    def list_parts(self, path: str, upload_id: str) -> Sequence[Part] | None:
        about, parts = self._parts(upload_id)
        return parts if about is not None and about.state == IN_PARTS else None

    def list_multiparts(self) -> Iterable[PendingUpload]:
        if not tables_are_there(self._database):
            return
        below = f"{self.settings.root}/" if self.settings.root else ""
        for row in self._cleaner.unfinished((IN_PARTS,)):
            if row.path.startswith(below):
                started = time.time() - (row.now - row.started).total_seconds()
                yield PendingUpload(row.path[len(below) :], str(row.id), started)

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        by_folder: dict[str, list[str]] = {}
        for path in paths if tables_are_there(self._database) else ():
            by_folder.setdefault(parent_of(self._full(path)), []).append(path)
        failures: list[DeleteFailure] = []
        for folder, files in by_folder.items():
            for start in range(0, len(files), KEYS):
                failures += self._delete(folder, files[start : start + KEYS])
        return failures

    def _delete(self, folder: str, paths: Sequence[str]) -> list[DeleteFailure]:
        keys = [key_of(self._full(path)) for path in paths]
        try:
            uploads = settled(self._transactions.delete, folder, keys)
        except DatabaseError as exc:
            if is_retryable(exc):
                raise
            return [DeleteFailure(path, exc.code, str(exc)) for path in paths]
        self._cleaner.purge_quietly(uploads)
        return []

    def _parts(self, upload_id: str) -> tuple[sa.Row[Any] | None, list[Part]]:
        """An upload in parts, None where it is gone, and its parts."""
        with self._database.read() as connection:
            about = connection.execute(self._statements.find_upload, {"id_": int(upload_id)}).one_or_none()
            counted = connection.execute(self._statements.count_parts, {"upload_": int(upload_id)}).all()
        parts = [Part(row.part, "", int(row.size)) for row in counted]
        return (about if about is not None and about.state in (IN_PARTS, STORED) else None), parts

    def _find(self, path: str) -> sa.Row[Any] | None:
        if not tables_are_there(self._database):
            return None
        with self._database.read() as connection:
            return connection.execute(self._statements.find_file, place_of(self._full(path))).one_or_none()

    def _full(self, path: str) -> str:
        return join_path(self.settings.root, path)

    def _persistent(self, transaction: Callable[..., Any], *args: Any) -> Any:
        return self._retries.call(settled, transaction, *args)

    def _prepare(self, path: str, content_type: str | None) -> dict[str, Any]:
        """Make sure that there are tables, and what is known of the upload."""
        full = self._full(path)
        check_length(full)
        ensure_tables(self._database)
        self._cleaner.clean_once()
        return {"path": full, "content_type": content_type, "sha256": None}


def _layout(row: sa.Row[Any]) -> Layout:
    return Layout(row.upload, row.chunk_size, row.part_size)


def _stored(path: str, row: sa.Row[Any]) -> StoredObject:
    digest = Digest("sha256", row.sha256.hex()) if row.sha256 is not None else None
    return StoredObject(path, row.size, str(_layout(row)), digest)
