"""How far an import has come, kept among the claims of names, so that it goes on where it was killed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from mlflow_plugkit_elasticsearch.bulk import bulk
from mlflow_plugkit_elasticsearch.documents import Action, Documents
from mlflow_plugkit_elasticsearch.encode import document_id
from mlflow_plugkit_elasticsearch.import_source import ImportSource
from mlflow_plugkit_elasticsearch.names import KEYS
from mlflow_plugkit_elasticsearch.queries import all_of, term

KIND = "import"
RUNNING, DONE = "running", "done"
_PAGE = 1_000


@dataclass(frozen=True)
class Checkpoint:
    """How far one part has come: the token of the page to go on with, how many are written, whether all are."""

    token: str | None = None
    count: int = 0
    done: bool = False


class Checkpoints:
    """The checkpoints of one source in one target. They hold no credentials."""

    def __init__(self, documents: Documents, source: ImportSource) -> None:
        self._documents, self._source = documents, source
        self._goes_on = False

    def state(self) -> str | None:
        """`running`, `done`, or None where nothing was imported from this source."""
        found = self._documents.get(KEYS, self._id("*"))
        return str(found.source["state"]) if found else None

    def begin(self, *, anew: bool) -> None:
        """Note that the import runs; with `anew` after forgetting how far each part came."""
        if anew:
            self._forget()
        self._goes_on = not anew
        self._put("*", {"state": RUNNING})

    def _forget(self) -> None:
        query = all_of([term("kind", KIND), term("owner", self._source.key)])
        while True:
            self._documents.written(KEYS)
            found = self._documents.search(KEYS, {"query": query, "size": _PAGE, "_source": False})["hits"]["hits"]
            if not found:
                return
            bulk(self._documents, [Action("delete", KEYS, hit["_id"]) for hit in found])

    def end(self) -> None:
        """Note that everything was copied."""
        self._put("*", {"state": DONE})

    def of(self, part: str) -> Checkpoint:
        """How far a part has come."""
        found = self._documents.get(KEYS, self._id(part)) if self._goes_on else None
        if found is None:
            return Checkpoint()
        return Checkpoint(found.source["token"], found.source["count"], found.source["done"])

    def keep(self, part: str, checkpoint: Checkpoint) -> None:
        """Note how far a part has come."""
        self._put(part, {"token": checkpoint.token, "count": checkpoint.count, "done": checkpoint.done})

    def _put(self, part: str, values: dict[str, Any]) -> None:
        known = {"kind": KIND, "owner": self._source.key, "source": self._source.location, "part": part}
        self._documents.put(KEYS, self._id(part), {**known, **values, "at": time.time()})

    def _id(self, part: str) -> str:
        return document_id(KIND, self._source.key, part)
