"""Uploads: files whole or in parts, folders in parallel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlflow_plugkit.artifacts.backend import BulkBackend, Digest, MultipartBackend, Part, Source, StoredObject, Upload
from mlflow_plugkit.artifacts.checksums import digest_of
from mlflow_plugkit.artifacts.engine import Engine, gather
from mlflow_plugkit.artifacts.retries import TransferError


def upload_all(engine: Engine, uploads: Sequence[Upload], done: Callable[[Upload], None]) -> None:
    """Upload files, small ones in bulk where the backend can, the others in parallel."""
    backend = engine.backend
    small = [u for u in uploads if not _in_parts(engine, u.source)]
    large = [u for u in uploads if _in_parts(engine, u.source)]
    if isinstance(backend, BulkBackend) and small:
        with engine.applied(f"upload {len(small)} files"):
            engine.after_fork()
            backend.put_many(small, done)
        small = []
    if len(small) == 1 and not large:
        upload(engine, small[0])
        done(small[0])
        return
    with ThreadPoolExecutor(backend.parallel_transfers, thread_name_prefix="plugkit-files") as pool:
        futures = [pool.submit(_one, engine, each, done) for each in [*large, *small]]
        gather(futures)


def _one(engine: Engine, each: Upload, done: Callable[[Upload], None]) -> None:
    upload(engine, each)
    done(each)


def upload(engine: Engine, each: Upload) -> None:
    """Upload one file, whole or in parts."""
    backend = engine.backend
    with engine.applied(f"upload {each.path!r}"):
        digest = digest_of(each.source, backend.checksum) if backend.checksum else None
        if _in_parts(engine, each.source):
            upload_in_parts(engine, each, digest)
        else:
            engine.call(_put, engine, each, digest)


def _in_parts(engine: Engine, source: Source) -> bool:
    backend = engine.backend
    return isinstance(backend, MultipartBackend) and (source.size or 0) >= backend.multipart_threshold


def _put(engine: Engine, each: Upload, digest: Digest | None) -> None:
    check(each.path, engine.backend.put(each.path, each.source, each.content_type, digest), each.source.size, digest)


def check(path: str, stored: StoredObject | None, size: int | None, digest: Digest | None) -> None:
    """Compare what the backend says that it stored with what was sent."""
    if stored is None:
        return
    if size is not None and stored.size != size:
        raise TransferError(f"{path!r}: {size} bytes were sent and {stored.size} were stored")
    if digest and stored.digest and (stored.digest.algorithm, stored.digest.part_size) == (digest.algorithm, None):
        if stored.digest.value != digest.value:
            raise TransferError(f"{path!r}: the stored {digest.algorithm} is not that of what was sent")


def upload_in_parts(engine: Engine, each: Upload, digest: Digest | None) -> None:
    """Upload one large file in parts, in parallel; abort the upload when a part fails."""
    backend = engine.backend
    assert isinstance(backend, MultipartBackend)
    size = each.source.size or 0
    part_size = part_size_for(size, backend.part_size, backend.max_parts)
    upload_id = engine.call(backend.create_multipart, each.path, each.content_type, digest)
    try:
        with engine.parts.use() as pool:
            slices = [each.source.slice(start, min(part_size, size - start)) for start in range(0, size, part_size)]
            futures = [
                pool.submit(engine.call, backend.put_part, each.path, upload_id, number, piece)
                for number, piece in enumerate(slices, 1)
            ]
            parts: list[Part] = gather(futures)
        check(each.path, engine.call(backend.complete_multipart, each.path, upload_id, parts), size, digest)
    except BaseException:
        backend.abort_multipart(each.path, upload_id)
        raise


def part_size_for(size: int, preferred: int, most: int) -> int:
    """The size of the parts of an object of `size` bytes: `preferred`, or more where that were too many parts."""
    if size <= preferred * most:
        return preferred
    mebibyte = 1024 * 1024
    return -(-size // most // mebibyte + 1) * mebibyte if size % most else size // most
