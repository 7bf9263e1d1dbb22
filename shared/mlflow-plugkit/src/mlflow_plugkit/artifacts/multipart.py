"""Uploads in parts: in parallel, resumed where an earlier attempt was interrupted, aborted where they fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mlflow_plugkit.artifacts.backend import MEBIBYTE, Digest, MultipartBackend, Part, Source, StoredObject, Upload
from mlflow_plugkit.artifacts.checksums import same
from mlflow_plugkit.artifacts.engine import Engine, StoppedError, gather
from mlflow_plugkit.artifacts.journal import Entry, fingerprint
from mlflow_plugkit.artifacts.progress import of_bytes
from mlflow_plugkit.artifacts.retries import CorruptTransferError, StoredDamagedError
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.uri import redact_text

logger = get_logger(__name__)

#: How far the clocks of this machine and of the backend may be apart.
CLOCK_SECONDS = 120

#: How long one upload spends at most on what earlier runs left behind.
SWEEP_SECONDS = 5.0


def part_size_for(size: int, preferred: int, most: int) -> int:
    """The size of the parts of an object: `preferred` bytes, or as many whole MiB more as `most` parts need."""
    if size <= preferred * most:
        return preferred
    least = -(-size // most)
    return -(-least // MEBIBYTE) * MEBIBYTE


def check_stored(path: str, stored: StoredObject | None, size: int | None, digest: Digest | None) -> None:
    """Compare what the backend says that it stored with what was sent.

    Raises:
        StoredDamagedError: size or digest differ.
    """
    if stored is None:
        return
    if size is not None and stored.size != size:
        raise StoredDamagedError(f"{size} bytes of {path!r} were sent and {stored.size} are stored")
    if same(digest, stored.digest) is False:
        raise StoredDamagedError(f"the stored content of {path!r} has another checksum than what was sent")


@dataclass
class Session:
    """One upload in parts, from its creation to its end.

    Attributes:
        path: where the object will be.
        content_type, digest: of the whole, where known.
        part_size: bytes of each part but the last.
        source: its file; "" for a stream (see `journal.fingerprint`).
    """

    engine: Engine
    backend: MultipartBackend
    path: str
    content_type: str | None
    digest: Digest | None
    part_size: int
    source: str = ""

    def __post_init__(self) -> None:
        self._entry: Entry | None = None
        self._earlier: StoredObject | None = None
        self._can_confirm = True
        self.arrived: dict[int, Part] = {}

    def open(self) -> None:
        """Continue the upload of an interrupted attempt, or create one."""
        try:
            self._earlier = self.backend.head(self.path)
        except Exception:  # noqa: BLE001 # who may write need not be allowed to read
            self._can_confirm = False
        journal, root = self.engine.journal, self.backend.root
        entry = journal.resumable(root, self.path, self.source)
        if entry is not None:
            self._entry, self.part_size = entry, entry.part_size
            parts = self.engine.call(self.backend.list_parts, self.path, entry.upload_id)
            if parts is not None:
                self.arrived = {part.number: part for part in parts}
                logger.info("%s: going on with %d parts of %r that arrived earlier", root, len(parts), self.path)
                return
            journal.forget(entry)
        self._create()

    def _create(self) -> None:
        journal, attempts = self.engine.journal, 0
        self._entry = entry = journal.begin(self.backend.root, self.path, self.part_size, self.source)

        def create() -> str:
            nonlocal attempts
            attempts += 1
            return self.backend.create_multipart(self.path, self.content_type, self.digest)

        upload_id = self.engine.call(create)
        if attempts > 1:  # an earlier attempt may have made one, and only its answer was lost: the next run looks
            entry = journal.begin(self.backend.root, self.path, self.part_size, self.source)
        self._entry = journal.note(entry, upload_id=upload_id)

    @property
    def upload_id(self) -> str:
        return self._entry.upload_id if self._entry else ""

    def put(self, number: int, source: Source) -> Part:
        """Upload one part, as soon as memory allows."""
        arguments = (self.path, self.upload_id, number, source)
        try:
            return self.engine.call_within(source.size or 0, self.backend.put_part, *arguments)
        except StoredDamagedError as error:  # a part: nothing is published yet that could be withdrawn
            raise CorruptTransferError(str(error)) from error

    def complete(self, parts: Sequence[Part], size: int) -> None:
        """Publish the object."""

        def publish() -> StoredObject | None:
            try:
                return self.backend.complete_multipart(self.path, self.upload_id, parts)
            except Exception as error:
                published = None if self.engine.retries.is_outage(error) else self._published(size)
                if published is None:
                    raise
                return published

        check_stored(self.path, self.engine.call(publish), size, self.digest)
        self._forget()

    def _published(self, size: int) -> StoredObject | None:
        """The object, if an attempt to complete the upload succeeded and only its answer was lost.

        The upload is gone then, and an object of the size is there that was not there before.
        """
        try:
            gone = self.backend.list_parts(self.path, self.upload_id) is None
            stored = self.backend.head(self.path) if gone and self._can_confirm else None
        except Exception:  # noqa: BLE001 # the error of the completion is raised then
            return None
        if stored is None or stored.size != size or same(self.digest, stored.digest) is False:
            return None
        is_new = self._earlier is None or stored.version != self._earlier.version
        return stored if is_new or same(self.digest, stored.digest) else None

    def fail(self, error: BaseException) -> None:
        """Keep the upload for a later attempt where the backend could not be reached, and abort it otherwise."""
        outage = self.engine.retries.is_outage(error)
        if self._entry is None or (not self._entry.upload_id and not outage):
            self._forget()
        elif not self._entry.upload_id or (self.source and self._entry.file and outage):
            self.engine.journal.note(self._entry, idle=True)
        else:
            self._abort(patient=isinstance(error, Exception) and not outage)

    def _abort(self, *, patient: bool) -> None:
        call = self.engine.call if patient else _once
        try:
            call(self.backend.abort_multipart, self.path, self.upload_id)
        except Exception as exc:  # noqa: BLE001 # the upload's own error matters more; the next run aborts it
            logger.warning("the unfinished upload of %r could not be aborted now: %s", self.path, type(exc).__name__)
            assert self._entry is not None
            self.engine.journal.note(self._entry, idle=True)
        else:
            self._forget()

    def _forget(self) -> None:
        if self._entry is not None:
            self.engine.journal.forget(self._entry)


def _once(function: Callable[..., None], *args: str) -> None:
    function(*args)


def upload_in_parts(engine: Engine, backend: MultipartBackend, each: Upload, stop: threading.Event) -> None:
    """Upload one large file in parts, in parallel; `stop` is set when another file of the operation failed."""
    size = each.source.size or 0
    step = part_size_for(size, backend.part_size, backend.max_parts)
    session = Session(engine, backend, each.path, each.content_type, each.digest, step, fingerprint(each.source))
    failed = threading.Event()
    try:
        session.open()
        with of_bytes(each.path, size, "Uploading") as progress, engine.parts.use() as pool:

            def send(number: int, source: Source) -> Part:
                if stop.is_set() or failed.is_set():
                    raise StoppedError
                part = session.put(number, source)
                progress.add(source.size or 0)
                return part

            step, parts, missing = session.part_size, dict(session.arrived), []
            for number, start in enumerate(range(0, size, step), 1):
                piece = each.source.slice(start, min(step, size - start))
                arrived = parts.get(number)
                if arrived is not None and arrived.size == piece.size:
                    progress.add(arrived.size)
                else:
                    missing.append(pool.submit(send, number, piece))
            parts |= {part.number: part for part in gather(missing, failed)}
        count = -(-size // step)
        session.complete([parts[number] for number in range(1, count + 1)], size)
    except BaseException as error:
        session.fail(error)
        raise


def sweep(engine: Engine) -> None:
    """Abort the unfinished uploads that processes which are gone left behind. Never raises: it is housekeeping.

    Nor does it hold up the caller's own upload for long: what is left after `SWEEP_SECONDS` waits for the next run.
    """
    deadline = time.monotonic() + SWEEP_SECONDS
    for entry in engine.journal.left_behind():
        try:
            backend = engine.reopen(entry.root, entry.location)
            if isinstance(backend, MultipartBackend):
                for upload_id in [entry.upload_id] if entry.upload_id else _nameless(engine, backend, entry):
                    backend.abort_multipart(entry.path, upload_id)
            engine.journal.forget(entry)
            logger.info("aborted an unfinished upload of %r below %s", entry.path, entry.root)
        except Exception as exc:  # noqa: BLE001 # whatever it is must not fail the upload that the user asked for
            reason = redact_text(str(exc), engine.backend.secrets())
            logger.debug("an unfinished upload of %r below %s was left: %s", entry.path, entry.root, reason)
            engine.journal.postpone(entry)
        if time.monotonic() > deadline:
            return


def _nameless(engine: Engine, backend: MultipartBackend, entry: Entry) -> list[str]:
    """The uploads that may have been created for an entry without the id of one: of its path and time, and no one's."""
    known = engine.journal.known_ids()
    found = [p for p in backend.list_multiparts() if p.path == entry.path and p.upload_id not in known]
    return [p.upload_id for p in found if abs(p.started - entry.started) < CLOCK_SECONDS]
