"""Scorers, issues, label schemas and review queues answer as MLflow's own store does."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, is_dataclass
from typing import Any

import pytest
from mlflow.entities import AssessmentSource, TraceInfo, TraceLocation
from mlflow.entities.trace_state import TraceState
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.abstract_store import AbstractStore

pytestmark = pytest.mark.usefixtures("store")
_IDS = re.compile(r"\b(?:ls-|rq-|iss-|tr-)?[0-9a-f]{32}\b|\b[0-9a-f]{8}-[0-9a-f-]{27}\b")
SCORER = json.dumps({"name": "s", "instructions_judge_pydantic_data": {"model": "openai:/gpt-4"}})


def has(name: str) -> Any:
    """Mark: the installed MLflow has the method."""
    return pytest.mark.skipif(not hasattr(AbstractStore, name), reason=f"this MLflow has no {name}")


class Script:
    """Runs operations on a store and keeps what they answer, without ids and times of the store's own."""

    def __init__(self, store: Any) -> None:
        self.store, self.heard, self._ids = store, [], {}
        self.experiment = str(store.create_experiment("script"))

    def __call__(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = getattr(self.store, name)(*args, **kwargs)
        except MlflowException as exc:
            self.heard.append((name, exc.error_code))
            return None
        self.heard.append((name, self.plain(answer)))
        return answer

    def plain(self, value: Any) -> Any:
        if isinstance(value, list | tuple):
            return [self.plain(one) for one in value]
        if is_dataclass(value) and not isinstance(value, type):
            return self.plain(asdict(value))
        if type(value).__name__ == "ScorerVersion":
            return self.plain(dict(value))
        if isinstance(value, dict):
            return {k: (bool(v) if _is_time(k) else self.plain(v)) for k, v in value.items()}
        return (
            _IDS.sub(lambda m: self._ids.setdefault(m[0], f"id{len(self._ids)}"), value)
            if isinstance(value, str)
            else value
        )


def _is_time(key: str) -> bool:
    return "time" in key or key.endswith("_at")


def same(script: Callable[[Script], None], own: Any, store: Any) -> None:
    """Run a script on MLflow's own store and on ours, and compare what was heard."""
    theirs, ours = Script(own), Script(store)
    for one in (theirs, ours):
        script(one)
    assert ours.heard == theirs.heard


@has("register_scorer")
def test_scorers_have_versions(own: Any, store: Any) -> None:
    def script(do: Script) -> None:
        e = do.experiment
        for name in ("b", "a", "b", "b"):
            do("register_scorer", e, name, SCORER)
        do("list_scorers", e)
        do("list_scorer_versions", e, "b")
        do("get_scorer", e, "b")
        do("get_scorer", e, "b", version=2)
        do("get_scorer", e, "b", version=9)
        do("get_scorer", e, "none")
        do("delete_scorer", e, "b", version=3)
        do("delete_scorer", e, "b", version=3)
        do("register_scorer", e, "b", SCORER)
        do("delete_scorer", e, "a")
        do("list_scorers", e)
        do("delete_scorer", e, "a")
        do("list_scorers", "4711")
        do("register_scorer", "4711", "a", SCORER)

    same(script, own, store)


@has("register_scorer")
def test_versions_are_numbered_once_by_many_at_the_same_time(store: Any, experiment: str) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: store.register_scorer(experiment, "s", SCORER).scorer_version, range(24)))
    assert sorted(made) == list(range(1, 25))


@has("list_scorers_across_experiments")
def test_scorers_of_several_experiments_are_listed_in_order(own: Any, store: Any) -> None:
    def script(do: Script) -> None:
        other = str(do.store.create_experiment("other"))
        for experiment, name in ((other, "z"), (do.experiment, "y"), (other, "a"), (do.experiment, "y")):
            do("register_scorer", experiment, name, SCORER)
        do("list_scorers_across_experiments", [other, do.experiment])
        do("list_scorers_across_experiments", [])
        do("list_scorers_across_experiments", ["no number"])
        do("list_scorers_across_experiments", [""])
        do("filter_active_experiment_ids", [other, "4711", do.experiment])

    same(script, own, store)


@has("upsert_online_scoring_config")
def test_online_scoring(own: Any, store: Any) -> None:
    def script(do: Script) -> None:
        e = do.experiment
        made = do("register_scorer", e, "s", SCORER)
        do("upsert_online_scoring_config", e, "s", 0.0)
        do("upsert_online_scoring_config", e, "s", 0.0, "tags.a = 'b'")
        do("upsert_online_scoring_config", e, "s", 0.5)
        do("upsert_online_scoring_config", e, "s", 1.5)
        do("upsert_online_scoring_config", e, "s", "much")
        do("upsert_online_scoring_config", e, "s", 0.0, "no filter at all")
        do("upsert_online_scoring_config", e, "none", 0.0)
        do("get_online_scoring_configs", [made.scorer_id, "unknown"])
        do("get_online_scoring_configs", [])
        do("get_active_online_scorers")

    same(script, own, store)


