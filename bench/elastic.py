"""An Elasticsearch to measure: the one that ELASTICSEARCH_URL names, or a node of its own; and fresh documents."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
from mlflow_plugkit_testing.elasticsearch import elasticsearch_node


@contextmanager
def node() -> Iterator[tuple[str, str]]:
    """The URL of a node, and its version."""
    if os.environ.get("ELASTICSEARCH_URL"):
        yield os.environ["ELASTICSEARCH_URL"], os.environ.get("ELASTICSEARCH_VERSION", "as ELASTICSEARCH_URL has it")
        return
    with elasticsearch_node() as own:
        yield own.url, own.version


@contextmanager
def prefix(url: str) -> Iterator[str]:
    """A store URI with a prefix of its own; its indices and templates are deleted at the end."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    uri = f"elasticsearch://{urlsplit(url).netloc}/{name}"
    docs = documents(uri)
    try:
        yield uri
    finally:
        for index in docs.cluster.request("GET", "/_alias", "list the indices").body:
            if index.startswith(f"{name}-"):
                docs.cluster.request("DELETE", f"/{index}", "delete what was measured")
        for template in docs.cluster.request("GET", "/_index_template", "list the templates").body["index_templates"]:
            if template["name"].startswith(f"{name}-"):
                docs.cluster.request("DELETE", f"/_index_template/{template['name']}", "delete what was measured")


def documents(uri: str) -> Documents:
    """The documents of a store URI."""
    return Documents.of(ElasticsearchSettings.from_uri(uri))


def settled(docs: Documents, *indices: Any) -> float:
    """Refresh and merge indices as they are after a while; their size in MB."""
    size = 0
    for index in indices:
        alias = docs.schema.alias(index)
        docs.cluster.request("POST", f"/{alias}/_refresh", "refresh")
        docs.cluster.request("POST", f"/{alias}/_forcemerge?max_num_segments=1", "merge")
        shards = docs.cluster.request("GET", f"/{alias}/_segments", "weigh").body["indices"].values()
        size += sum(
            segment["size_in_bytes"]
            for shard in shards
            for copy in shard["shards"].values()
            for segment in copy[0]["segments"].values()
        )
    return size / 1e6
