"""Every statement that the store runs, built once for its tables; SQLAlchemy compiles each for the dialect.

What is particular to SQL Server is in the hints, which other dialects leave out: `UPDLOCK` where another
database locks by FOR UPDATE, and `HOLDLOCK` (a key-range lock) where a row that is not there yet must not
appear before this transaction inserts it. This pair in a transaction is the safe form of an upsert; MERGE
would need the same hint.
"""

from __future__ import annotations

from functools import cached_property

import sqlalchemy as sa
from sqlalchemy import bindparam as given

from mlflow_sqlserver_artifacts.tables import IN_PARTS, OBSOLETE, OPEN, STORED, Tables, utc_now

PAGE = 1000  # rows of a listing
UPLOADS = 200  # rows of unfinished uploads
CHUNKS = 256  # rows of chunks that one transaction deletes: below SQL Server's escalation to a table lock
LOCK = "WITH (UPDLOCK)"
LOCK_RANGE = "WITH (UPDLOCK, HOLDLOCK)"


class Statements:
    """The statements, each a property; parameters are named after the columns, keys of a search end in `_`."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self._folders, self._files = tables.folders.c, tables.files.c
        self._uploads, self._chunks = tables.uploads.c, tables.chunks.c

    @cached_property
    def version(self) -> sa.Select[tuple[int]]:
        """The versions of the schema; the greatest counts."""
        return sa.select(self.tables.versions.c.version)

    @cached_property
    def add_version(self) -> sa.Insert:
        return self.tables.versions.insert()

    @cached_property
    def find_file(self) -> sa.Select[tuple[object, ...]]:
        """The row of one file: `folder_`, `file_`."""
        return sa.select(self.tables.files).where(self._is_file)

    @cached_property
    def find_upload_of_file(self) -> sa.Select[tuple[int]]:
        """The upload that a file shows, locked together with its place where there is none: `folder_`, `file_`."""
        statement = sa.select(self._files.upload).where(self._is_file)
        return statement.with_for_update().with_hint(self.tables.files, LOCK_RANGE, "mssql")

    @cached_property
    def add_file(self) -> sa.Insert:
        return self.tables.files.insert().values(created=utc_now())

    @cached_property
    def replace_file(self) -> sa.Update:
        """`folder_`, `file_`, and the columns of the new version."""
        names = ("upload", "size", "sha256", "content_type", "chunk_size", "part_size")
        values = {name: given(name, type_=self._files[name].type) for name in names}
        return self.tables.files.update().where(self._is_file).values(**values, created=utc_now())

    @cached_property
    def list_files(self) -> sa.Select[tuple[object, ...]]:
        """A page of a folder's files in the order of their keys: `folder_`, those after `after`."""
        c = self._files
        columns = sa.select(c.file, c.name, c.upload, c.size, c.sha256, c.chunk_size, c.part_size)
        after = c.file > given("after", type_=c.file.type)
        return columns.where(c.folder == given("folder_"), after).order_by(c.file).limit(PAGE)

    @cached_property
    def list_folders(self) -> sa.Select[tuple[bytes, str]]:
        """A page of a folder's folders in the order of their keys: `folder_`, those after `after`."""
        c = self._folders
        after = c.folder > given("after", type_=c.folder.type)
        statement = sa.select(c.folder, c.path).where(c.parent == given("folder_"), after)
        return statement.order_by(c.folder).limit(PAGE)

    @cached_property
    def find_folder(self) -> sa.Select[tuple[bytes]]:
        """`folder_`, without a lock: the foreign key guards what follows."""
        return sa.select(self._folders.folder).where(self._folders.folder == given("folder_"))

    @cached_property
    def lock_folders(self) -> sa.Select[tuple[bytes]]:
        """Those of `folders_` that are there; nobody else can add the others before this transaction ends."""
        chosen = self._folders.folder.in_(given("folders_", expanding=True))
        return sa.select(self._folders.folder).where(chosen).with_hint(self.tables.folders, LOCK_RANGE, "mssql")

    @cached_property
    def add_folder(self) -> sa.Insert:
        return self.tables.folders.insert()

    @cached_property
    def remove_empty_folder(self) -> sa.Delete:
        """Delete the folder `folder_`, unless it holds something or is the root."""
        other = self.tables.folders.alias("inner_folders")
        has_files = sa.exists().where(self._files.folder == given("folder_", type_=self._files.folder.type))
        has_folders = sa.exists().where(other.c.parent == given("folder_", type_=other.c.parent.type))
        mine = self._folders.folder == given("folder_", type_=self._folders.folder.type)
        return self.tables.folders.delete().where(mine, self._folders.parent.is_not(None), ~has_files, ~has_folders)

    @cached_property
    def lock_files(self) -> sa.Select[tuple[bytes, int]]:
        """The files `files_` of the folder `folder_`, locked."""
        statement = sa.select(self._files.file, self._files.upload).where(self._are_files)
        return statement.with_for_update().with_hint(self.tables.files, LOCK, "mssql")

    @cached_property
    def remove_files(self) -> sa.Delete:
        return self.tables.files.delete().where(self._are_files)

    @cached_property
    def add_upload(self) -> sa.Insert:
        """Begin an upload; gives its id."""
        insert = self.tables.uploads.insert().values(started=utc_now(), touched=utc_now())
        return insert.returning(self._uploads.id)

    @cached_property
    def find_upload(self) -> sa.Select[tuple[int, bytes | None, str | None]]:
        c = self._uploads
        return sa.select(c.state, c.sha256, c.content_type).where(c.id == given("id_"))

    @cached_property
    def touch_upload(self) -> sa.Update:
        """Note progress of the upload `id_`; no row where it is not under way any more."""
        return self.tables.uploads.update().where(self._is_unfinished).values(touched=utc_now())

    @cached_property
    def finish_upload(self) -> sa.Update:
        return self.tables.uploads.update().where(self._is_unfinished).values(touched=utc_now(), state=STORED)

    @cached_property
    def drop_upload(self) -> sa.Update:
        """Mark the unfinished upload `id_` as obsolete; with `touched_`, only if it was not touched since."""
        return self._obsolete().where(self._is_unfinished)

    @cached_property
    def drop_stale_upload(self) -> sa.Update:
        untouched = self._uploads.touched == given("touched_", type_=self._uploads.touched.type)
        return self._obsolete().where(self._is_unfinished, untouched)

    @cached_property
    def drop_stored_uploads(self) -> sa.Update:
        """Mark the uploads `ids_`, which no file shows any more, as obsolete."""
        return self._obsolete().where(self._uploads.id.in_(given("ids_", expanding=True)))

    @cached_property
    def remove_uploads(self) -> sa.Delete:
        chosen = self._uploads.id.in_(given("ids_", expanding=True))
        return self.tables.uploads.delete().where(chosen, self._uploads.state == OBSOLETE)

    @cached_property
    def list_unfinished(self) -> sa.Select[tuple[object, ...]]:
        """Uploads in the states `states_`, with the database's time: those after the id `after`."""
        c = self._uploads
        columns = sa.select(c.id, c.state, c.path, c.started, c.touched, utc_now().label("now"))
        chosen = columns.where(c.state.in_(given("states_", expanding=True)), c.id > given("after", type_=c.id.type))
        return chosen.order_by(c.id).limit(UPLOADS)

    @cached_property
    def add_chunk(self) -> sa.Insert:
        """One row in each statement, however many are given: servers limit the size of one."""
        return self.tables.chunks.insert().execution_options(insertmanyvalues_page_size=1)

    @cached_property
    def read_chunks(self) -> sa.Select[tuple[int, bytes]]:
        """The chunks `first` to `last` of the part `part_` of the upload `upload_`."""
        c = self._chunks
        window = c.number.between(given("first", type_=sa.Integer), given("last", type_=sa.Integer))
        statement = sa.select(c.number, c.data).where(c.upload == given("upload_"), c.part == given("part_"), window)
        return statement.order_by(c.number)

    @cached_property
    def count_parts(self) -> sa.Select[tuple[int, int]]:
        """Number and bytes of each part of the upload `upload_`."""
        c = self._chunks
        total = sa.func.sum(sa.cast(c.size, sa.BigInteger)).label("size")
        return sa.select(c.part, total).where(c.upload == given("upload_")).group_by(c.part).order_by(c.part)

    @cached_property
    def count_chunks(self) -> sa.Select[tuple[int, int]]:
        c = self._chunks
        chosen = c.upload.in_(given("ids_", expanding=True))
        return sa.select(c.upload, sa.func.count().label("chunks")).where(chosen).group_by(c.upload)

    @cached_property
    def first_chunks(self) -> sa.Select[tuple[int, int]]:
        """The keys of the first chunks of the upload `upload_`."""
        c = self._chunks
        statement = sa.select(c.part, c.number).where(c.upload == given("upload_"))
        return statement.order_by(c.part, c.number).limit(CHUNKS)

    @cached_property
    def remove_first_chunks(self) -> sa.Delete:
        """Those of the upload `upload_` up to the part `part_` and its chunk `number_`."""
        c = self._chunks
        here = sa.and_(c.part == given("part_"), c.number <= given("number_"))
        return self.tables.chunks.delete().where(c.upload == given("upload_"), sa.or_(c.part < given("part_"), here))

    @cached_property
    def remove_part(self) -> sa.Delete:
        """The chunks of the part `part_` from number `first` on."""
        c = self._chunks
        mine = sa.and_(c.upload == given("upload_"), c.part == given("part_"))
        return self.tables.chunks.delete().where(mine, c.number >= given("first", type_=sa.Integer))

    @cached_property
    def remove_chunks(self) -> sa.Delete:
        """All chunks of the uploads `ids_`."""
        return self.tables.chunks.delete().where(self._chunks.upload.in_(given("ids_", expanding=True)))

    @property
    def _is_file(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._files.folder == given("folder_"), self._files.file == given("file_"))

    @property
    def _are_files(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._files.folder == given("folder_"), self._files.file.in_(given("files_", expanding=True)))

    @property
    def _is_unfinished(self) -> sa.ColumnElement[bool]:
        return sa.and_(self._uploads.id == given("id_"), self._uploads.state.in_((OPEN, IN_PARTS)))

    def _obsolete(self) -> sa.Update:
        return self.tables.uploads.update().values(state=OBSOLETE, touched=utc_now())
