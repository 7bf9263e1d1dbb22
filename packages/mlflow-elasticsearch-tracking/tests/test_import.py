"""The command `mlflow-elasticsearch import`: from a database and from a server, killed and resumed, and verified."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner
from mlflow.entities import ViewType
from mlflow.exceptions import MlflowException
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

from mlflow_elasticsearch_tracking import importer_genai, importer_models, importer_runs, importer_traces
from mlflow_elasticsearch_tracking.history_columns import METRICS
from mlflow_elasticsearch_tracking.importer import TrackingImporter
from mlflow_elasticsearch_tracking.indices import EXPERIMENTS, RUNS
from mlflow_plugkit_elasticsearch import Documents, ElasticsearchSettings
from mlflow_plugkit_elasticsearch.cli import main
from mlflow_plugkit_elasticsearch.import_parts import plain
from mlflow_plugkit_elasticsearch.import_progress import Progress
from mlflow_plugkit_elasticsearch.import_run import copy, differences
from mlflow_plugkit_elasticsearch.import_source import ImportSource
from mlflow_plugkit_testing.server import MlflowServer, fresh_database, plugin_env, run_cli

pytestmark = pytest.mark.once

COMMAND = ["-m", "mlflow_plugkit_elasticsearch.cli"]
PASSWORD = "geheim-4711/x"


@pytest.fixture(scope="session")
def source_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A SQLite file that MLflow's client has filled."""
    folder = tmp_path_factory.mktemp("source")
    uri = fresh_database(folder)
    done = run_cli_of(Path(__file__).parent / "import_samples.py", [uri, str(folder / "artifacts")], folder)
    assert done.returncode == 0, done.stderr[-3_000:]
    return uri


