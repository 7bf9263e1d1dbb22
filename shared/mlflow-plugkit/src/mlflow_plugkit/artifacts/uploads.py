"""Uploads of files: small ones whole, in bulk or in parallel; large ones in parts."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from mlflow_plugkit.artifacts.backend import MEBIBYTE, BulkBackend, MultipartBackend, Source, Upload
from mlflow_plugkit.artifacts.checksums import digest_of, digest_of_bytes
from mlflow_plugkit.artifacts.engine import Engine, gather
from mlflow_plugkit.artifacts.multipart import check_stored, sweep, upload_in_parts
from mlflow_plugkit.artifacts.retries import CorruptTransferError, StoredDamagedError, TransferError

#: Up to this size a file is read once, hashed and sent from memory.
IN_MEMORY = MEBIBYTE

#: How often an upload is begun in all, where its content arrived damaged.
BEGINNINGS = 3

Done = Callable[[Upload], None]


def upload_all(engine: Engine, uploads: Sequence[Upload], done: Done = lambda _: None) -> None:
    """Upload files: what the backend takes in bulk, and the others in parallel. The first error ends it.

    Args:
        engine: the repository's.
        uploads: the files, without digests.
        done: called for each file that is stored, from any thread.
    """
    backend = engine.backend
    large = [u for u in uploads if _goes_in_parts(engine, u.source)]
    small = [u for u in uploads if not _goes_in_parts(engine, u.source)] if large else uploads
    if isinstance(backend, BulkBackend) and small:
        _upload_bulk(engine, backend, small, done)
        small = []
    _upload_each(engine, [*large, *small], done)
    if isinstance(backend, MultipartBackend) and engine.first_upload():
        sweep(engine)


def _upload_each(engine: Engine, uploads: Sequence[Upload], done: Done) -> None:
    stop = threading.Event()

    def upload_one(each: Upload) -> None:
        upload(engine, each, stop)
        done(each)

    if len(uploads) == 1:
        upload_one(uploads[0])
    elif uploads:
        with ThreadPoolExecutor(engine.backend.parallel_transfers, thread_name_prefix="plugkit-files") as pool:
            gather([pool.submit(upload_one, each) for each in uploads], stop)


def upload(engine: Engine, each: Upload, stop: threading.Event) -> None:
    """Upload one file, whole or in parts; what arrived damaged is sent again, and does not stay.

    Args:
        engine: the repository's.
        each: the file.
        stop: set when another file of the same operation failed.
    """
    with engine.applied(f"upload {each.path!r}"):
        for left in reversed(range(BEGINNINGS)):
            try:
                _upload_once(engine, each, stop)
                return
            except CorruptTransferError as error:
                if isinstance(error, StoredDamagedError):
                    engine.call(engine.backend.delete_many, [each.path])
                if not left:
                    raise


def _upload_once(engine: Engine, each: Upload, stop: threading.Event) -> None:
    backend = engine.backend
    if isinstance(backend, MultipartBackend) and _goes_in_parts(engine, each.source):
        digest = digest_of(each.source, backend.checksum) if backend.checksum else None
        upload_in_parts(engine, backend, replace(each, digest=digest), stop)
    else:
        engine.call(_put, engine, each)


def _upload_bulk(engine: Engine, backend: BulkBackend, uploads: Sequence[Upload], done: Done) -> None:
    if backend.checksum:
        uploads = [replace(u, digest=digest_of(u.source, backend.checksum)) for u in uploads]
    stored: set[str] = set()

    def note(each: Upload) -> None:
        stored.add(each.path)
        done(each)

    def put_rest() -> None:
        rest = [u for u in uploads if u.path not in stored] if stored else uploads
        if rest:
            backend.put_many(rest, note)

    with engine.applied(f"upload {uploads[0].path!r}" if len(uploads) == 1 else f"upload {len(uploads)} files"):
        try:
            engine.call(put_rest)
        except StoredDamagedError as error:
            if error.path:
                engine.call(backend.delete_many, [error.path])
            raise


def _put(engine: Engine, each: Upload) -> None:
    """One attempt. The digest is taken anew for each: the file may have changed since the last."""
    backend, source, digest = engine.backend, each.source, None
    if backend.checksum and source.rewindable:
        if source.file is not None and (source.size or 0) <= IN_MEMORY:
            source = Source(data=source.read())
            digest = digest_of_bytes(source.read(), backend.checksum)
        else:
            digest = digest_of(source, backend.checksum)
    if each.source.size is not None and source.size != each.source.size:
        raise TransferError(f"the file of {each.path!r} became shorter while it was uploaded")
    check_stored(each.path, backend.put(each.path, source, each.content_type, digest), source.size, digest)


def _goes_in_parts(engine: Engine, source: Source) -> bool:
    backend = engine.backend
    return (source.size or 0) >= backend.multipart_threshold and isinstance(backend, MultipartBackend)
