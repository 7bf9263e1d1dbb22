"""The privileges that a store needs, as Elasticsearch's API to create a role takes them.

Names as in https://www.elastic.co/docs/reference/elasticsearch/security-privileges.
"""

from __future__ import annotations

from typing import Any

#: To read, search, write, delete and refresh documents, and to read mappings.
USE = ("read", "write", "maintenance", "view_index_metadata")
#: To create indices with an alias, and to extend, rebuild and swap them.
MANAGE = ("manage",)


def role(prefix: str, *, manages: bool) -> dict[str, Any]:
    """The least privileges on the indices of a prefix.

    Args:
        prefix: how the names of the indices begin.
        manages: also create and upgrade indices. Without, set MLFLOW_ELASTICSEARCH_CREATE=false, and let an
            administrator run `bootstrap` and `upgrade`.
    """
    privileges = [*USE, *MANAGE] if manages else list(USE)
    cluster = ["manage_index_templates"] if manages else []
    return {"cluster": cluster, "indices": [{"names": [f"{prefix}-*"], "privileges": privileges}]}
