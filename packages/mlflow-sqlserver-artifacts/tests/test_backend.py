"""What is particular to a database: the tables, the transactions, what crashes leave behind; on real servers."""

from __future__ import annotations

import datetime
import hashlib
import io
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from mlflow.exceptions import MlflowException

from mlflow_plugkit.artifacts.backend import Digest, Source
from mlflow_sqlserver_artifacts.backend import SqlBackend
from mlflow_sqlserver_artifacts.cleaning import PARTS_PATIENCE
from mlflow_sqlserver_artifacts.database import Database
from mlflow_sqlserver_artifacts.errors import DatabaseError
from mlflow_sqlserver_artifacts.layout import Layout
from mlflow_sqlserver_artifacts.repository import SqlArtifactRepository
from mlflow_sqlserver_artifacts.schema import forget_tables, settings_tables
from mlflow_sqlserver_artifacts.settings import PREFIX, read_settings

MEBIBYTE = 1024 * 1024


@pytest.fixture
def backend(artifact_uri: str) -> SqlBackend:
    return SqlBackend(read_settings(artifact_uri))


def rows(backend: SqlBackend, table: str) -> list[Any]:
    with Database(backend.settings).read() as connection:
        return list(connection.execute(sa.select(getattr(settings_tables(backend.settings), table))).all())


def put(backend: SqlBackend, path: str, content: bytes) -> None:
    digest = Digest("sha256", hashlib.sha256(content).hexdigest())
    backend.put(path, Source(data=content), "text/plain", digest)


def content(backend: SqlBackend, path: str) -> bytes:
    return b"".join(backend.read(path, 0, None))


LOG = """
import sys
from mlflow_plugkit.artifacts.backend import Source
from mlflow_sqlserver_artifacts.backend import SqlBackend
from mlflow_sqlserver_artifacts.settings import read_settings
sys.stdin.readline()
number = int(sys.argv[2])
SqlBackend(read_settings(sys.argv[1])).put(f"folder/{number}.txt", Source(data=b"x" * number), None)
"""


