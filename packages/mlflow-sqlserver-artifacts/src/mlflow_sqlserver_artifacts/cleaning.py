"""Removing what nothing shows: obsolete uploads, and unfinished ones that make no progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import sqlalchemy as sa

from mlflow_sqlserver_artifacts.database import Database
from mlflow_sqlserver_artifacts.errors import DatabaseError
from mlflow_sqlserver_artifacts.statements import CHUNKS, UPLOADS, Statements
from mlflow_sqlserver_artifacts.tables import IN_PARTS, OBSOLETE, OPEN

# An upload in parts can be resumed by its client: it is left alone for as long as people sleep and travel.
PARTS_PATIENCE = 24 * 3600

_logger = logging.getLogger(__name__)
_cleaned: set[tuple[object, ...]] = set()


class Cleaner:
    """Deletes chunks in small transactions; every step may be repeated, and be done by several at once."""

    def __init__(self, database: Database, statements: Statements) -> None:
        self._database, self._statements = database, statements

    def clean_once(self) -> None:
        """Clean up on the first upload of this process; an error is logged and does not stop the upload."""
        key = (self._database.settings.location, self._statements.tables.files.fullname)
        if key in _cleaned:
            return
        _cleaned.add(key)
        self._quietly(self.clean)

    def clean(self) -> int:
        """Remove what a crash or an interrupted deletion left behind; answer how many uploads were removed.

        Unfinished uploads are left alone while they make progress: see the option `stale_after`.
        """
        stale_after = self._database.settings.stale_after
        patience = {OPEN: stale_after, IN_PARTS: max(stale_after, PARTS_PATIENCE), OBSOLETE: min(stale_after, 60)}
        removed = 0
        for row in self.unfinished(tuple(patience)):
            if (row.now - row.touched).total_seconds() < patience[row.state]:
                continue
            if row.state != OBSOLETE and not self._drop_stale(row):
                continue
            self.purge([row.id])
            removed += 1
        return removed

    def unfinished(self, states: Sequence[int]) -> Iterator[sa.Row[Any]]:
        """The uploads in these states: id, state, path, started, touched, and `now` by the database's clock."""
        after = 0
        while True:
            given = {"states_": list(states), "after": after}
            with self._database.read() as connection:
                rows = connection.execute(self._statements.list_unfinished, given).all()
            yield from rows
            if len(rows) < UPLOADS:
                return
            after = rows[-1].id

    def drop(self, upload: int) -> None:
        """Give up an unfinished upload and remove its chunks; one that is finished or gone is left alone."""
        with self._database.write() as connection:
            dropped = connection.execute(self._statements.drop_upload, {"id_": upload}).rowcount
        if dropped:
            self.purge([upload])

    def abandon(self, upload: int) -> None:
        """`drop` after an error, which must not be hidden by another one."""
        self._quietly(self.drop, upload)

    def purge(self, uploads: Sequence[int]) -> None:
        """Delete the chunks of obsolete uploads, then the uploads."""
        for start in range(0, len(uploads), UPLOADS):
            ids = list(uploads[start : start + UPLOADS])
            with self._database.read() as connection:
                counted = connection.execute(self._statements.count_chunks, {"ids_": ids}).all()
            small: list[int] = []
            held = 0
            for row in counted:
                if row.chunks > CHUNKS:
                    self._remove_large(row.upload)
                    continue
                if held + row.chunks > CHUNKS:
                    self._remove_small(small)
                    small, held = [], 0
                small.append(row.upload)
                held += row.chunks
            self._remove_small(small)
            with self._database.write() as connection:
                connection.execute(self._statements.remove_uploads, {"ids_": ids})

    def purge_quietly(self, uploads: Sequence[int]) -> None:
        """`purge` after the transaction that counts: what is left over is removed by a later clean-up."""
        if uploads:
            self._quietly(self.purge, uploads)

    def _drop_stale(self, row: sa.Row[Any]) -> bool:
        given = {"id_": row.id, "touched_": row.touched}
        with self._database.write() as connection:
            return bool(connection.execute(self._statements.drop_stale_upload, given).rowcount)

    def _remove_small(self, uploads: Sequence[int]) -> None:
        if uploads:
            with self._database.write() as connection:
                connection.execute(self._statements.remove_chunks, {"ids_": list(uploads)})

    def _remove_large(self, upload: int) -> None:
        given = {"upload_": upload}
        while True:
            with self._database.write() as connection:
                rows = connection.execute(self._statements.first_chunks, given).all()
                if rows:
                    last = {"upload_": upload, "part_": rows[-1].part, "number_": rows[-1].number}
                    connection.execute(self._statements.remove_first_chunks, last)
            if len(rows) < CHUNKS:
                return

    def _quietly(self, action: Callable[..., object], *args: object) -> None:
        try:
            action(*args)
        except DatabaseError as exc:
            _logger.warning("Chunks that nothing shows were not removed (%s). A later clean-up will do it.", exc.code)
