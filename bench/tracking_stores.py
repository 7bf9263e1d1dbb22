"""The two tracking stores that `bench_tracking.py` compares, both empty, on servers of their own on loopback."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from elastic import node, prefix

REFERENCE, OURS = "PostgreSQL", "Elasticsearch"
#: Both servers write each change to the disk before they answer, which is what their users have.
POSTGRESQL = ("-c", "fsync=on", "-c", "shared_buffers=1GB", "-c", "max_wal_size=8GB")


@contextmanager
def stores() -> Iterator[tuple[dict[str, Any], str]]:
    """The stores by name, the reference first; and what they run on."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore

    sys.path.insert(0, str(Path(__file__).parent.parent / "packages" / "mlflow-sqlserver-artifacts" / "tests"))
    import servers  # type: ignore[import-not-found] # beside the package's tests

    with (
        tempfile.TemporaryDirectory() as folder,
        servers.postgresql(*POSTGRESQL) as server,
        node() as (url, version),
        prefix(url) as uri,
    ):
        login = f"{server.user}:{quote(servers.PASSWORD, safe='')}"
        sql = SqlAlchemyStore(f"{server.driver}://{login}@127.0.0.1:{server.port}/postgres", folder)
        with sql.engine.connect() as connection:
            found = connection.exec_driver_sql("SHOW server_version").scalar()
        yield (
            {REFERENCE: sql, OURS: ElasticsearchTrackingStore(uri, folder)},
            (f"PostgreSQL {found}, Elasticsearch {version}"),
        )
        sql.engine.dispose()
