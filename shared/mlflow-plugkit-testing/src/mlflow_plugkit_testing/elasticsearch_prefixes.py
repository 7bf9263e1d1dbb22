"""Fresh places in a shared Elasticsearch: prefixes of index names, used again once all stores on them are closed.

    from mlflow_plugkit_testing.elasticsearch_prefixes import node_url, prefixes  # in conftest.py

Making indices takes a node tens of milliseconds each. So a prefix that is given out again keeps its indices, and
their documents are deleted, by three requests whatever the number of indices.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from mlflow_plugkit_testing.elasticsearch import shared_node

_MOST = 10_000


class Prefixes:
    """The prefixes of one process on one node.

    Args:
        url: the node.
        scheme: of the store URIs that are made.
        headers: for clusters that want credentials.
        verify: a file of certificate authorities, or True for the system's.
    """

    def __init__(
        self, url: str, scheme: str = "elasticsearch", headers: dict[str, str] | None = None, verify: bool | str = True
    ) -> None:
        self._url, self._scheme = url.rstrip("/"), scheme
        self._session = requests.Session()
        self._session.headers.update(headers or {})
        self._session.verify = verify
        self._lock = threading.Lock()
        self._users: dict[str, set[int]] = {}
        self._idle: list[str] = []
        self._made: list[str] = []

    def fresh_uri(self) -> str:
        """A store URI under whose prefix there is no document."""
        with self._lock:
            uri = self._idle.pop() if self._idle else ""
            if not uri:
                self._made.append(f"plugkit-{uuid.uuid4().hex[:12]}")
                return f"{self._scheme}://{urlsplit(self._url).netloc}/{self._made[-1]}"
        self._empty(uri.rpartition("/")[2])
        return uri

    def opened(self, uri: str, store: Any) -> None:
        """Note that a store uses a prefix."""
        with self._lock:
            self._users.setdefault(uri, set()).add(id(store))
            if uri in self._idle:
                self._idle.remove(uri)

    def closed(self, store: Any) -> None:
        """Note that a store is not used any more; the last one of its prefix sets it free."""
        with self._lock:
            for uri, users in self._users.items():
                if id(store) in users:
                    users.remove(id(store))
                    if not users and uri.rpartition("/")[2] in self._made:
                        self._idle.append(uri)
                    return

    @contextmanager
    def cleared(self) -> Iterator[Prefixes]:
        """This object; delete all indices and templates of its prefixes at the end."""
        try:
            yield self
        finally:
            names = self._request("GET", "/_cat/indices?h=index&format=json&expand_wildcards=all").json()
            for prefix in self._made:
                for name in (row["index"] for row in names if row["index"].startswith(f"{prefix}-")):
                    self._request("DELETE", f"/{name}")
            templates = self._request("GET", "/_index_template").json()["index_templates"]
            for name in (template["name"] for template in templates):
                if name.startswith(tuple(f"{prefix}-" for prefix in self._made)):
                    self._request("DELETE", f"/_index_template/{name}")
            self._session.close()

    def _empty(self, prefix: str) -> None:
        while True:
            self._request("POST", f"/{prefix}-*/_refresh")
            body = json.dumps({"size": _MOST, "_source": False, "sort": ["_doc"]})
            hits = self._request("POST", f"/{prefix}-*/_search", body).json()["hits"]["hits"]
            if not hits:
                return
            lines = [json.dumps({"delete": {"_index": hit["_index"], "_id": hit["_id"]}}) for hit in hits]
            # The stores of this process do not know of these deletions, and would not refresh because of them.
            answer = self._request("POST", "/_bulk?refresh=true", "\n".join(lines) + "\n").json()
            assert not answer["errors"], answer
            if len(hits) < _MOST:
                return

    def _request(self, method: str, path: str, body: str | None = None) -> requests.Response:
        answer = self._session.request(
            method, self._url + path, data=body, headers={"Content-Type": "application/json"}, timeout=60
        )
        answer.raise_for_status()
        return answer


@pytest.fixture(scope="session")
def node_url() -> Iterator[str]:
    """The URL of a node, `http://host:port`: of the cluster that ELASTICSEARCH_URL names, or of a node of its own."""
    with shared_node() as node:
        yield node.url


@pytest.fixture(scope="session")
def prefixes(node_url: str) -> Iterator[Prefixes]:
    """Fresh prefixes on that node; all of them are deleted at the end."""
    with Prefixes(node_url).cleared() as prefixes:
        yield prefixes