def test_many_processes_create_the_tables_once(artifact_uri: str) -> None:
    """Whoever comes first creates them; nobody fails, and nothing is there twice."""
    commands = [[sys.executable, "-c", LOG, artifact_uri, str(number)] for number in range(1, 5)]
    processes = [subprocess.Popen(c, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    errors = [process.communicate(timeout=120)[1] for process in processes]
    assert [p.returncode for p in processes] == [0] * 4, errors
    backend = SqlBackend(read_settings(artifact_uri))
    assert len(rows(backend, "versions")) == 1
    assert sorted(o.size for o in backend.list_page("folder", None).objects) == [1, 2, 3, 4]


def test_reading_creates_no_tables(backend: SqlBackend) -> None:
    assert backend.head("a") is None
    assert backend.list_page("", None).objects == []
    assert list(backend.delete_many(["a"])) == []
    with pytest.raises(DatabaseError):
        rows(backend, "versions")


def test_a_newer_schema_is_refused(backend: SqlBackend) -> None:
    put(backend, "a.txt", b"a")
    with Database(backend.settings).write() as connection:
        connection.execute(settings_tables(backend.settings).versions.insert(), {"version": 2})
    forget_tables()
    for call in (lambda: backend.head("a.txt"), lambda: put(backend, "b.txt", b"b")):
        with pytest.raises(MlflowException, match="Upgrade mlflow-sqlserver-artifacts") as caught:
            call()
        assert caught.value.error_code == "FEATURE_DISABLED"


def test_missing_tables_may_be_left_to_a_dba(
    artifact_uri: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"{PREFIX}_CREATE_TABLES", "false")
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(MlflowException, match="create-tables"):
        SqlArtifactRepository(artifact_uri).log_artifact(str(tmp_path / "a.txt"))


def test_prefix_and_roots_keep_stores_apart(artifact_uri: str) -> None:
    one, other = (SqlBackend(read_settings(f"{artifact_uri}?table_prefix={p}_")) for p in ("one", "other"))
    put(one, "a.txt", b"one")
    assert other.head("a.txt") is None
    assert SqlBackend(read_settings(f"{artifact_uri}x?table_prefix=one_")).head("a.txt") is None


def test_names_differ_by_case_blanks_and_normalisation(backend: SqlBackend) -> None:
    """Whatever the database's collation says is equal."""
    names = ["a", "A", "a ", "ä", "a\u0308", "ß", "ss", "\U0001f600", "\U0001f601"]
    for name in names:
        put(backend, f"folder/{name}", name.encode())
        put(backend, f"{name}/file", name.encode())
    assert {content(backend, f"folder/{n}").decode() for n in names} == set(names)
    assert {o.path for o in backend.list_page("folder", None).objects} == {f"folder/{n}" for n in names}
    assert {*backend.list_page("", None).folders} == {*names, "folder"}


def test_too_long_names_are_refused_before_anything_is_sent(backend: SqlBackend) -> None:
    for path in ("x" * 1025, "/".join(["x" * 200] * 21)):
        with pytest.raises(MlflowException, match="Shorten"):
            put(backend, path, b"")
    put(backend, "x" * 1024, b"long")
    assert content(backend, "x" * 1024) == b"long"


def test_a_large_file_survives_in_parts(artifact_uri: str, tmp_path: Path) -> None:
    """Of more than one part, and of a size that no chunk divides."""
    repository = SqlArtifactRepository(artifact_uri)
    data = os.urandom(33 * MEBIBYTE + 12345)
    (tmp_path / "large.bin").write_bytes(data)
    repository.log_artifact(str(tmp_path / "large.bin"))
    backend = SqlBackend(read_settings(artifact_uri))
    stored = backend.head("large.bin")
    assert stored is not None
    assert stored.digest == Digest("sha256", hashlib.sha256(data).hexdigest())
    (tmp_path / "target").mkdir()
    assert Path(repository.download_artifacts("large.bin", str(tmp_path / "target"))).read_bytes() == data
    for start, length in ((0, 1), (16 * MEBIBYTE - 1, 2), (5 * MEBIBYTE + 7, 20 * MEBIBYTE), (len(data) - 3, 3)):
        found = b"".join(backend.read("large.bin", start, length, stored.version))
        assert found == data[start : start + length]


@pytest.mark.parametrize("seed", range(20))
def test_windows_cover_exactly_the_bytes_asked_for(seed: int) -> None:
    """Any range of any layout: no chunk twice, none left out, never more than allowed at once."""
    chance = random.Random(seed)
    chunk = chance.randint(1, 7)
    layout = Layout(1, chunk, chance.choice([0, chunk * chance.randint(1, 5), chance.randint(1, 30)]))
    size = chance.randint(1, 100)
    start = chance.randint(0, size - 1)
    end, most = chance.randint(start + 1, size), chance.randint(1, 4)
    covered = []
    for part, first, last, offset in layout.windows(start, end, most):
        assert 0 <= last - first < most
        base = (part - 1) * layout.part_size
        limit = base + layout.part_size if layout.part_size else size
        assert offset == base + first * chunk
        covered += range(max(start, offset), min(end, limit, base + (last + 1) * chunk))
    assert covered == list(range(start, end))


def test_readers_see_the_old_file_or_the_new_one(backend: SqlBackend) -> None:
    """While a file is replaced again and again, each read gives one whole version, or a clear error."""
    versions = [bytes([n]) * 300_000 for n in range(3)]
    put(backend, "a.bin", versions[0])
    done = threading.Event()

    def replace() -> None:
        for turn in range(30):
            put(backend, "a.bin", versions[turn % 3])
        done.set()

    writer = threading.Thread(target=replace)
    writer.start()
    seen, refused = 0, set()
    while not done.is_set():
        try:
            assert content(backend, "a.bin") in versions
            seen += 1
        except DatabaseError as exc:
            refused.add(exc.code)
    writer.join()
    assert seen
    assert refused <= {"changed"}
    assert len(rows(backend, "uploads")) == 1, "replaced versions were not removed"


def test_a_folder_that_one_empties_and_another_fills_loses_nothing(artifact_uri: str) -> None:
    """Emptied folders are removed; a file that is added at this moment brings them back."""
    backend = SqlBackend(read_settings(artifact_uri))
    put(backend, "kept.txt", b"")
    failures: list[BaseException] = []

    def work(action: Callable[[int], object]) -> None:
        try:
            for turn in range(25):
                action(turn)
        except BaseException as exc:
            failures.append(exc)

    def fill(turn: int) -> None:
        put(backend, f"a/b/{turn}.txt", b"x")
        backend.delete_many([f"a/b/{turn}.txt"])

    threads = [threading.Thread(target=work, args=(fill,)) for _ in range(1)]
    threads.append(threading.Thread(target=work, args=(lambda turn: put(backend, f"a/b/stays-{turn}", b"y"),)))
    threads.append(threading.Thread(target=work, args=(lambda turn: backend.delete_many([f"a/b/none-{turn}"]),)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures
    assert {o.path for o in backend.list_all("a")} == {f"a/b/stays-{n}" for n in range(25)}
    backend.delete_many([f"a/b/stays-{n}" for n in range(25)])
    assert list(backend.list_page("", None).folders) == [], "empty folders are left"


def test_deletion_leaves_no_rows(artifact_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of more chunks than one transaction deletes, and many small ones."""
    monkeypatch.setenv(f"{PREFIX}_CHUNK_SIZE", "65536")
    backend = SqlBackend(read_settings(artifact_uri))
    put(backend, "a/large.bin", os.urandom(20 * MEBIBYTE))
    for number in range(300):
        put(backend, f"a/{number}", b"x")
    assert list(backend.delete_many(["a/large.bin", *(f"a/{n}" for n in range(300))])) == []
    assert [rows(backend, table) for table in ("chunks", "uploads", "files")] == [[], [], []]
    assert [row.path for row in rows(backend, "folders")] == [""]


class Endless(io.RawIOBase):
    """A stream that breaks after some megabytes."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self._left <= 0:
            raise ConnectionResetError("the client went away")
        count = min(len(buffer), 65536)
        self._left -= count
        return count


def test_a_stream_that_breaks_leaves_nothing(backend: SqlBackend) -> None:
    with pytest.raises(ConnectionResetError):
        backend.put("a.bin", Source(stream=io.BufferedReader(Endless(9 * MEBIBYTE))), None)
    assert backend.head("a.bin") is None
    assert [rows(backend, "chunks"), rows(backend, "uploads")] == [[], []]


def test_a_stream_of_unknown_length_is_stored_as_it_comes(backend: SqlBackend) -> None:
    data = os.urandom(9 * MEBIBYTE + 1)
    stored = backend.put("a.bin", Source(stream=io.BytesIO(data)), None)
    assert stored is not None
    assert stored.digest == Digest("sha256", hashlib.sha256(data).hexdigest())
    assert content(backend, "a.bin") == data


def test_a_file_that_changes_while_it_is_uploaded_is_refused(backend: SqlBackend) -> None:
    with pytest.raises(DatabaseError) as caught:
        backend.put("a.bin", Source(data=b"new"), None, Digest("sha256", hashlib.sha256(b"old").hexdigest()))
    assert caught.value.code == "changed"
    assert backend.head("a.bin") is None


def unfinished(backend: SqlBackend) -> str:
    upload = backend.create_multipart("a.bin", None, None)
    backend.put_part("a.bin", upload, 1, Source(data=b"x" * 100_000))
    return upload


def test_unfinished_uploads_are_listed_resumed_and_aborted(backend: SqlBackend) -> None:
    upload = unfinished(backend)
    [pending] = backend.list_multiparts()
    assert (pending.path, pending.upload_id) == ("a.bin", upload)
    assert abs(pending.started - time.time()) < 60
    assert [(p.number, p.size) for p in backend.list_parts("a.bin", upload) or ()] == [(1, 100_000)]
    backend.abort_multipart("a.bin", upload)
    backend.abort_multipart("a.bin", upload)
    assert backend.list_parts("a.bin", upload) is None
    assert [rows(backend, "chunks"), rows(backend, "uploads")] == [[], []]


def test_an_upload_that_was_cleaned_up_takes_no_more_and_is_not_published(backend: SqlBackend) -> None:
    upload = unfinished(backend)
    parts = backend.list_parts("a.bin", upload)
    assert parts
    backend.abort_multipart("a.bin", upload)
    for call in (
        lambda: backend.put_part("a.bin", upload, 2, Source(data=b"x")),
        lambda: backend.complete_multipart("a.bin", upload, parts),
    ):
        with pytest.raises(DatabaseError) as caught:
            call()
        assert caught.value.code == "upload gone"
    assert backend.head("a.bin") is None


def test_a_clean_up_spares_what_makes_progress(backend: SqlBackend) -> None:
    """An upload in parts may be resumed for a day; what has not moved since is removed."""
    upload = unfinished(backend)
    backend._cleaner.clean()
    assert backend.list_parts("a.bin", upload)
    uploads = settings_tables(backend.settings).uploads
    with Database(backend.settings).write() as connection:
        touched = connection.execute(sa.select(uploads.c.touched)).scalar_one()
        before = touched - datetime.timedelta(seconds=PARTS_PATIENCE + 60)
        connection.execute(uploads.update().values(touched=before))
    assert backend._cleaner.clean() == 1
    assert [rows(backend, "chunks"), rows(backend, "uploads")] == [[], []]


def test_the_database_refuses_a_damaged_chunk(backend: SqlBackend, database_kind: str) -> None:
    """What was changed on its way is not stored: the server compares each chunk with its checksum."""
    if database_kind == "sqlite":
        pytest.skip("SQLite has no SHA-256, and no network on which content could be damaged")
    upload = int(unfinished(backend))
    row = {"number": 0, "size": 4, "sha256": hashlib.sha256(b"sent").digest(), "data": b"came"}
    with pytest.raises(DatabaseError) as caught:
        backend._transactions.add_chunks(upload, 2, [row])
    assert caught.value.code == "damaged"
    assert backend.retry_delay(caught.value) is not None


def test_content_that_was_damaged_in_the_database_is_not_delivered(
    artifact_uri: str, database_kind: str, tmp_path: Path, gives_up_soon: None
) -> None:
    if database_kind != "sqlite":
        pytest.skip("the other databases refuse to store damaged content")
    (tmp_path / "a.txt").write_text("genuine")
    repository = SqlArtifactRepository(artifact_uri)
    repository.log_artifact(str(tmp_path / "a.txt"))
    settings = read_settings(artifact_uri)
    with Database(settings).write() as connection:
        connection.execute(settings_tables(settings).chunks.update().values(data=b"spoiled"))
    (tmp_path / "target").mkdir()
    with pytest.raises(MlflowException):
        repository.download_artifacts("a.txt", str(tmp_path / "target"))
    assert list((tmp_path / "target").iterdir()) == []


def test_a_forked_child_makes_its_own_connections(backend: SqlBackend) -> None:
    """Both go on working: gunicorn and PyTorch's data loaders fork."""
    put(backend, "parent.txt", b"parent")
    child = os.fork()
    if child == 0:
        try:
            put(backend, "child.txt", content(backend, "parent.txt"))
            os._exit(0)
        except BaseException:
            os._exit(1)
    for _ in range(5):
        assert content(backend, "parent.txt") == b"parent"
    assert os.waitpid(child, 0)[1] == 0
    assert content(backend, "child.txt") == b"parent"


@pytest.fixture
def many(backend: SqlBackend) -> SqlBackend:
    """Rows of 20,000 files in 2,000 folders, written past the backend."""
    from mlflow_sqlserver_artifacts.layout import key_of, parent_of
    from mlflow_sqlserver_artifacts.tables import utc_now

    put(backend, "first.txt", b"")
    made = settings_tables(backend.settings)
    folders = [f"root/f{n}" for n in range(2000)]
    files = [f"{folder}/{n}" for folder in folders for n in range(10)]
    about = {"upload": 0, "size": 0, "chunk_size": 1, "part_size": 0}
    with Database(backend.settings).write() as connection:
        connection.execute(
            made.folders.insert(), [{"folder": key_of(f), "parent": key_of("root"), "path": f} for f in folders]
        )
        connection.execute(
            made.files.insert().values(created=utc_now()),
            [{"folder": key_of(parent_of(f)), "file": key_of(f), "name": f.rpartition("/")[2], **about} for f in files],
        )
    return backend


def test_listing_reads_an_index_not_the_table(many: SqlBackend, database_kind: str) -> None:
    """One level costs what the level holds, however large the store is."""
    assert len(many.list_page("f7", None).objects) == 10
    assert len({o.path for o in many.list_page("", None).objects}) == 0  # the first page holds folders alone
    assert len(many.list_page("", None).folders) == 1000
    explain = "EXPLAIN QUERY PLAN" if database_kind == "sqlite" else "EXPLAIN"
    given = {"folder_": hashlib.sha256(b"root/f7").digest(), "after": b""}
    for statement in (many._statements.list_files, many._statements.list_folders):
        with Database(many.settings).write() as connection:
            if database_kind == "postgresql":
                connection.exec_driver_sql("ANALYZE")
            context = connection.execute(statement, given).context
            sql, values = context.statement, context.parameters[0]
            plan = " ".join(str(row) for row in connection.exec_driver_sql(f"{explain} {sql}", values).all())
        for scan in ("Seq Scan", "SCAN mlflow", "'ALL'"):
            assert scan not in plan, plan
