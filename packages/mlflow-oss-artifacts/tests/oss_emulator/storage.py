"""Buckets, objects and multipart uploads, in memory."""

from __future__ import annotations

import hashlib
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

from fastcrc import crc64

from oss_emulator.signing import OssError

LEAST_PART = 100 * 1024


@dataclass
class Stored:
    """An object or a part, with what OSS answers about it."""

    data: bytes
    headers: dict[str, str] = field(default_factory=dict)
    etag: str = ""
    crc: int = 0
    modified: float = field(default_factory=time.time)

    def __post_init__(self) -> None:
        self.etag = self.etag or f'"{hashlib.md5(self.data).hexdigest().upper()}"'
        self.crc = crc64.xz(self.data)


@dataclass
class Unfinished:
    """A multipart upload that was begun."""

    key: str
    headers: dict[str, str]
    started: float = field(default_factory=time.time)
    parts: dict[int, Stored] = field(default_factory=dict)


class Bucket:
    """One bucket. Methods raise `OssError`."""

    def __init__(self) -> None:
        self.objects: dict[str, Stored] = {}
        self.uploads: dict[str, Unfinished] = {}
        self.protected: set[str] = set()
        self._lock = threading.Lock()

    def object(self, key: str) -> Stored:
        if key not in self.objects:
            raise OssError(404, "NoSuchKey", "The specified key does not exist.")
        return self.objects[key]

    def store(self, key: str, stored: Stored) -> None:
        if not key or len(key.encode()) > 1023 or key[0] in "/\\":
            raise OssError(400, "InvalidObjectName", "The specified object is not valid.")
        if key in self.protected:
            raise OssError(409, "FileImmutable", "The object is immutable.")
        with self._lock:
            self.objects[key] = stored

    def delete(self, key: str) -> None:
        if key in self.protected:
            raise OssError(409, "FileImmutable", "The object is immutable.")
        with self._lock:
            self.objects.pop(key, None)

    def names(self, prefix: str, delimiter: str, after: str, count: int) -> tuple[list[str], list[str], str]:
        """Keys and folders of one page, and where the next begins ("" at the end)."""
        with self._lock:
            keys = sorted(key for key in self.objects if key.startswith(prefix))
        found: list[str] = []
        for name, _ in _grouped(keys, prefix, delimiter):
            if name <= after or (found and name == found[-1]):
                continue
            if len(found) == count:
                return *_split(found, delimiter, prefix), found[-1]
            found.append(name)
        return *_split(found, delimiter, prefix), ""

    def begin(self, key: str, headers: dict[str, str]) -> str:
        upload_id = uuid.uuid4().hex.upper()
        with self._lock:
            self.uploads[upload_id] = Unfinished(key, headers)
        return upload_id

    def upload(self, key: str, upload_id: str) -> Unfinished:
        found = self.uploads.get(upload_id)
        if found is None or found.key != key:
            raise OssError(404, "NoSuchUpload", "The specified upload does not exist.")
        return found

    def complete(self, key: str, upload_id: str, parts: list[tuple[int, str]]) -> Stored:
        upload = self.upload(key, upload_id)
        numbers = [number for number, _ in parts]
        if not parts or numbers != sorted(set(numbers)):
            raise OssError(400, "InvalidPartOrder", "The list of parts was not in ascending order.")
        for number, etag in parts:
            if number not in upload.parts or upload.parts[number].etag.strip('"') != etag.strip('"'):
                raise OssError(400, "InvalidPart", "One or more of the specified parts could not be found.")
        chosen = [upload.parts[number] for number in numbers]
        if any(len(part.data) < LEAST_PART for part in chosen[:-1]):
            raise OssError(400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size.")
        digest = hashlib.md5(b"".join(bytes.fromhex(part.etag.strip('"')) for part in chosen)).hexdigest().upper()
        stored = Stored(b"".join(part.data for part in chosen), upload.headers, f'"{digest}-{len(chosen)}"')
        self.store(key, stored)
        with self._lock:
            del self.uploads[upload_id]
        return stored


def _grouped(keys: list[str], prefix: str, delimiter: str) -> Iterator[tuple[str, bool]]:
    for key in keys:
        rest = key[len(prefix) :]
        if delimiter and delimiter in rest:
            yield prefix + rest[: rest.index(delimiter) + 1], True
        else:
            yield key, False


def _split(found: list[str], delimiter: str, prefix: str) -> tuple[list[str], list[str]]:
    folders = [name for name in found if delimiter and delimiter in name[len(prefix) :]]
    return [name for name in found if name not in set(folders)], folders