def run_cli_of(script: Path, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a script of the tests."""
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        env=plugin_env(),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def invoke(*given: str) -> Any:
    """Run the command in this process."""
    return CliRunner().invoke(main, ["import", *given])


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run the command as users do."""
    environ = plugin_env(env={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_ELASTICSEARCH_RETRY_FOR": "5"})
    return lambda *given: run_cli([*COMMAND[1:], "import", *given], env=environ, cwd=tmp_path)


@pytest.fixture
def origin(source_uri: str) -> Iterator[ImportSource]:
    """The source, opened in this process."""
    source = ImportSource(source_uri)
    yield source
    source.close()


def _experiments(store: Any) -> list[str]:
    return [one.experiment_id for one in store.search_experiments(view_type=ViewType.ALL, order_by=["name ASC"])]


def _asked(store: Any, *, deleted_models: bool = True) -> Iterator[tuple[str, Any]]:
    """What a store answers to many calls, by what was asked."""
    everything = {"view_type": ViewType.ALL, "order_by": ["experiment_id DESC"]}
    yield "experiments", plain(list(store.search_experiments(**everything)))
    ids = _experiments(store)
    for view, order in (
        (ViewType.ALL, []),
        (ViewType.ACTIVE_ONLY, ["metrics.loss DESC"]),
        (ViewType.DELETED_ONLY, []),
        (ViewType.ALL, ["metrics.odd ASC", "attributes.run_name DESC"]),
    ):
        runs, token = store._search_runs(ids, "", view, 4, order, None)
        more, _ = store._search_runs(ids, "", view, 4, order, token) if token else ([], None)
        yield f"runs {view} {order}", [_run(run) for run in [*runs, *more]]
    for filter_string in ("metrics.loss > 0.1", "tags.`größe a.b/c:大` LIKE '%大%'", "dataset.name = 'data 1'"):
        yield (
            filter_string,
            [r.info.run_id for r in store._search_runs(ids, filter_string, ViewType.ALL, 50, [], None)[0]],
        )
    for run in store._search_runs(ids, "", ViewType.ALL, 50, [], None)[0]:
        full = store.get_run(run.info.run_id)
        yield f"run {run.info.run_id}", _run(full) | {"links": plain([full.inputs, full.outputs])}
        for key in run.data.metrics:
            history = store.get_metric_history(run.info.run_id, key)
            yield f"{key} of {run.info.run_id}", [[plain(m.value), m.timestamp, m.step] for m in history]
    yield "datasets of runs", sorted(map(repr, plain(store._search_datasets(ids))))
    models = store.search_logged_models(ids, order_by=[{"field_name": "name", "ascending": True}])
    yield "models", [_model(model) for model in models]
    yield from _traces(store, ids)
    yield from _genai(store, ids)


def _run(run: Any) -> dict[str, Any]:
    metrics = plain(sorted(run.data._metric_objs, key=lambda metric: metric.key))
    return {"info": plain(run.info), "params": run.data.params, "tags": run.data.tags, "metrics": metrics}


def _model(model: Any) -> Any:
    told = plain(model)
    return told | {"metrics": sorted(map(repr, told.get("metrics", ())))}


def _traces(store: Any, ids: list[str]) -> Iterator[tuple[str, Any]]:
    runs = store._search_runs(ids, "attributes.run_name = 'run 0'", ViewType.ALL, 5, [], None)[0]
    for filter_string in (
        None,
        "attributes.status = 'ERROR'",
        "trace.text LIKE '%QUESTION 1%'",
        "span.type = 'LLM'",
        f"attributes.run_id = '{runs[0].info.run_id}'",
        "feedback.good = 'false'",
        "request_metadata.`mlflow.trace.session` = 's-1'",
    ):
        infos, _ = store.search_traces(locations=ids, filter_string=filter_string, order_by=["timestamp_ms ASC"])
        yield f"traces {filter_string}", [_info(info) for info in infos]
    traces = store.batch_get_traces([info.trace_id for info in store.search_traces(locations=ids)[0]], None)
    for trace in traces:
        yield f"spans of {trace.info.trace_id}", [span.to_dict() for span in trace.data.spans]


def _info(info: Any) -> Any:
    told = plain(info)
    return told | {"assessments": sorted(map(repr, told.get("assessments", ())))}


def _genai(store: Any, ids: list[str]) -> Iterator[tuple[str, Any]]:
    for dataset in store.search_datasets():
        named = (
            dataset.dataset_id,
            dataset.name,
            dataset.digest,
            dataset.created_time,
            dataset.profile,
            dataset.schema,
        )
        yield f"dataset {dataset.name}", [named, dataset.tags, store.get_dataset_experiment_ids(dataset.dataset_id)]
        records, _ = store._load_dataset_records(dataset.dataset_id)
        yield f"records of {dataset.name}", [plain(record.to_dict()) for record in records]
    first = ids[1]
    yield "scorers", plain([*store.list_scorers(first), *store.list_scorer_versions(first, "scorer")])
    if hasattr(SqlAlchemyStore, "search_issues"):
        yield "issues", plain(list(store.search_issues(first)))
    if hasattr(SqlAlchemyStore, "list_review_queues"):
        yield "label schemas", plain(list(store.list_label_schemas(first)))
        queues = list(store.list_review_queues(first))
        yield "queues", plain(queues)
        yield "items", plain([list(store.list_review_queue_items(queue.queue_id)) for queue in queues])


def _same(expected: Iterator[tuple[str, Any]], found: Iterator[tuple[str, Any]]) -> int:
    answers = dict(found)
    asked = 0
    for question, answer in expected:
        assert answers[question] == answer, question
        asked += 1
    return asked


def test_a_database_is_copied_so_that_no_answer_differs(
    run: Callable[..., Any], new_store: Callable[..., Any], source_uri: str, origin: ImportSource
) -> None:
    """Experiments, runs, histories, models, traces and the rest, deleted ones too; the next id is a new one."""
    store = new_store()
    done = run("--from", source_uri, "--to", store.uri)
    assert (done.returncode, "Source and target agree." in done.stdout) == (0, True), done.stdout + done.stderr
    assert _same(_asked(origin.tracking), _asked(store)) > 40
    deleted = [row[0] for row in origin.rows("logged_models", ["model_id"], {"lifecycle_stage": "deleted"})]
    assert store._get_deleted_logged_models() == deleted
    assert len(deleted) == 1
    assert sorted(store._get_deleted_runs()) == sorted(origin.tracking._get_deleted_runs())
    assert int(store.create_experiment("next")) == 1 + max(map(int, _experiments(origin.tracking)))
    with pytest.raises(MlflowException, match="already exists"):
        store.create_experiment("gone")
    again = run("--from", source_uri, "--to", store.uri, "--no-verify")
    assert (again.returncode, "was imported already" in again.stderr) == (0, True), again.stdout + again.stderr


def test_a_server_is_a_source_too_and_its_password_is_shown_nowhere(
    run: Callable[..., Any], new_store: Callable[..., Any], source_uri: str, tmp_path: Path, origin: ImportSource
) -> None:
    """The same answers, save deleted logged models, of which a server does not tell; no credentials are stored."""
    store = new_store()
    with MlflowServer(["--backend-store-uri", source_uri], folder=tmp_path) as server:
        url = server.url.replace("http://", f"http://me:{PASSWORD.replace('/', '%2F')}@")
        done = run("--from", url, "--to", store.uri)
    output = done.stdout + done.stderr
    assert (done.returncode, "Source and target agree." in done.stdout) == (0, True), output
    assert _same(_asked(origin.tracking), _asked(store)) > 40
    assert not store._get_deleted_logged_models()
    kept = requests.get(f"{_http(store)}-keys/_search", json={"size": 1000}, timeout=10).text
    assert '"kind":"import"' in kept
    for text in (output, kept):
        assert "geheim" not in text
        assert "me:" not in text


def _http(store: Any) -> str:
    return str(store.uri.replace("elasticsearch://", "http://"))


def test_a_source_that_cannot_be_reached_is_a_sentence_without_its_password(
    run: Callable[..., Any], store: Any, tmp_path: Path
) -> None:
    """The code 1, no traceback, nothing written."""
    done = run("--from", f"http://me:{PASSWORD.replace('/', '%2F')}@127.0.0.1:1", "--to", store.uri)
    assert (done.returncode, "Error: " in done.stderr) == (1, True), done.stderr
    for text in ("Traceback", "geheim", "me:"):
        assert text not in done.stdout + done.stderr
    assert store.docs.get(EXPERIMENTS, "1") is None


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        (f"postgresql+nodriver://me:{PASSWORD.replace('/', '%2F')}@127.0.0.1:1/mlflow", "Could not open postgresql"),
        (f"mysql+pymysql://me:{PASSWORD}@127.0.0.1:1/mlflow?password={PASSWORD}", "'/' as %2F"),
        ("sqlite:///missing.db", "There is no file"),
        ("elasticsearch://h/p", "is no source"),
        ("nonsense", "is no source"),
    ],
)
def test_a_source_that_is_none_is_refused(store: Any, uri: str, words: str) -> None:
    """In a sentence that says what to do, without the password."""
    done = invoke("--from", uri, "--to", store.uri)
    assert (done.exit_code, words in done.output, "geheim" in done.output) == (1, True, False), done.output


def test_killed_at_any_moment_it_goes_on_where_it_was(
    store: Any, origin: ImportSource, source_uri: str, tmp_path: Path
) -> None:
    """SIGKILL after the first part, then after two more, then to the end: nothing twice, nothing lost."""
    command = [sys.executable, *COMMAND, "import", "--from", source_uri, "--to", store.uri, "--no-verify"]
    seen: list[str] = []
    for parts in (1, 2, None):
        with subprocess.Popen(command, env=plugin_env(), cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            watchdog = threading.Timer(120, process.kill)
            watchdog.start()
            assert process.stderr is not None
            shown: list[str] = []
            for line in process.stderr:
                if line.startswith("copying "):
                    shown.append(line.rpartition(":")[0])
                    if len(shown) == parts:
                        os.kill(process.pid, signal.SIGKILL)
            code = process.wait(timeout=60)
            watchdog.cancel()
        assert code == (0 if parts is None else -signal.SIGKILL), shown
        seen += shown[:parts]
    assert len(seen) == len(set(seen)), "a part that was copied is copied again"
    # Without the comparison, others see what was written last within a second.
    assert requests.post(f"{_http(store)}-*/_refresh", timeout=30).status_code == 200
    assert _same(_asked(origin.tracking), _asked(store)) > 40


def test_interrupted_between_any_two_requests_it_ends_with_the_same_documents(
    store: Any, origin: ImportSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each attempt dies one bulk request later than the one before, after it was carried out; no point is twice."""

    class Died(BaseException):
        pass

    left = 0

    def failing(docs: Documents, actions: Any) -> Any:
        nonlocal left
        outcomes = real(docs, actions)
        left -= 1
        if left == 0:
            raise Died
        return outcomes

    real = importer_runs.bulk
    for module in (importer_runs, importer_models, importer_traces, importer_genai):
        monkeypatch.setattr(module, "bulk", failing)
        monkeypatch.setattr(module, "_PAGE", 2)
    docs = Documents.of(ElasticsearchSettings.from_uri(store.uri))
    for attempt in range(1, 50):
        left = attempt
        importer = TrackingImporter(origin, store.uri, docs)
        try:
            copy(origin, docs, [importer], Progress("copying"), resume=False)
            break
        except Died:
            continue
    else:
        raise AssertionError("it does not come to its end")
    assert attempt > 3
    assert list(differences([importer], Progress("comparing"), 100)) == []
    points = origin.rows("metrics", ["run_uuid"], {})
    columns = sum(sum(hit.source["k"][1::2]) for hit in docs.scan(METRICS, {"match_all": {}}, "id"))
    tails = sum(
        len(hit.source.get("tail", {}).get("o", ())) // 4 for hit in docs.scan(RUNS, {"match_all": {}}, "run_id")
    )
    in_segments = sum(
        segment[1]
        for hit in docs.scan(RUNS, {"match_all": {}}, "run_id")
        for segment in hit.source.get("tail", {}).get("s", ())
    )
    assert columns + tails + in_segments == sum(1 for _ in points)


def test_a_target_with_the_same_ids_or_names_is_refused_before_anything_is_written(
    new_store: Callable[..., Any], source_uri: str
) -> None:
    """Ids and names clash; another prefix, or --resume, is what the message offers."""
    by_id, by_name = new_store(), new_store()
    by_id.create_experiment("mine")
    for _ in range(5):
        by_name.create_experiment(f"e{_}")
    by_name.rename_experiment("5", "gone")
    for store, words in ((by_id, "experiment 1 ('mine')"), (by_name, "experiment 5 has the name 'gone'")):
        before = store.docs.count(EXPERIMENTS, {"match_all": {}})
        done = invoke("--from", source_uri, "--to", store.uri)
        assert (done.exit_code, words in done.stderr) == (1, True), done.stderr
        assert "nothing was written" in done.stderr
        assert store.docs.count(EXPERIMENTS, {"match_all": {}}) == before
        assert store.docs.count(RUNS, {"match_all": {}}) == 0


def test_the_verification_names_what_differs(store: Any, origin: ImportSource, source_uri: str) -> None:
    """A changed tag, a changed history and a lost run; the code is 1. --resume mends all of it."""
    docs = Documents.of(ElasticsearchSettings.from_uri(store.uri))
    importer = TrackingImporter(origin, store.uri, docs)
    copy(origin, docs, [importer], Progress("copying"), resume=False)
    runs = origin.tracking._search_runs(["1"], "", ViewType.ACTIVE_ONLY, 50, [], None)[0]
    names = {one.info.run_name: one.info.run_id for one in runs}
    from mlflow.entities import Metric, RunTag

    store.set_tag(names["run 0"], RunTag("more", "x"))
    store.log_metric(names["run 1"], Metric("loss", 9.0, 1, 1_000))
    docs.delete(RUNS, names["run 2"])
    done = invoke("--from", source_uri, "--to", store.uri, "--verify-only", "--sample", "50")
    lines = [line for line in done.stdout.splitlines() if line.startswith("Differs: ")]
    assert done.exit_code == 1, done.stdout + done.stderr
    for words in (
        f"{names['run 0']}: tags is",
        f"{names['run 1']}: history of loss is",
        f"{names['run 2']}",
        "runs of experiment 1: 6 in the source, 5 in the target",
    ):
        assert any(words in line for line in lines), (words, lines)
    mended = invoke("--from", source_uri, "--to", store.uri, "--resume", "--sample", "50")
    # What was logged into the target afterwards is in its history for good; all else is as in the source.
    assert [line for line in mended.stdout.splitlines() if "run 0" in line or names["run 2"] in line] == []
    assert _run(store.get_run(names["run 2"])) == _run(origin.tracking.get_run(names["run 2"]))
