"""Issues found in traces."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mlflow_elasticsearch_tracking.base import missing, now_ms
from mlflow_elasticsearch_tracking.experiments import Experiments
from mlflow_elasticsearch_tracking.filters import Clause, conjunction
from mlflow_elasticsearch_tracking.indices import RUNS
from mlflow_elasticsearch_tracking.indices_genai import ISSUES
from mlflow_elasticsearch_tracking.indices_traces import TRACES
from mlflow_elasticsearch_tracking.run_search import check_max_results, find
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit_elasticsearch.documents import Source
from mlflow_plugkit_elasticsearch.paging import decode_token, encode_token
from mlflow_plugkit_elasticsearch.queries import MATCH_ALL, all_of, exists, none_of, term

if TYPE_CHECKING:
    from mlflow.store.entities.paged_list import PagedList

_ORDER = [{"rank": "desc"}, {"created_timestamp": "desc"}, {"issue_id": "desc"}]
#: Counted by one request; Elasticsearch bounds the buckets of an answer (`search.max_buckets`).
_COUNTED = 1_000
_DEFAULT_PAGE = 100


class Issues(Experiments):
    """Create, read, change and search issues."""

    def create_issue(
        self,
        experiment_id: str,
        name: str,
        description: str,
        status: Any = None,
        severity: Any = None,
        root_causes: list[str] | None = None,
        source_run_id: str | None = None,
        categories: list[str] | None = None,
        created_by: str | None = None,
    ) -> Any:
        """Make an issue of an experiment, pending unless told otherwise.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST` for no such active experiment or run.
        """
        experiment = self._in_stage(experiment_id, "active")
        if source_run_id is not None:
            self._check_run(source_run_id)
        now = now_ms()
        source: Source = {
            "issue_id": f"iss-{uuid.uuid4().hex}",
            "experiment_id": str(experiment["experiment_id"]),
            "name": name,
            "description": description,
            "status": status.value if status else "pending",
            "severity": severity.value if severity else None,
            "rank": _rank(severity),
            "root_causes": root_causes or None,
            "source_run_id": source_run_id,
            "categories": categories or None,
            "created_timestamp": now,
            "last_updated_timestamp": now,
            "created_by": created_by,
        }
        self.docs.create(ISSUES, source["issue_id"], source)
        return _issue(source)

    def _check_run(self, run_id: str) -> None:
        if self.docs.get(RUNS, run_id) is None:
            raise missing("run", run_id)

    def get_issue(self, issue_id: str) -> Any:
        """The issue.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        found = self.docs.get(ISSUES, issue_id)
        if found is None:
            raise _missing(issue_id)
        return _issue(found.source)

    def update_issue(
        self,
        issue_id: str,
        status: Any = None,
        name: str | None = None,
        description: str | None = None,
        severity: Any = None,
    ) -> Any:
        """Change what is given.

        Raises:
            MlflowException: `RESOURCE_DOES_NOT_EXIST`.
        """
        given: Source = {
            "status": status.value if status is not None else None,
            "name": name,
            "description": description,
            "severity": severity.value if severity is not None else None,
            "rank": _rank(severity) if severity is not None else None,
        }
        new = {key: value for key, value in given.items() if value is not None} | {"last_updated_timestamp": now_ms()}
        return _issue(self.docs.update(ISSUES, issue_id, lambda s: s | new, lambda: _missing(issue_id)).source)

    def search_issues(
        self,
        experiment_id: str | None = None,
        filter_string: str | None = None,
        max_results: int | None = None,
        page_token: str | None = None,
        include_trace_count: bool = False,
    ) -> PagedList[Any]:
        """A page of issues, the most severe first, then those with the most traces if counted, then the newest.

        Args:
            experiment_id: of one experiment, or of all.
            filter_string: comparisons (= and !=) of `status` and `source_run_id`, joined by AND.
            max_results: size of the page, 100 unless told otherwise.
            page_token: of the page before.
            include_trace_count: also count the traces that an assessment connects with each issue.

        Raises:
            MlflowException: `INVALID_PARAMETER_VALUE`.
        """
        from mlflow.store.entities.paged_list import PagedList

        check_max_results(max_results, optional=True)
        size = max_results or _DEFAULT_PAGE
        asked = (experiment_id and str(experiment_id), filter_string or None, include_trace_count)
        after = decode_token(page_token, *asked)
        queries = _compiled(filter_string)
        if experiment_id is not None:
            queries.append(term("experiment_id", self._numeric_id(experiment_id)))
        if include_trace_count:
            issues, last = self._counted_page(all_of(queries), size, after)
        else:
            hits, more = find(self.docs, ISSUES, conjunction([Clause(all_of(queries))]), _ORDER, size, after)
            issues, last = [_issue(hit.source) for hit in hits], hits[-1].sort if more else None
        return PagedList(issues, encode_token(last, *asked) if last else None)

    def _counted_page(
        self, query: dict[str, Any], size: int, after: Sequence[Any] | None
    ) -> tuple[list[Any], list[Any] | None]:
        """A page in an order that only the counts of all issues tell."""
        sources = [hit.source for hit in self.docs.scan(ISSUES, query, "issue_id")]
        counts = self._trace_counts([source["issue_id"] for source in sources])

        def key(source: Source) -> list[Any]:
            return [source["rank"], counts[source["issue_id"]], source["created_timestamp"], source["issue_id"]]

        rest = sorted((s for s in sources if after is None or key(s) < list(after)), key=key, reverse=True)
        page = rest[:size]
        last = key(page[-1]) if len(rest) > size else None
        return [_issue(source, counts[source["issue_id"]]) for source in page], last

    def _trace_counts(self, issue_ids: Sequence[str]) -> dict[str, int]:
        counts: dict[str, int] = {}
        for start in range(0, len(issue_ids), _COUNTED):
            some = issue_ids[start : start + _COUNTED]
            filters = {issue_id: term("issues", issue_id) for issue_id in some}
            body = {"query": MATCH_ALL, "size": 0, "aggs": {"issues": {"filters": {"filters": filters}}}}
            answer = self.docs.search(TRACES, body)
            buckets = answer.get("aggregations", {}).get("issues", {}).get("buckets", {})
            counts |= {issue_id: int(buckets.get(issue_id, {}).get("doc_count", 0)) for issue_id in some}
        return counts


def _compiled(filter_string: str | None) -> list[dict[str, Any]]:
    if not filter_string:
        return []
    from mlflow.utils.search_utils import SearchIssuesUtils

    queries = []
    for comparison in SearchIssuesUtils.parse_search_filter(filter_string):
        field, equal = comparison["key"], term(comparison["key"], comparison["value"])
        queries.append(equal if comparison["comparator"] == "=" else all_of([exists(field), none_of([equal])]))
    return queries


def _rank(severity: Any) -> int:
    """The place of a severity in MLflow's order; -1 for none."""
    names = [one.value for one in type(severity)] if severity else []
    return names.index(severity.value) if severity else -1


def _issue(source: Mapping[str, Any], trace_count: int | None = None) -> Any:
    from mlflow.entities.issue import Issue, IssueSeverity, IssueStatus

    severity = source["severity"]
    return Issue(
        issue_id=source["issue_id"],
        experiment_id=source["experiment_id"],
        name=source["name"],
        description=source["description"],
        status=IssueStatus(source["status"]),
        severity=IssueSeverity(severity) if severity else None,
        root_causes=source["root_causes"],
        source_run_id=source["source_run_id"],
        categories=source["categories"],
        created_timestamp=source["created_timestamp"],
        last_updated_timestamp=source["last_updated_timestamp"],
        created_by=source["created_by"],
        trace_count=trace_count,
    )


def _missing(issue_id: str) -> Exception:
    return mlflow_error(f"Issue with ID '{issue_id}' not found", "RESOURCE_DOES_NOT_EXIST")
