"""The indices as the command `mlflow-elasticsearch` sees them."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest
from click.testing import CliRunner
from mlflow.entities import ExperimentTag, Metric, Param, RunTag

from mlflow_elasticsearch_tracking.indices_all import INDICES
from mlflow_elasticsearch_tracking.store import ElasticsearchTrackingStore
from mlflow_plugkit_elasticsearch import Index
from mlflow_plugkit_elasticsearch.cli import main
from mlflow_plugkit_testing.elasticsearch_prefixes import Prefixes


def test_every_index_has_a_name_of_its_own() -> None:
    assert len({index.name for index in INDICES}) == len(INDICES)


@pytest.mark.parametrize("index", [i for i in INDICES if i.derived], ids=lambda index: index.name)
def test_what_is_derived_can_be_computed_again(index: Index) -> None:
    """An upgrade copies documents, and the derived fields are not stored."""
    assert set(index.derived) <= set(index.properties)
    module, _, name = index.rebuild.partition(":")
    assert callable(getattr(import_module(module), name))


def test_searches_find_the_same_after_an_index_was_rebuilt(
    prefixes: Prefixes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a release does that changes the type of a field."""
    from mlflow_elasticsearch_tracking import indices_all

    uri = prefixes.fresh_uri()  # no other test gets this prefix: its old indices are closed to writes at the end
    store = ElasticsearchTrackingStore(uri, tmp_path.as_uri())
    experiment = store.create_experiment("old", tags=[ExperimentTag("team", "a")])
    for number in range(3):
        run = store.create_run(experiment, "ada", number, [RunTag("t", str(number))], f"r{number}").info.run_id
        store.log_batch(run, [Metric("m", float(number), 1, 0)], [Param("p", str(number))], [])
    asked = ["metrics.m > 0.5", "params.p = '1'", "tags.t LIKE '%2%'"]
    before = [[r.info.run_name for r in store.search_runs([experiment], text, 1, 9, ["metrics.m"])] for text in asked]
    newer = [
        Index(i.name, {**i.properties, "added": {"type": "keyword"}}, 2, i.settings, (*i.derived, "added"), i.rebuild)
        if i.name in ("runs", "experiments")
        else i
        for i in INDICES
    ]
    monkeypatch.setattr(indices_all, "INDICES", tuple(newer))
    done = CliRunner().invoke(main, ["upgrade", uri])
    assert done.exit_code == 0, done.output
    monkeypatch.undo()
    found = [[r.info.run_name for r in store.search_runs([experiment], text, 1, 9, ["metrics.m"])] for text in asked]
    assert found == before
    assert [e.name for e in store.search_experiments(filter_string="tags.team = 'a'")] == ["old"]
