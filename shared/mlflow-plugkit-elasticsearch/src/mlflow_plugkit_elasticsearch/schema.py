"""Indices with explicit, versioned mappings behind aliases: made where they are missing, upgraded on demand.

An index `runs` of the prefix `mlflow` is the alias `mlflow-runs` on the index `mlflow-runs-v1`. The mapping's `_meta`
keeps the version of the schema that it was made with. Nothing is mapped dynamically: user-given names never become
fields.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.client import Cluster

_META = "plugkit_schema"


@dataclass(frozen=True)
class Index:
    """One index of a store.

    Attributes:
        name: unique among all packages that share a prefix (`runs`).
        properties: the mapping's properties. What is not mapped is kept in `_source` and not searchable.
        version: raise it with each change of the properties; additions need nothing else.
        settings: further settings of the index.
        derived: properties that are computed from the rest at each write. They are indexed, and left out of the
            stored `_source`, which stays small to read.
        rebuild: what computes the derived fields, as `module:function`: takes the stored source of a document and
            returns the document. An upgrade that copies documents calls it.
    """

    name: str
    properties: Mapping[str, Any]
    version: int = 1
    settings: Mapping[str, Any] = field(default_factory=dict)
    derived: tuple[str, ...] = ()
    rebuild: str = ""

    def body(self, shards: int, replicas: str) -> dict[str, Any]:
        """Mappings and settings, as the API to create an index takes them."""
        copies = {"number_of_replicas": int(replicas)} if replicas.isdigit() else {"auto_expand_replicas": replicas}
        basic = {"number_of_shards": shards, "refresh_interval": "1s", "mapping.coerce": False, **copies}
        return {"settings": {"index": {**basic, **self.settings}}, "mappings": self.mappings()}

    def mappings(self) -> dict[str, Any]:
        """The mapping with its version."""
        source = {"_source": {"excludes": list(self.derived)}} if self.derived else {}
        return {"dynamic": False, "_meta": {_META: self.version}, **source, "properties": dict(self.properties)}


class Schema:
    """The indices of one prefix on one cluster."""

    def __init__(self, cluster: Cluster, prefix: str) -> None:
        self.cluster, self.prefix = cluster, prefix
        self._known: set[str] = set()
        self._making = threading.Lock()

    def alias(self, index: Index) -> str:
        """The name to read from and write to."""
        return f"{self.prefix}-{index.name}"

    def ensure(self, index: Index) -> None:
        """Make the index where it is missing; refuse one that a newer version of the package made.

        Race-safe between processes: whoever comes second finds it there.

        Raises:
            MlflowException: `INVALID_STATE` for a newer schema; `RESOURCE_DOES_NOT_EXIST` where the index is
                missing and may not be made.
        """
        if index.name in self._known:
            return
        with self._making:
            if index.name in self._known:
                return
            found = self.stored_version(index)
            if found is None:
                self._create(index)
            elif found > index.version:
                raise self.newer(index, found)
            elif found < index.version and not self.extend(index):
                raise self._older(index, found)
            self._known.add(index.name)

    def check(self, index: Index) -> bool:
        """Whether the index is there; refuse one that a newer version of the package made."""
        if index.name in self._known:
            return True
        found = self.stored_version(index)
        if found is not None and found > index.version:
            raise self.newer(index, found)
        return found is not None

    def stored_version(self, index: Index) -> int | None:
        """The version of the stored mapping; None where there is no such index."""
        path = f"/{self.alias(index)}/_mapping"
        answer = self.cluster.request("GET", path, f"read the mapping of {index.name}", accepted=(404,))
        if answer.status == 404:
            return None
        metas = [mapping["mappings"].get("_meta", {}) for mapping in answer.body.values()]
        return max(int(meta.get(_META, 0)) for meta in metas)

    def extend(self, index: Index) -> bool:
        """Add to the stored mapping what this version has more; False where it would have to change what is there."""
        path = f"/{self.alias(index)}/_mapping"
        answer = self.cluster.request(
            "PUT", path, f"extend the mapping of {index.name}", index.mappings(), accepted=(400,)
        )
        return answer.status == 200

    def forget(self, index: Index) -> None:
        """Look again at next use: the index was deleted behind our back."""
        self._known.discard(index.name)

    def _create(self, index: Index) -> None:
        settings = self.cluster.settings
        if not settings.create:
            raise mlflow_error(
                f"There is no index {self.alias(index)}. Have an administrator run `mlflow-elasticsearch bootstrap "
                f"{settings.location}`, or leave MLFLOW_ELASTICSEARCH_CREATE at its default.",
                "RESOURCE_DOES_NOT_EXIST",
            )
        self.put_template(index)
        self.create_at(index, f"{self.alias(index)}-v{index.version}", alias=True)
        if self.stored_version(index) is None:
            raise mlflow_error(
                f"{self.alias(index)}-v{index.version} is there, and is not behind the alias {self.alias(index)}. "
                "Delete it if it is left over, or give it the alias.",
                "INVALID_STATE",
            )

    def create_at(self, index: Index, name: str, *, alias: bool = False) -> None:
        """Create the index under a concrete name, unless somebody was faster."""
        created = self._body(index)
        if alias:
            created["aliases"] = {self.alias(index): {"is_write_index": True}}
        answer = self.cluster.request("PUT", f"/{name}", f"create the index {name}", created, accepted=(400,))
        error = answer.body.get("error", {}) if answer.status == 400 else {}
        if error and error.get("type") != "resource_already_exists_exception":
            raise mlflow_error(
                f"Elasticsearch refused to create {name}: {error.get('type')}: {error.get('reason')}.",
                "INTERNAL_ERROR",
            )

    def put_template(self, index: Index) -> None:
        """A template, so that a restored index gets the same mapping; left out without the privilege to make one."""
        template = {
            "index_patterns": [f"{self.alias(index)}-v*"],
            "template": self._body(index),
            "priority": 200,
            "version": index.version,
        }
        path = f"/_index_template/{self.alias(index)}"
        self.cluster.request("PUT", path, f"create the template of {index.name}", template, accepted=(403,))

    def _body(self, index: Index) -> dict[str, Any]:
        settings = self.cluster.settings
        return index.body(settings.shards, settings.replicas)

    def _older(self, index: Index, found: int) -> Exception:
        return mlflow_error(
            f"The index {self.alias(index)} has schema {found}, and this package needs schema {index.version}. "
            f"Stop the servers and run `mlflow-elasticsearch upgrade {self.cluster.settings.location}`.",
            "INVALID_STATE",
        )

    def newer(self, index: Index, found: int) -> Exception:
        """The error for an index that a newer version of the package made."""
        return mlflow_error(
            f"The index {self.alias(index)} has schema {found}, and this package knows schema {index.version}. "
            "Upgrade the package on this machine; nothing was changed.",
            "INVALID_STATE",
        )
