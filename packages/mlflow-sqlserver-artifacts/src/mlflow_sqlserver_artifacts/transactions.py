"""The transactions of an upload and of a deletion; each is short, and can be repeated."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import sqlalchemy as sa

from mlflow_sqlserver_artifacts.database import Database
from mlflow_sqlserver_artifacts.errors import DEADLOCKS, DatabaseError
from mlflow_sqlserver_artifacts.layout import Layout, chain_of, key_of, parent_of
from mlflow_sqlserver_artifacts.statements import Statements
from mlflow_sqlserver_artifacts.tables import STORED

P = ParamSpec("P")
T = TypeVar("T")

CONFLICTS = DEADLOCKS | {"constraint"}
ATTEMPTS = 10
PAUSE = 0.02


def settled(transaction: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a transaction; once more at once where another one got in between.

    Two that add the same folder, or a folder that one fills while another finds it empty, meet at a
    constraint; on the next attempt the loser sees what the winner did.
    """
    for attempt in range(1, ATTEMPTS):
        try:
            return transaction(*args, **kwargs)
        except DatabaseError as exc:
            if exc.code not in CONFLICTS:
                raise
            time.sleep(random.uniform(0, PAUSE * attempt))  # noqa: S311 # jitter
    return transaction(*args, **kwargs)


class Transactions:
    """What changes the tables.

    Args:
        database: where they are.
        statements: of its tables.
        chunk_size: bytes of a chunk of new uploads.
    """

    def __init__(self, database: Database, statements: Statements, chunk_size: int) -> None:
        self._database, self._statements, self._chunk_size = database, statements, chunk_size

    def begin(self, about: dict[str, Any], state: int) -> Layout:
        """Begin an upload. `about` holds its `path`, `content_type` and, if it is known, `sha256`."""
        with self._database.write() as connection:
            return self._new_upload(connection, about, state)

    def add_chunks(self, upload: int, part: int, rows: Sequence[dict[str, Any]]) -> None:
        """Add chunks to an upload that is under way, in place of those of an earlier attempt.

        Raises:
            DatabaseError: `upload gone` where the upload was cleaned up or is finished.
        """
        if not rows:
            return
        with self._database.write() as connection:
            if not connection.execute(self._statements.touch_upload, {"id_": upload}).rowcount:
                raise DatabaseError("the upload was cleaned up meanwhile", "upload gone")
            first = {"upload_": upload, "part_": part, "first": rows[0]["number"]}
            connection.execute(self._statements.remove_part, first)
            self._insert(connection, upload, part, rows)

    def store_at_once(self, file: dict[str, Any], rows: Sequence[dict[str, Any]]) -> tuple[Layout, list[int]]:
        """Store a small file; answer its layout and the uploads that it replaced."""
        with self._database.write() as connection:
            layout = self._new_upload(connection, file, STORED)
            self._insert(connection, layout.upload, 1, rows)
            return layout, self._show(connection, layout, file)

    def publish(self, layout: Layout, file: dict[str, Any]) -> list[int]:
        """Show an upload under its path; answer the uploads that it replaced.

        Raises:
            DatabaseError: `upload gone` where the upload was cleaned up.
        """
        with self._database.write() as connection:
            if connection.execute(self._statements.finish_upload, {"id_": layout.upload}).rowcount:
                return self._show(connection, layout, file)
            row = connection.execute(self._statements.find_file, place_of(file["path"])).one_or_none()
            if row is None or row.upload != layout.upload:
                raise DatabaseError("the upload was cleaned up meanwhile", "upload gone")
            return []  # an attempt whose answer was lost had published it

    def delete(self, folder: str, keys: Sequence[bytes]) -> list[int]:
        """Delete files of one folder, and the folders that are empty then; answer their uploads."""
        given = {"folder_": key_of(folder), "files_": list(keys)}
        with self._database.write() as connection:
            uploads = [row.upload for row in connection.execute(self._statements.lock_files, given)]
            if uploads:
                connection.execute(self._statements.drop_stored_uploads, {"ids_": uploads})
                connection.execute(self._statements.remove_files, given)
            for each in reversed(chain_of(folder)):
                if not connection.execute(self._statements.remove_empty_folder, {"folder_": key_of(each)}).rowcount:
                    break
        return uploads

    def _new_upload(self, connection: sa.Connection, about: dict[str, Any], state: int) -> Layout:
        row = {name: about[name] for name in ("path", "content_type", "sha256")} | {"state": state}
        return Layout(connection.execute(self._statements.add_upload, row).scalar_one(), self._chunk_size, 0)

    def _insert(self, connection: sa.Connection, upload: int, part: int, rows: Sequence[dict[str, Any]]) -> None:
        if rows:
            connection.execute(self._statements.add_chunk, [row | {"upload": upload, "part": part} for row in rows])

    def _show(self, connection: sa.Connection, layout: Layout, file: dict[str, Any]) -> list[int]:
        path = file["path"]
        self._add_folders(connection, parent_of(path))
        columns = {name: file[name] for name in ("size", "sha256", "content_type")}
        columns |= {"upload": layout.upload, "chunk_size": layout.chunk_size, "part_size": layout.part_size}
        place = place_of(path)
        found = connection.execute(self._statements.find_upload_of_file, place).one_or_none()
        if found is None:
            row = columns | {"folder": place["folder_"], "file": place["file_"], "name": path.rpartition("/")[2]}
            connection.execute(self._statements.add_file, row)
            return []
        connection.execute(self._statements.replace_file, columns | place)
        connection.execute(self._statements.drop_stored_uploads, {"ids_": [found.upload]})
        return [found.upload]

    def _add_folders(self, connection: sa.Connection, folder: str) -> None:
        """Add the folders on the way that are missing. The foreign key catches one that vanishes meanwhile."""
        if connection.scalar(self._statements.find_folder, {"folder_": key_of(folder)}) is not None:
            return
        chain = chain_of(folder)
        keys = {each: key_of(each) for each in chain}
        locked = connection.execute(self._statements.lock_folders, {"folders_": list(keys.values())})
        there = {row.folder for row in locked}
        for each in chain:
            if keys[each] not in there:
                row = {"folder": keys[each], "parent": key_of(parent_of(each)), "path": each}
                connection.execute(self._statements.add_folder, row)


def place_of(path: str) -> dict[str, bytes]:
    """The keys of a file's row, as the statements name them."""
    return {"folder_": key_of(parent_of(path)), "file_": key_of(path)}
