"""Searching runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

from mlflow.entities import LifecycleStage, Run, RunInputs, RunOutputs, ViewType
from mlflow.store.tracking import SEARCH_MAX_RESULTS_THRESHOLD

from mlflow_elasticsearch_tracking.base import StoreBase
from mlflow_elasticsearch_tracking.filters import (
    Clause,
    Filter,
    conjunction,
    experiment_numbers,
    number_is_one_of,
    run_filter,
)
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.ordering import Sort, run_order
from mlflow_elasticsearch_tracking.run_documents import run_entity
from mlflow_elasticsearch_tracking.run_links import model_outputs
from mlflow_plugkit.collector import collector_paused
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch import Documents, Hit, Index
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import MATCH_NONE, term

#: From so many runs on, a page is built without Python's collector of cycles walking over all of MLflow.
_LARGE = 200


class RunSearch(StoreBase):
    """Search runs by filter and order."""

    if TYPE_CHECKING:  # Inputs has it

        def _run_inputs(self, sources: Sequence[Any], *, models: bool = False) -> list[RunInputs]: ...

    def _search_runs(
        self,
        experiment_ids: Sequence[str],
        filter_string: str | None,
        run_view_type: int,
        max_results: int | None,
        order_by: Sequence[str] | None,
        page_token: str | None,
    ) -> tuple[list[Run], str | None]:
        """A page of the runs of some experiments, in one order over all of them, and the token of the next page.

        The token holds where the page ended: it outlives restarts, and a page costs the same however deep it is.

        Args:
            experiment_ids: the experiments; none of them means no runs.
            filter_string: as `mlflow.search_runs` takes it.
            run_view_type: a `ViewType`.
            max_results: at most 50,000; None for all runs.
            order_by: as `mlflow.search_runs` takes it; then the latest start and the run id.
            page_token: the token of the page before, from a search for the same.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE` for a bad filter, order, number or token.
        """
        check_max_results(max_results, optional=True)
        clauses = run_filter(filter_string)
        sort = run_order(order_by)
        numbers = experiment_numbers(experiment_ids)
        asked = (sorted(set(numbers)), filter_string or "", run_view_type, list(order_by or ()))
        after = decode_token(page_token, *asked)
        if not numbers:
            return [], None
        among = Clause(number_is_one_of("experiment_number", numbers))
        wanted = conjunction([among, *in_view(run_view_type), *clauses])
        large = max_results is None or max_results >= _LARGE
        with collector_paused() if large else nullcontext():
            hits, more = find(self.docs, RUNS, wanted, sort, max_results, after)
            runs = self._runs_of(hits)
        return runs, encode_token(hits[-1].sort, *asked) if more else None

    def _runs_of(self, hits: Sequence[Hit]) -> list[Run]:
        sources = [hit.source for hit in hits]
        inputs = self._run_inputs(sources)
        return [
            run_entity(source, read, RunOutputs(model_outputs(source)))
            for source, read in zip(sources, inputs, strict=True)
        ]


def find(
    docs: Documents,
    index: Index,
    wanted: Filter,
    sort: Sort,
    most: int | None,
    after: Sequence[Any] | None,
) -> tuple[list[Hit], bool]:
    """The documents behind `after` that a filter accepts, and whether there are more.

    Args:
        docs: where they are.
        index: of which kind.
        wanted: the filter; what its query finds and its checks refuse is skipped.
        sort: the order; its last field is unique.
        most: as many at most; None for all.
        after: the `sort` of the last document of the page before.
    """
    found: list[Hit] = []
    fresh = True
    while most is None or len(found) <= most:
        size = 10_000 if most is None else most + 1 - len(found)
        step = max(size, 1_000) if wanted.checks else size
        hits = docs.page(index, wanted.query, sort, step, after=after, fresh=fresh)
        found += [hit for hit in hits if wanted.accepts(hit.source)] if wanted.checks else hits
        if len(hits) < step:
            break
        after, fresh = hits[-1].sort, False
    return (found, False) if most is None else (found[:most], len(found) > most)


def in_view(view_type: int) -> list[Clause]:
    """The clauses for a `ViewType`."""
    if view_type == ViewType.ALL:
        return []
    stages = LifecycleStage.view_type_to_stages(view_type)
    return [Clause(term("lifecycle_stage", stage)) for stage in stages] or [Clause(MATCH_NONE)]


def check_max_results(max_results: int | None, *, optional: bool = False) -> None:
    """Refuse a page's size that MLflow refuses.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE`.
    """
    if max_results is None and optional:
        return
    bad = f"Invalid value {max_results} for parameter 'max_results' supplied. It must be"
    if max_results is None or max_results < 1:
        raise mlflow_error(f"{bad} a positive integer")
    if max_results > SEARCH_MAX_RESULTS_THRESHOLD:
        raise mlflow_error(f"{bad} at most {SEARCH_MAX_RESULTS_THRESHOLD}, but got value {max_results}")
