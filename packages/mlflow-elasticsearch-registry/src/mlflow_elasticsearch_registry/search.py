"""Searches for registered models and versions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.model_registry import (
    SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
    SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
    SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD,
)

from mlflow_elasticsearch_registry.filters import Compiled, models_filter, models_sort, versions_filter, versions_sort
from mlflow_elasticsearch_registry.indices import MODEL_VERSIONS, REGISTERED_MODELS
from mlflow_elasticsearch_registry.latest import LatestVersions
from mlflow_elasticsearch_registry.records import model_version, registered_model
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Hit, Index
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import Query

#: Where hits are checked and few are right: how many further ones are fetched at once.
_CHECKED_AT_ONCE = 1_000


class Searches(LatestVersions):
    """Search by filter, in an order, page by page."""

    def search_registered_models(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_REGISTERED_MODEL_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[RegisteredModel]:
        """Registered models with their latest versions: two requests a page, however many models it has."""
        check_size(max_results, SEARCH_REGISTERED_MODEL_MAX_RESULTS_THRESHOLD)
        asked = (filter_string or None, list(order_by or ()))
        wanted, sort = models_filter(filter_string), models_sort(order_by)
        hits, token = self._page(REGISTERED_MODELS, wanted, sort, max_results, page_token, asked)
        found = self._with_latest([hit.source for hit in hits])
        return PagedList([registered_model(source, latest) for source, latest in found], token)

    def search_model_versions(
        self,
        filter_string: str | None = None,
        max_results: int = SEARCH_MODEL_VERSION_MAX_RESULTS_DEFAULT,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[ModelVersion]:
        """Versions without their aliases, which MLflow's SQL store leaves out of a search, too."""
        check_size(max_results, SEARCH_MODEL_VERSION_MAX_RESULTS_THRESHOLD)
        asked = (filter_string or None, list(order_by or ()))
        wanted, sort = versions_filter(filter_string), versions_sort(order_by)
        hits, token = self._page(MODEL_VERSIONS, wanted, sort, max_results, page_token, asked)
        return PagedList([model_version(hit.source, hit.source["name"]) for hit in hits], token)

    def _page(
        self,
        index: Index,
        wanted: Compiled,
        sort: list[Query],
        size: int,
        token: str | None,
        asked: tuple[Any, ...],
    ) -> tuple[list[Hit], str | None]:
        """A page, and the token of the next one where there is one."""
        after = decode_token(token, index.name, *asked)
        hits: list[Hit] = []
        step = size + 1
        while len(hits) <= size:
            found = self.docs.page(index, wanted.query, sort, step, after=after, fresh=step == size + 1)
            hits += [hit for hit in found if all(check(hit.source) for check in wanted.checks)]
            if len(found) < step:
                break
            after, step = found[-1].sort, _CHECKED_AT_ONCE
        token = encode_token(hits[size - 1].sort, index.name, *asked) if len(hits) > size else None
        return hits[:size], token


def check_size(max_results: Any, most: int) -> None:
    """Refuse a size of a page that MLflow's own store does not take.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    if not isinstance(max_results, int | float) or max_results < 1:
        raise mlflow_error(f"Invalid value for max_results. It must be a positive integer, but got {max_results}")
    if max_results > most:
        raise mlflow_error(
            f"Invalid value for request parameter max_results. It must be at most {most}, but got value {max_results}"
        )
    if not isinstance(max_results, int):
        raise mlflow_error(f"Invalid value for max_results. It must be a positive integer, but got {max_results}")