@has("upsert_online_scoring_config")
def test_a_scorer_of_the_gateway_scores_online(store: Any, experiment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where somebody adds a gateway to the store, scorers name its endpoints; without one the answer is 501."""
    serialized = SCORER.replace("openai:/gpt-4", "gateway:/chat")
    with pytest.raises(MlflowException, match="gateway") as caught:
        store.register_scorer(experiment, "g", serialized)
    assert caught.value.error_code == "NOT_IMPLEMENTED"
    endpoint = type("Endpoint", (), {"endpoint_id": "e-1", "name": "chat"})
    monkeypatch.setattr(store, "get_gateway_endpoint", lambda **_: endpoint, raising=False)
    made = store.register_scorer(experiment, "g", serialized)
    assert "gateway:/chat" in made._serialized_scorer
    assert store.upsert_online_scoring_config(experiment, "g", 0.5).sample_rate == 0.5
    assert [scorer.name for scorer in store.get_active_online_scorers()] == ["g"]


@has("create_issue")
def test_issues(own: Any, store: Any) -> None:
    from mlflow.entities.issue import IssueSeverity, IssueStatus

    def script(do: Script) -> None:
        e, made = do.experiment, []
        for number, severity in enumerate((None, *IssueSeverity, IssueSeverity.LOW)):
            made.append(do("create_issue", e, f"i{number}", "text", severity=severity, root_causes=["a", "b"]))
            time.sleep(0.003)
        run = do.store.create_run(e, "ada", 1, [], "run").info.run_id
        do("create_issue", e, "run", "text", source_run_id=run, status=IssueStatus.RESOLVED, categories=[])
        do("create_issue", "4711", "x", "text")
        do("get_issue", made[0].issue_id)
        do("get_issue", "none")
        do("update_issue", made[1].issue_id, status=IssueStatus.REJECTED, name="new", severity=IssueSeverity.HIGH)
        do("update_issue", "none", name="x")
        for text in (
            None,
            "status = 'pending'",
            "status != 'pending'",
            "source_run_id != 'r2'",
            "name = 'x'",
            "nonsense",
        ):
            do("search_issues", e, text)
        token, pages = None, []
        for _ in range(4):
            page = do.store.search_issues(e, max_results=3, page_token=token)
            pages, token = [*pages, [issue.name for issue in page]], page.token
        do.heard.append(pages)
        do("search_issues", e, max_results=0)

    same(script, own, store)


@has("create_issue")
def test_issues_count_their_traces(own: Any, store: Any) -> None:
    from mlflow.entities import IssueReference

    def script(do: Script) -> None:
        issues = []
        for number in range(3):
            issues.append(do("create_issue", do.experiment, f"i{number}", "text"))
            time.sleep(0.003)
        for number, which in enumerate((1, 1, 2)):
            trace = f"tr-{number}"
            do.store.start_trace(TraceInfo(trace, TraceLocation.from_experiment_id(do.experiment), 1, TraceState.OK))
            reference = IssueReference(
                issue_id=issues[which].issue_id, issue_name="x", source=AssessmentSource("HUMAN", "ada")
            )
            reference.trace_id = trace
            do.store.create_assessment(reference)
        do("search_issues", do.experiment, include_trace_count=True)
        page = do("search_issues", do.experiment, include_trace_count=True, max_results=2)
        do.heard.append([i.name for i in page])
        do(
            "search_issues", do.experiment, include_trace_count=True, max_results=2, page_token=page.token
        ) if page.token else None

    same(script, own, store)


@has("create_label_schema")
def test_label_schemas(own: Any, store: Any) -> None:
    from mlflow.genai.label_schemas.label_schemas import InputCategorical, InputNumeric, InputPassFail, InputText

    def script(do: Script) -> None:
        e, made = do.experiment, []
        inputs = (InputText(max_length=9), InputNumeric(0, 5), InputPassFail("y", "n"), InputCategorical(["a", "b"]))
        for number, given in enumerate(inputs):
            made.append(do("create_label_schema", e, name=f"q{number}", type="feedback", input=given, instruction="?"))
            time.sleep(0.003)
        do("create_label_schema", e, name="q1", type="feedback", input=InputText())
        do("create_label_schema", e, name="", type="feedback", input=InputText())
        do("create_label_schema", "4711", name="q", type="feedback", input=InputText())
        do("get_label_schema", made[0].schema_id)
        do("get_label_schema", "none")
        do("get_label_schema_by_name", e, "q2")
        do("get_label_schema_by_name", e, "none")
        do("update_label_schema", made[0].schema_id, name="q1")
        do("update_label_schema", made[0].schema_id, name="new", enable_comment=True, input=InputText(max_length=5))
        do("update_label_schema", "none", name="x")
        do("create_label_schema", e, name="q0", type="expectation", input=InputText())
        do("delete_label_schema", made[1].schema_id)
        do("delete_label_schema", made[1].schema_id)
        names = sorted(one.name for one in do.store.list_label_schemas(e))
        do.heard.append(names)
        page = do.store.list_label_schemas(e, max_results=2)
        more = do.store.list_label_schemas(e, max_results=50, page_token=page.token)
        do.heard.append(sorted(one.name for one in [*page, *more]) == names)
        do("list_label_schemas", "4711")

    same(script, own, store)


@has("create_label_schema")
def test_the_default_question_stays(own: Any, store: Any) -> None:
    def script(do: Script) -> None:
        for _ in range(2):
            do("list_label_schemas", do.experiment)
        for one in do.store.list_label_schemas(do.experiment):
            do("delete_label_schema", one.schema_id)
            do("update_label_schema", one.schema_id, name="other")

    same(script, own, store)


@has("create_review_queue")
def test_review_queues(own: Any, store: Any) -> None:
    from mlflow.genai.label_schemas.label_schemas import InputText

    def script(do: Script) -> None:
        e = do.experiment
        schema = do.store.create_label_schema(e, name="q", type="feedback", input=InputText()).schema_id
        queue = do(
            "create_review_queue", e, name="Team", queue_type="custom", users=["ben", "ada"], schema_ids=[schema]
        )
        do("create_review_queue", e, name="TEAM", queue_type="custom")
        do("create_review_queue", e, name="x", queue_type="custom", schema_ids=["none"])
        do("create_review_queue", "4711", name="x", queue_type="custom")
        do("create_review_queue", e, name="x", queue_type="strange")
        time.sleep(0.003)
        own_queue = do("get_or_create_user_queue", e, user="ada")
        do("get_or_create_user_queue", e, user="ada")
        do("get_review_queue", queue.queue_id)
        do("get_review_queue", "none")
        do("get_review_queue_by_name", e, name="team")
        do("get_review_queue_by_name", e, name="none")
        for filters in ({}, {"user": "ada"}, {"user": "ben"}, {"item_id": "tr-1"}, {"max_results": 1}):
            do("list_review_queues", e, **filters)
        do("update_review_queue", queue.queue_id, name="Other", users=["eve"])
        do("update_review_queue", queue.queue_id, name="ada")
        do("update_review_queue", own_queue.queue_id, users=["eve"])
        do("update_review_queue", queue.queue_id)
        do("create_review_queue", e, name="team", queue_type="custom")
        do("add_items_to_review_queue", queue.queue_id, item_ids=["tr-2", "tr-1"])
        do("add_items_to_review_queue", queue.queue_id, item_ids=["tr-1", "tr-3"])
        do("add_items_to_review_queue", "none", item_ids=["tr-1"])
        do("add_items_to_review_queue", queue.queue_id, item_ids=[])
        do("list_review_queues", e, item_id="tr-1")
        do("update_review_queue", queue.queue_id, schema_ids=[])
        do("set_review_queue_item_status", queue.queue_id, item_id="tr-1", status="complete", completed_by="ada")
        do("set_review_queue_item_status", queue.queue_id, item_id="tr-1", status="complete", completed_by="ben")
        do("set_review_queue_item_status", queue.queue_id, item_id="tr-1", status="declined")
        do("set_review_queue_item_status", queue.queue_id, item_id="tr-9", status="pending")
        do("set_review_queue_item_status", queue.queue_id, item_id="tr-1", status="pending", completed_by="ada")
        do("list_review_queue_items", queue.queue_id, status="complete")
        do("set_review_queue_item_status", queue.queue_id, item_id="tr-1", status="pending")
        do("remove_items_from_review_queue", queue.queue_id, item_ids=["tr-1", "tr-2", "tr-3", "tr-9"])
        do("update_review_queue", queue.queue_id, schema_ids=[])
        do("list_review_queue_items", queue.queue_id)
        do("delete_review_queue", queue.queue_id)
        do("delete_review_queue", queue.queue_id)
        do("list_review_queue_items", queue.queue_id)

    same(script, own, store)


@has("create_review_queue")
def test_a_deleted_trace_leaves_its_queues(store: Any, experiment: str) -> None:
    queue = store.create_review_queue(experiment, name="q", queue_type="custom")
    store.start_trace(TraceInfo("tr-1", TraceLocation.from_experiment_id(experiment), 1, TraceState.OK))
    store.add_items_to_review_queue(queue.queue_id, item_ids=["tr-1", "tr-2"])
    store.delete_traces(experiment, trace_ids=["tr-1"])
    assert [item.item_id for item in store.list_review_queue_items(queue.queue_id)] == ["tr-2"]
