"""Strategies for the filters and orders of searches: mostly valid, now and then unknown to MLflow."""

from __future__ import annotations

from hypothesis import strategies as st

PATTERNS = st.sampled_from(["one", "One", "ONE", "o%", "O%", "%e", "%o%", "o_e", "_n_", "50%", "größ%", "%", ""])
NUMBERS = st.sampled_from(["0", "1", "-1.5", "2", "1.5", "1e10"])
EQUALS = st.sampled_from(["=", "!="])
COMPARES = st.sampled_from(["=", "!=", "<", "<=", ">", ">="])
LIKES = st.sampled_from(["LIKE", "ILIKE"])


def _text_clause(entity: str, key: str) -> st.SearchStrategy[str]:
    exact = st.builds("{}.{} {} '{}'".format, st.just(entity), st.just(key), EQUALS, PATTERNS)
    like = st.builds("{}.{} {} '{}'".format, st.just(entity), st.just(key), LIKES, PATTERNS)
    return exact | like


def run_filters() -> st.SearchStrategy[str]:
    """Filters of `search_runs`, of one or two clauses."""
    clause = st.one_of(
        st.builds("metrics.{} {} {}".format, st.sampled_from(["m", "`acc.val/1`", "absent"]), COMPARES, NUMBERS),
        _text_clause("params", "p"),
        _text_clause("params", "`q r`"),
        _text_clause("tags", "t"),
        _text_clause("attributes", "run_name"),
        st.builds("attributes.status {} '{}'".format, EQUALS, st.sampled_from(["RUNNING", "FINISHED"])),
        st.builds("attributes.start_time {} {}".format, COMPARES, st.integers(1, 9)),
        st.builds("dataset.name {} '{}'".format, st.sampled_from(["=", "LIKE"]), st.sampled_from(["d1", "d%"])),
        st.sampled_from(["colour.x = 'red'", "params.p > '1'", "attributes.colour = 'red'", "metrics.m = 'x'"]),
    )
    return st.lists(clause, min_size=1, max_size=2).map(" AND ".join)


def run_orders() -> st.SearchStrategy[list[str]]:
    """Orders of `search_runs`, of up to two different columns."""
    column = st.sampled_from(
        ["metrics.m", "metrics.loss", "params.p", "tags.t", "attributes.start_time", "run_name", "status", "end_time"]
    )
    directed = st.tuples(column, st.sampled_from(["", " ASC", " DESC"]))
    return st.lists(directed, max_size=2, unique_by=lambda item: item[0]).map(lambda d: [a + b for a, b in d])
