"""A Hub repository as a storage backend: a folder of a branch, one commit for each change."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_plugkit.artifacts.backend import (
    DeleteFailure,
    Digest,
    Page,
    Source,
    StoredObject,
    Upload,
)
from mlflow_plugkit.artifacts.retries import TransferError
from mlflow_plugkit.errors import mlflow_error
from mlflow_xet_artifacts.base import HubBackend
from mlflow_xet_artifacts.commits import Commits
from mlflow_xet_artifacts.content import Content, git_blob_id, given
from mlflow_xet_artifacts.errors import hub_code
from mlflow_xet_artifacts.hub import Hub
from mlflow_xet_artifacts.location import RepositoryLocation

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd
    from huggingface_hub.hf_api import RepoFile

ATTRIBUTES = ".gitattributes"
INFO_BATCH = 500
SEEN = 1000
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


class RepositoryBackend(HubBackend):
    """Artifacts below a folder of a branch; an exact revision can only be read.

    An upload is a commit whose parent is checked, and so is a deletion. A download is pinned to the commit
    that `head` saw: `StoredObject.version` is its id.
    """

    delete_batch = 20_000

    def __init__(self, hub: Hub, location: RepositoryLocation) -> None:
        super().__init__(hub, location)
        self._location = location
        self._commits = Commits(hub, location)
        self._seen: dict[tuple[str, str | None], Content] = {}

    def head(self, path: str) -> StoredObject | None:
        """One request, which also tells the commit and where the content is (HEAD on the file's `resolve` URL)."""
        found = self._look(path, self._location.revision)
        if found is None:
            return None
        stored, content = found
        self._seen[path, stored.version] = content
        while len(self._seen) > SEEN:
            self._seen.pop(next(iter(self._seen)), None)
        return stored

    def _look(self, path: str, revision: str) -> tuple[StoredObject, Content] | None:
        with self._hub.requests() as api:
            try:
                found = api.get_hf_file_metadata(url=self._url(path, revision))
            except Exception as exc:
                if hub_code(exc) not in self._absent():
                    raise
                return None
        etag, commit, size = found.etag or "", found.commit_hash or revision, found.size or 0
        xet = found.xet_file_data
        content = Content(
            path,
            size,
            xet_hash=xet.file_hash if xet else None,
            token_route=xet.refresh_route if xet else None,
            url=self._url(path, commit),
            blob_id=etag if _SHA1.fullmatch(etag) else None,
        )
        return StoredObject(path, size, commit, Digest("sha256", etag) if _SHA256.fullmatch(etag) else None), content

    def list_page(self, path: str, token: str | None) -> Page:
        objects, folders = [], []
        for entry in self._tree(path, recursive=False):
            name = self._location.relative(entry.path)
            if hasattr(entry, "tree_id"):
                folders.append(name)
            elif not self._is_hidden(entry.path):
                objects.append(_stored(name, entry))
        return Page(objects, folders)

    def list_all(self, path: str) -> Iterator[StoredObject]:
        """One listing of the whole tree below the path, or the file at the path."""
        empty = True
        for entry in self._tree(path, recursive=True):
            empty = False
            if not hasattr(entry, "tree_id") and not self._is_hidden(entry.path):
                yield _stored(self._location.relative(entry.path), entry)
        if empty and path:
            alone = self._info([path], self._location.revision)
            yield from (_stored(name, entry) for name, entry in alone.items())

    def read(self, path: str, start: int, length: int | None, version: str | None = None) -> Iterator[bytes]:
        content = self._content(path, version)
        yield from self._downloads.read(content, start, content.size - start if length is None else length)

    def get_file(self, stored: StoredObject, local_path: str, received: Callable[[int], None]) -> None:
        """Download by hf_xet's own parallel means; the engine then checks the SHA-256, `read` git's checksum."""
        self._downloads.to_file(self._content(stored.path, stored.version), local_path, received)

    def put(
        self, path: str, source: Source, content_type: str | None, digest: Digest | None = None
    ) -> StoredObject | None:
        self._commit_uploads([Upload(path, source, content_type, digest)])
        return None

    def put_many(self, uploads: Sequence[Upload], done: Callable[[Upload], None]) -> None:
        """All files in one commit: either all of them are there afterwards, or none."""
        self._commit_uploads(uploads)
        for upload in uploads:
            done(upload)

    def delete_many(self, paths: Sequence[str]) -> Sequence[DeleteFailure]:
        from huggingface_hub import CommitOperationDelete

        self._refuse_exact()

        def operations(head: str) -> list[Any]:
            there = self._info(paths, head)
            return [CommitOperationDelete(self._location.absolute(path), is_folder=False) for path in there]

        with self._hub.requests():
            self._commits.make(operations, self._message("Delete", paths))
        return ()

    def _commit_uploads(self, uploads: Sequence[Upload]) -> None:
        self._refuse_exact()
        with self._hub.requests():
            operations = [self._addition(upload) for upload in uploads]
            self._commits.upload(operations)
            parents: list[str] = []

            def on_top_of(head: str) -> list[CommitOperationAdd]:
                parents.append(head)
                return operations

            commit = self._commits.make(on_top_of, self._message("Log", [u.path for u in uploads]))
            there = self._info([upload.path for upload in uploads], commit)
            pairs = zip(uploads, operations, strict=True)
            damaged = [upload.path for upload, sent in pairs if not _is_as_sent(upload, sent, there.get(upload.path))]
            if damaged:
                self._withdraw(damaged, parents[-1])
                raise TransferError(f"{damaged[0]!r}: the stored checksum is not that of what was sent")

    def _withdraw(self, paths: Sequence[str], parent: str) -> None:
        """Put back what stood at these paths before: no reader shall take damaged content for the artifact."""
        from huggingface_hub import CommitOperationCopy, CommitOperationDelete

        before = self._info(paths, parent)

        def operations(head: str) -> list[Any]:
            there = self._info(paths, head)
            places = {path: self._location.absolute(path) for path in there}
            return [
                CommitOperationCopy(place, place, src_revision=parent)
                if path in before
                else CommitOperationDelete(place, is_folder=False)
                for path, place in places.items()
            ]

        self._commits.make(operations, self._message("Delete", paths))

    def _addition(self, upload: Upload) -> CommitOperationAdd:
        from huggingface_hub import CommitOperationAdd

        target = self._location.absolute(upload.path)
        if target == ATTRIBUTES:
            raise mlflow_error(
                f"{ATTRIBUTES!r} at the repository's root belongs to git. Log it into a folder, or give the URI a path."
            )
        try:
            return CommitOperationAdd(target, given(upload.source))
        except ValueError as exc:
            raise mlflow_error(f"The Hub cannot take {upload.path!r}: {exc}") from exc

    def _info(self, paths: Sequence[str], revision: str) -> dict[str, RepoFile]:
        """What stands at these paths, files only."""
        found: dict[str, RepoFile] = {}
        wanted = [self._location.absolute(path) for path in paths]
        with self._hub.requests() as api:
            for start in range(0, len(wanted), INFO_BATCH):
                entries = self._existing(
                    lambda start=start: api.get_paths_info(  # type: ignore[misc] # bound per turn
                        self._location.repo_id,
                        wanted[start : start + INFO_BATCH],
                        revision=revision,
                        repo_type=self._location.repo_type,
                    )
                )
                found |= {self._location.relative(e.path): e for e in entries if not hasattr(e, "tree_id")}
        return found

    def _tree(self, path: str, *, recursive: bool) -> list[Any]:
        """The entries of a folder, from all pages; none for one that is missing."""
        location = self._location
        with self._hub.requests() as api:
            return self._existing(
                lambda: list(
                    api.list_repo_tree(
                        location.repo_id,
                        self._location.absolute(path) or None,
                        recursive=recursive,
                        revision=location.revision,
                        repo_type=location.repo_type,
                    )
                )
            )

    def _existing(self, call: Callable[[], list[Any]]) -> list[Any]:
        """The call's answer, or nothing where there is no such folder, or a branch or repository yet to be made."""
        try:
            return call()
        except Exception as exc:
            if hub_code(exc) not in self._absent():
                raise
            return []

    def _absent(self) -> tuple[str, ...]:
        if self._location.is_exact or not self._hub.settings.create:
            return ("EntryNotFound",)
        return ("EntryNotFound", "RevisionNotFound", "RepoNotFound")

    def _content(self, path: str, version: str | None) -> Content:
        content = self._seen.get((path, version))
        if content is None:
            found = self._look(path, version or self._location.revision)
            if found is None:
                raise mlflow_error(f"There is no artifact {path!r}.", "RESOURCE_DOES_NOT_EXIST")
            content = found[1]
        return content

    def _refuse_exact(self) -> None:
        if self._location.is_exact:
            raise mlflow_error(
                f"{self.root} names an exact revision, which can only be read. To write, name a branch: "
                f"xet://{self._location.repo_id}/main"
            )

    def _message(self, action: str, paths: Sequence[str]) -> str:
        folder = posixpath.commonpath([posixpath.dirname(f"/{self._location.absolute(path)}") for path in paths])
        return self._hub.settings.message.format(action=action, count=len(paths), path=folder.lstrip("/") or "/")

    def _url(self, path: str, revision: str) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(
            self._location.repo_id,
            self._location.absolute(path),
            repo_type=self._location.repo_type,
            revision=revision,
            endpoint=self._hub.api.endpoint,
        )

    def _is_hidden(self, path: str) -> bool:
        """Git's own file at the repository's root, which the Hub makes with every repository, is no artifact."""
        return path == ATTRIBUTES


def _is_as_sent(upload: Upload, sent: CommitOperationAdd, entry: RepoFile | None) -> bool:
    """Whether a commit holds a file as it was sent: by SHA-256, or git's checksum where git keeps it."""
    if entry is None or entry.size != sent.upload_info.size:
        return False
    if entry.lfs is None:
        return entry.blob_id == git_blob_id(upload.source.read())
    return entry.lfs.sha256 == sent.upload_info.sha256.hex()


def _stored(path: str, entry: RepoFile) -> StoredObject:
    return StoredObject(path, entry.size, None, Digest("sha256", entry.lfs.sha256) if entry.lfs else None)
