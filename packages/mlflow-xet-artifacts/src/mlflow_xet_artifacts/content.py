"""Downloads: by hf_xet where the Xet storage has the content, else over HTTP; none goes through the Hub's cache."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow_plugkit.artifacts.backend import Source
from mlflow_plugkit.artifacts.retries import TransferError
from mlflow_xet_artifacts.hub import Hub, named_errors

BLOCK = 1024 * 1024


@dataclass(frozen=True)
class Content:
    """How to get the content of one stored file.

    Attributes:
        path: for messages.
        size: bytes.
        xet_hash, token_route: its hash in the Xet storage and the URL that gives tokens for it, or None.
        url: where HTTP serves it, if it is not in the Xet storage.
        blob_id: git's SHA-1 of it, where git itself keeps it.
    """

    path: str
    size: int
    xet_hash: str | None = None
    token_route: str | None = None
    url: str | None = None
    blob_id: str | None = None


class Downloads:
    """Reads contents. hf_xet's session is made on first use, and anew in a forked child."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._lock = threading.Lock()
        self._streams: OrderedDict[str, Any] = OrderedDict()

    def close(self) -> None:
        """Forget the connections, which a forked child must not use."""
        self._lock = threading.Lock()
        self._streams = OrderedDict()

    def to_file(self, content: Content, target: str, received: Callable[[int], None]) -> None:
        """Write all of it to a file."""
        if content.size == 0:
            open(target, "wb").close()
        elif content.xet_hash is None:
            with open(target, "wb") as file:
                for block in self.read(content, 0, content.size):
                    file.write(block)
                    received(len(block))
        else:
            self._native(content, target, received)

    def read(self, content: Content, start: int, length: int) -> Iterator[bytes]:
        """`length` bytes from `start` on, in chunks."""
        if length <= 0:
            return
        if content.blob_id is not None:
            yield self._git_blob(content)[start : start + length]
        elif content.xet_hash is None:
            yield from self._over_http(content, start, length)
        else:
            with named_errors():
                yield from self._stream(content, start, start + length)

    def _git_blob(self, content: Content) -> bytes:
        """All of a file that git keeps (the Hub keeps larger ones elsewhere), compared with git's own checksum."""
        data = b"".join(self._over_http(content, 0, content.size))
        if git_blob_id(data) != content.blob_id:
            raise TransferError(f"{content.path!r}: what arrived is not what git has under {content.blob_id}")
        return data

    def _over_http(self, content: Content, start: int, length: int) -> Iterator[bytes]:
        from huggingface_hub import get_session
        from huggingface_hub.utils import hf_raise_for_status  # type: ignore[attr-defined] # exported lazily

        headers = self._hub.headers() | {"Accept-Encoding": "identity"}
        if (start, length) != (0, content.size):
            headers["Range"] = f"bytes={start}-{start + length - 1}"
        with ExitStack() as stack:
            with self._hub.requests():  # ends before the first chunk is given away: the caller's thread may differ
                response = stack.enter_context(get_session().stream("GET", str(content.url), headers=headers))
                hf_raise_for_status(response)
            if start and response.status_code == 200:
                raise TransferError(f"{content.path!r}: the server does not serve ranges")
            yield from response.iter_bytes(BLOCK)

    def _stream(self, content: Content, start: int, stop: int) -> Iterator[bytes]:
        import hf_xet  # type: ignore[import-untyped] # it has no stubs

        file = hf_xet.XetFileInfo(content.xet_hash, content.size)
        yield from self._streams_of(content).download_stream(file, start, stop)

    def _streams_of(self, content: Content) -> Any:
        """The group of streams for a token's route: a few are kept, so that a folder needs one token, not many."""
        with self._lock:
            group = self._streams.pop(str(content.token_route), None)
            if group is None:
                group = xet_session().new_download_stream_group(**self._access(content))
            self._streams[str(content.token_route)] = group
            while len(self._streams) > 4:
                self._streams.popitem(last=False)
            return group

    def _native(self, content: Content, target: str, received: Callable[[int], None]) -> None:
        import hf_xet

        told = [0]

        def progress(group: Any, _items: Any) -> None:
            received(group.total_bytes_completed - told[0])
            told[0] = group.total_bytes_completed

        with (
            named_errors(),
            xet_session().new_file_download_group(**self._access(content), progress_callback=progress) as group,
        ):
            group.start_download_file(hf_xet.XetFileInfo(content.xet_hash, content.size), os.path.abspath(target))

    def _access(self, content: Content) -> dict[str, Any]:
        """Credentials for hf_xet: it gets its short-lived tokens itself, so that none shows in Python's logs."""
        headers = self._hub.headers()
        plain = {name: value for name, value in headers.items() if name.lower() != "authorization"}
        return {
            "token_refresh_url": content.token_route,
            "token_refresh_headers": headers,
            "custom_headers": plain,
        }


_sessions: dict[int, Any] = {}
_sessions_lock = threading.Lock()


def xet_session() -> Any:
    """This process's session of hf_xet for downloads."""
    import hf_xet

    with _sessions_lock:
        if os.getpid() not in _sessions:
            _sessions.clear()
            _sessions[os.getpid()] = hf_xet.XetSession()
        return _sessions[os.getpid()]


def _renew_lock() -> None:
    global _sessions_lock
    _sessions_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


def git_blob_id(data: bytes) -> str:
    """The name that git gives to this content (SHA-1 of a header and the content)."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def xet_hash_of(path: str) -> str:
    """The hash that the Xet storage gives to a local file's content."""
    import hf_xet

    [hashed] = hf_xet.hash_files([path])
    return str(hashed.hash)


def given(source: Source) -> str | Path | bytes:
    """What to hand to huggingface_hub: a whole file by its path, so that it is not held in memory; else bytes."""
    if source.file is not None and source.start == 0 and source.size == os.path.getsize(source.file):
        return Path(source.file).absolute()
    return source.read()
