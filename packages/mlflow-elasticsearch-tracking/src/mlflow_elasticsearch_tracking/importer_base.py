"""What the parts of the import stand on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from mlflow.exceptions import MlflowException

from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
from mlflow_plugkit_elasticsearch import Index
from mlflow_plugkit_elasticsearch.import_source import ImportSource
from mlflow_plugkit_elasticsearch.queries import all_of, term

T = TypeVar("T")


class Imports:
    """Base of the classes that copy one subject.

    Attributes:
        source: to read from.
        store: to fill, and to read back from.
    """

    def __init__(self, source: ImportSource, store: ElasticsearchTrackingStore) -> None:
        self.source, self.store, self.docs = source, store, store.docs
        self._known: dict[str, frozenset[str]] = {}

    def may_have(self, table: str, experiment_id: str) -> bool:
        """Whether the source may have rows of an experiment in a table; a server is asked for them in any case."""
        if not self.source.is_database:
            return True
        if table not in self._known:
            rows = self.source.rows(table, ["experiment_id"], {}, distinct=True)
            self._known[table] = frozenset(str(row[0]) for row in rows)
        return str(experiment_id) in self._known[table]

    def counter(self, index: Index, experiment_id: str, *also: Any) -> Callable[[], int]:
        """What counts the target's documents of an experiment."""
        query = all_of([term("experiment_id", str(experiment_id)), *also])
        return lambda: self.docs.count(index, query)


def found(ask: Callable[[], T]) -> T | None:
    """What a store answers, or None where it says that there is no such thing."""
    try:
        return ask()
    except MlflowException as exc:
        if exc.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
