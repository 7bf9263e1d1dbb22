"""Searching experiments."""

from __future__ import annotations

from collections.abc import Sequence

from mlflow.entities import Experiment, LifecycleStage, ViewType
from mlflow.store.entities.paged_list import PagedList
from mlflow.store.tracking import SEARCH_MAX_RESULTS_DEFAULT

from mlflow_elasticsearch_tracking.experiments import Experiments, experiment_entity
from mlflow_elasticsearch_tracking.filters import conjunction, experiment_filter
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS
from mlflow_elasticsearch_tracking.ordering import experiment_order
from mlflow_elasticsearch_tracking.run_search import check_max_results, find, in_view
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token


class ExperimentSearch(Experiments):
    """Search experiments by filter and order."""

    def search_experiments(
        self,
        view_type: int = ViewType.ACTIVE_ONLY,
        max_results: int = SEARCH_MAX_RESULTS_DEFAULT,
        filter_string: str | None = None,
        order_by: Sequence[str] | None = None,
        page_token: str | None = None,
    ) -> PagedList[Experiment]:
        """A page of the experiments, and the token of the next page.

        Args:
            view_type: a `ViewType`.
            max_results: at most 50,000.
            filter_string: as `mlflow.search_experiments` takes it.
            order_by: as `mlflow.search_experiments` takes it; the newest first without it.
            page_token: the token of the page before, from a search for the same.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad filter, order, number or token.
        """
        check_max_results(max_results)
        clauses = experiment_filter(filter_string)
        sort = experiment_order(order_by)
        asked = (view_type, filter_string or "", list(order_by or ()))
        after = decode_token(page_token, *asked)
        self._ensure_default_experiment()
        wanted = conjunction([*in_view(view_type), *clauses])
        hits, more = find(self.docs, EXPERIMENTS, wanted, sort, max_results, after)
        token = encode_token(hits[-1].sort, *asked) if more else None
        return PagedList([experiment_entity(hit.source) for hit in hits], token)

    def filter_active_experiment_ids(self, experiment_ids: list[str]) -> list[str]:
        """Those of the experiments that are there and active, by their numbers."""
        ids = [self._numeric_id(one) for one in experiment_ids]
        found = self.docs.get_many(EXPERIMENTS, list(dict.fromkeys(ids))) if ids else {}
        active = [key for key, one in found.items() if one.source["lifecycle_stage"] == LifecycleStage.ACTIVE]
        return sorted(active, key=int)
