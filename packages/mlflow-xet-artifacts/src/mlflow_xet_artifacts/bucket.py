"""A Storage Bucket as a storage backend: files that can be replaced, without versions and without commits."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from mlflow_plugkit.artifacts.backend import (
    DeleteFailure,
    Digest,
    Page,
    Source,
    StoredObject,
    Upload,
)
from mlflow_plugkit.artifacts.retries import TransferError
from mlflow_plugkit.uri import join_path
from mlflow_xet_artifacts.base import HubBackend
from mlflow_xet_artifacts.content import Content, given, xet_hash_of
from mlflow_xet_artifacts.errors import hub_code
from mlflow_xet_artifacts.hub import Hub
from mlflow_xet_artifacts.location import BucketLocation

BATCH = 500


class BucketBackend(HubBackend):
    """Artifacts below a folder of a bucket. `StoredObject.version` is the content's xet hash.

    Each file appears whole or not at all; a folder appears file by file, in batches of `BATCH`.
    """

    def __init__(self, hub: Hub, location: BucketLocation) -> None:
        super().__init__(hub, location)
        self._location = location

    def head(self, path: str) -> StoredObject | None:
        return self._info([path]).get(path)

    def list_page(self, path: str, token: str | None) -> Page:
        """One level. The Hub matches a prefix as text, so what only begins alike is left out here."""
        objects, folders = [], set()
        for entry in self._tree(path, recursive=False):
            name, slash, _ = entry.path[len(self._start(path)) :].partition("/")
            if slash or not hasattr(entry, "xet_hash"):
                folders.add(join_path(path, name))
            else:
                objects.append(StoredObject(join_path(path, name), entry.size, entry.xet_hash))
        return Page(objects, sorted(folders))

    def list_all(self, path: str) -> Iterator[StoredObject]:
        if path and (alone := self.head(path)):
            yield alone
        for entry in self._tree(path, recursive=True):
            if hasattr(entry, "xet_hash"):
                yield StoredObject(self._location.relative(entry.path), entry.size, entry.xet_hash)

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        stored = self.head(path)
        if stored is None or version not in (None, stored.version):
            raise TransferError(f"{path!r}: it was changed or deleted while it was read")
        wanted = stored.size - start if length is None else length
        if wanted > 0:
            yield from self._downloads.read(self._content(stored), start, wanted)

    def get_file(self, stored: StoredObject, local_path: str, received: Callable[[int], None]) -> None:
        """Download by hf_xet's own parallel means, and compare the result's xet hash with the bucket's."""
        if stored.size == 0:
            open(local_path, "wb").close()
            return
        self._downloads.to_file(self._content(stored), local_path, received)
        if xet_hash_of(local_path) != stored.version:
            raise TransferError(f"{stored.path!r}: the download's xet hash is not that of the stored file")

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        return self._store([Upload(path, source, content_type, digest)]).get(path)

    def put_many(self, uploads: Sequence[Upload], done: Callable[[Upload], None]) -> None:
        """Upload in batches, each of which is checked by itself."""
        for start in range(0, len(uploads), BATCH):
            batch = uploads[start : start + BATCH]
            self._store(batch)
            for upload in batch:
                done(upload)

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        there = list(self._info(paths))
        if not there:
            return ()
        with self._hub.requests() as api:
            try:
                api.batch_bucket_files(
                    self._location.bucket_id, delete=[self._location.absolute(path) for path in there]
                )
            except Exception as exc:
                failures = getattr(exc, "failures", None)
                if not failures:
                    raise
                left = self._info(there)
                known = {self._location.relative(f["path"]): str(f["error"]) for f in failures}
                return [DeleteFailure(path, "BucketBatchError", known.get(path, "")) for path in left]
        return ()

    def _store(self, uploads: Sequence[Upload]) -> dict[str, StoredObject]:
        """Upload, and ask the bucket what it now holds."""
        additions = [(given(upload.source), self._location.absolute(upload.path)) for upload in uploads]
        with self._hub.requests() as api:
            self._making_what_is_missing(lambda: api.batch_bucket_files(self._location.bucket_id, add=additions))
        stored = self._info([upload.path for upload in uploads])
        for upload in uploads:
            found = stored.get(upload.path)
            if found is None or (upload.source.size is not None and found.size != upload.source.size):
                raise TransferError(f"{upload.path!r}: the bucket does not hold the file as it was sent")
        return stored

    def _info(self, paths: Sequence[str]) -> dict[str, StoredObject]:
        wanted = [self._location.absolute(path) for path in paths]

        def ask() -> list[Any]:
            return list(self._hub.api.get_bucket_paths_info(self._location.bucket_id, wanted))

        with self._hub.requests():
            found = {self._location.relative(entry.path): entry for entry in self._existing(ask)}
        return {path: StoredObject(path, entry.size, entry.xet_hash) for path, entry in found.items()}

    def _tree(self, path: str, *, recursive: bool) -> list[Any]:
        """The entries below a folder, from all pages; none for one that is missing."""
        prefix = self._location.absolute(path) or None

        def ask() -> list[Any]:
            return list(self._hub.api.list_bucket_tree(self._location.bucket_id, prefix, recursive=recursive))

        with self._hub.requests():
            start = self._start(path)
            return [entry for entry in self._existing(ask) if entry.path.startswith(start)]

    def _existing(self, ask: Callable[[], list[Any]]) -> list[Any]:
        """The answer, or nothing where there is no such folder, or a bucket yet to be made."""
        absent = ("EntryNotFound", "RepoNotFound") if self._hub.settings.create else ("EntryNotFound",)
        try:
            return ask()
        except Exception as exc:
            if hub_code(exc) not in absent:
                raise
            return []

    def _making_what_is_missing(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as exc:
            if hub_code(exc) != "RepoNotFound" or not self._hub.settings.create:
                raise
        self._hub.api.create_bucket(self._location.bucket_id, private=self._hub.settings.private, exist_ok=True)
        return call()

    def _content(self, stored: StoredObject) -> Content:
        bucket = self._location.bucket_id
        route = f"{self._hub.api.endpoint}/api/buckets/{bucket}/xet-read-token"
        return Content(stored.path, stored.size, xet_hash=stored.version, token_route=route)

    def _start(self, path: str) -> str:
        folder = self._location.absolute(path)
        return f"{folder}/" if folder else ""
