"""What reaches the server, and what never does: MLflow's own client over real HTTP."""

from __future__ import annotations

import multiprocessing
import os
import re
import uuid
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from mlflow_plugkit_testing.providers import in_threads, recorded_io
from mlflow_plugkit_testing.recording import Answer, RecordedRequest, RecordingServer

Write = Callable[..., Path]
Sent = Callable[..., RecordedRequest]


def test_values_come_from_text_variables_fields_and_files(
    write: Write, sent: Sent, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("s3cret\n")
    monkeypatch.setenv("TICKET", "ML-7")
    monkeypatch.setenv("GITHUB_JOB", "train")
    write(
        """[headers]
        X-Static = "Zürich {{1}} $$5 $6"
        X-Variable = "${TICKET}"
        X-Default = "${NOT_SET:-none}"
        X-Field = "{ci.job}/{pid}"
        X-File = "file:key"
        X-Number = 7
        X-Nothing = "a{ci.url}"
        """
    )
    request = sent()
    assert request.header("X-Static") == "Zürich {1} $5 $6"
    assert request.header("X-Variable") == "ML-7"
    assert request.header("X-Default") == "none"
    assert request.header("X-Field") == f"train/{os.getpid()}"
    assert request.header("X-File") == "s3cret"
    assert request.header("X-Number") == "7"
    assert request.header("X-Nothing") is None


def test_the_environment_wins_over_the_file(write: Write, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    write('request_id = "X-Correlation-ID"\n[headers]\nX-Team = "file"\nX-Site = "Berlin"\n')
    monkeypatch.setenv("MLFLOW_REQUEST_HEADERS", '{"x-team": "environment"}')
    request = sent()
    assert request.values("X-Team") == ["environment"]
    assert request.header("X-Site") == "Berlin"
    assert request.header("X-Correlation-ID")
    monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_REQUEST_ID", "none")
    assert sent().header("X-Correlation-ID") is None


def test_a_host_gets_its_own_headers_and_no_other_host_does(write: Write, sent: Sent, server: RecordingServer) -> None:
    write(
        """[headers]
        X-Team = "vision"
        X-Site = "Berlin"
        [hosts."127.0.0.*".headers]
        X-Tenant = "blue"
        X-Site = false
        [hosts.localhost]
        required = ["X-Tenant"]
        """
    )
    request = sent()
    assert (request.header("X-Team"), request.header("X-Tenant"), request.header("X-Site")) == ("vision", "blue", None)
    with pytest.raises(
        MlflowException, match=r"'X-Tenant' is required .line 8 of .* nothing defines it for localhost:"
    ):
        sent(server.other_host_uri)
    assert len(server.requests) == 1
    write(f'[hosts."localhost:{server.port}".headers]\nX-Port = "1"\n[hosts."localhost:1".headers]\nX-Other = "1"\n')
    request = sent(server.other_host_uri)
    assert (request.header("X-Port"), request.header("X-Other"), request.header("X-Tenant")) == ("1", None, None)


REFUSED = [
    ('[headers]\nAuthorization = "Bearer zebra-9"\n', 2, "'Authorization' is refused: credentials"),
    ('[headers]\n"cookie" = "zebra-9"\n', 2, "credentials are the business of an auth provider"),
    ('[headers]\nX-Ok = "1"\n\nTransfer-Encoding = "chunked"\n', 4, "belongs to the connection"),
    ('[headers]\nHost = "zebra-9"\n', 2, "belongs to the connection"),
    ('[headers]\nX-MLFLOW-WORKSPACE = "zebra-9"\n', 2, "MLflow's client sets it itself"),
    ('[headers]\n"X Team" = "zebra-9"\n', 2, "no legal header name"),
    ('[headers]\nX-Team = "zebra-9\\r\\nX-Injected: 1"\n', 2, "holds a line break"),
    ('[headers]\nX-Team = """zebra-9\nb"""\n', 2, "holds a line break"),
    ('[headers]\nX-Team = "zebra-9 漢"\n', 2, "outside Latin-1"),
    ('[headers]\nX-Team = "zebra-9\\u0001"\n', 2, "a control character"),
    (f'[headers]\nX-Team = "{"x" * 5000}"\n', 2, "more than 4096"),
    ('[headers]\nX-Team = "{usr}"\n', 2, "did you mean 'user'?"),
    ('[headers]\nX-Team = "{"\n', 2, "write '{{' for the character itself"),
    ('[headers]\nX-Team = "${A B}"\n', 2, "no name of an environment variable"),
    ('[headers]\nX-Team = "a"\nx-team = "b"\n', 3, "stands there twice, in another case"),
    ('[headers]\nX-Team = ["zebra-9"]\n', 2, "is no text"),
    ('[header]\nX-Team = "zebra-9"\n', 1, "did you mean 'headers'?"),
    ('required = "X-Team"\n', 1, "a list of header names"),
    ('traceparent = "yes"\n', 1, "true or false"),
    ('[hosts."a.example.com"]\nX-Team = "zebra-9"\n', 2, "there is no option 'X-Team'; known are headers, required"),
    ('[hosts]\nexample = "zebra-9"\n', 2, "needs a table"),
    ('a = "zebra-9"\n[headers\n', 2, "no valid TOML"),
    ('[hosts."a".headers]\nX-A = "1"\n[hosts."b".headers]\nX-A = "1"\nHost = "zebra-9"\n', 5, "the connection"),
]


@pytest.mark.parametrize(("text", "line", "says"), REFUSED)
def test_a_bad_file_stops_every_request_and_names_its_line(
    text: str, line: int, says: str, write: Write, sent: Sent, server: RecordingServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    path = write(text)
    for _ in range(2):
        with pytest.raises(MlflowException) as refused:
            sent()
        assert says in str(refused.value)
        assert re.search(rf"line {line}\b", str(refused.value)), refused.value
        assert path.name in str(refused.value)
    assert not server.requests
    assert "zebra-9" not in f"{refused.value}{caplog.text}"


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ('{"headers": {\n"X-A": "1",\n"Authorization": "zebra-9"}}', 3, "credentials"),
        ('{"headers": {"X-A": "1"},\n"required": 7}', 2, "a list of header names"),
        ('{"headers": {"X-A": "1",\n}', 2, "no valid JSON"),
    ],
)
def test_a_json_file_is_checked_alike(text: str, line: int, says: str, write: Write, sent: Sent) -> None:
    write('{"headers": {"X-A": "1"}}', "good.json")
    assert sent().header("X-A") == "1"
    write(text, "headers.json")
    with pytest.raises(MlflowException, match=rf"line {line}\b.*headers\.json|headers\.json.*line {line}\b") as refused:
        sent()
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("Authorization: zebra-9", "line 1 of MLFLOW_REQUEST_HEADERS"),
        ("X-A: 1\nzebra-9", "line 2 of MLFLOW_REQUEST_HEADERS is not of the form 'Name: value'"),
        ('{"X-A": zebra-9}', "no JSON object"),
    ],
)
def test_bad_headers_in_the_environment_stop_every_request(
    value: str, says: str, sent: Sent, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_REQUEST_HEADERS", value)
    with pytest.raises(MlflowException, match=re.escape(says)) as refused:
        sent()
    assert not server.requests
    assert "zebra-9" not in str(refused.value)


@pytest.mark.parametrize("kind", ["missing", "folder", "pipe", "huge", "latin-1", "unreadable"])
def test_a_file_that_cannot_be_used_stops_every_request_at_once(
    kind: str, tmp_path: Path, sent: Sent, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "headers.toml"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        path.write_bytes(b"#" * 300_000)
    elif kind == "latin-1":
        path.write_bytes(b'[headers]\nX-A = "\xe4"\n')
    elif kind == "unreadable":
        path.write_text("[headers]\n")
        path.chmod(0)
        if os.access(path, os.R_OK):
            pytest.skip("this user may read every file")
    monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_FILE", str(path))
    with pytest.raises(MlflowException, match=r"headers\.toml.*No request is sent until it is mended"):
        sent()
    assert not server.requests


def test_a_missing_required_value_stops_the_request(
    write: Write, sent: Sent, server: RecordingServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write('required = ["x-ticket"]\n[headers]\nX-Ticket = "${TICKET}"\n')
    with pytest.raises(MlflowException, match=r"'X-Ticket' has no value .line 3 of .*variable TICKET not set"):
        sent()
    monkeypatch.setenv("TICKET", " ")
    with pytest.raises(MlflowException, match="variable TICKET not set"):
        sent()
    assert not server.requests
    monkeypatch.setenv("TICKET", "ML-7")
    assert sent().header("X-Ticket") == "ML-7"
    monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_REQUIRED", "X-Site, X-Ticket")
    with pytest.raises(MlflowException, match=r"'X-Site' is required .MLFLOW_REQUEST_HEADERS_REQUIRED"):
        sent()


@pytest.mark.parametrize("value", ["zebra-9\r\nX-Injected: 1", "zebra-9 漢", "zebra-9\x01", "z" * 5000])
@pytest.mark.parametrize("how", ["variable", "file"])
def test_a_value_that_turns_illegal_stops_the_request(
    value: str,
    how: str,
    write: Write,
    sent: Sent,
    server: RecordingServer,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    write('[headers]\nX-Team = "${TEAM_NAME}"\n' if how == "variable" else '[headers]\nX-Team = "file:team"\n')
    monkeypatch.setenv("TEAM_NAME", value)
    (tmp_path / "team").write_bytes(value.encode())
    with pytest.raises(MlflowException, match=r"line 2 of .*'X-Team' is refused") as refused:
        sent()
    assert not server.requests
    assert "zebra-9" not in str(refused.value)


def test_too_many_headers_stop_the_request(write: Write, sent: Sent, server: RecordingServer) -> None:
    write("[headers]\n" + "".join(f'X-{n} = "{"x" * 4000}"\n' for n in range(3)))
    with pytest.raises(MlflowException, match="more than 8000 characters"):
        sent()
    assert not server.requests


def test_a_changed_file_counts_from_the_next_request_on(
    write: Write, sent: Sent, caplog: pytest.LogCaptureFixture
) -> None:
    path = write('[headers]\nX-Team = "vision"\n')
    assert sent().header("X-Team") == "vision"
    path.write_text('[headers]\nX-Team = "speech"\n')
    assert sent().header("X-Team") == "speech"
    path.write_text("[headers]\nHost = 1\n")
    assert [sent().header("X-Team") for _ in range(3)] == ["speech"] * 3
    assert caplog.text.count("The headers stay as they were") == 1
    path.unlink()
    assert sent().header("X-Team") == "speech"
    path.write_text('[headers]\nX-Team = "audio"\n')
    assert sent().header("X-Team") == "audio"


def test_a_rotated_secret_file_is_read_again(write: Write, sent: Sent, tmp_path: Path) -> None:
    write('[headers]\nX-Key = "file:key"\n')
    (tmp_path / "key").write_text("one")
    assert sent().header("X-Key") == "one"
    (tmp_path / "next").write_text("two")
    (tmp_path / "next").replace(tmp_path / "key")
    assert sent().header("X-Key") == "two"


def test_the_configuration_is_read_once_while_it_does_not_change(
    write: Write, provider: object, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text("one")
    write('[headers]\nX-Team = "vision"\nX-Key = "file:key"\n')
    provider.request_headers()
    with recorded_io() as done:
        for _ in range(10):
            assert provider.request_headers()["X-Key"] == "one"
    assert not done


def test_each_request_has_its_own_id_and_a_retry_keeps_it(
    write: Write, sent: Sent, server: RecordingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("request_id = true\n")
    first = sent().header("X-Request-ID")
    server.answer(Answer(503))
    second = sent().header("X-Request-ID")
    assert [r.header("X-Request-ID") for r in server.requests] == [first, second, second]
    assert first != second
    assert uuid.UUID(first)


def test_the_active_span_is_propagated(write: Write, sent: Sent, monkeypatch: pytest.MonkeyPatch) -> None:
    write("[headers]\n")
    assert sent().header("traceparent") is None
    with TracerProvider().get_tracer("test").start_as_current_span("training") as span:
        context = span.get_span_context()
        expected = f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"
        assert sent().header("traceparent") == expected
        monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_TRACEPARENT", "false")
        assert sent().header("traceparent") is None
        monkeypatch.setenv("MLFLOW_REQUEST_HEADERS_TRACEPARENT", "true")
        write("traceparent = false\n")
        assert sent().header("traceparent") == expected
    state = trace.TraceState([("vendor", "value")])
    remote = trace.SpanContext(1, 2, is_remote=True, trace_flags=trace.TraceFlags(1), trace_state=state)
    with trace.use_span(trace.NonRecordingSpan(remote)):
        assert sent().header("tracestate") == "vendor=value"


def test_threads_reload_at_once(write: Write, sent: Sent, server: RecordingServer) -> None:
    path = write('[headers]\nX-Team = "vision"\n')
    sent()
    path.write_text('[headers]\nX-Team = "speech"\n')
    server.clear()
    in_threads(sent)
    assert {r.header("X-Team") for r in server.requests} == {"speech"}
    assert len({r.header("X-Request-ID") for r in server.requests}) == 16


def ask_in_a_fork(uri: str) -> None:
    import mlflow

    mlflow.MlflowClient(tracking_uri=uri).search_experiments()


def test_a_forked_process_sends_headers_of_its_own(write: Write, sent: Sent, server: RecordingServer) -> None:
    write('[headers]\nX-Pid = "{pid}"\n')
    sent()
    child = multiprocessing.get_context("fork").Process(target=ask_in_a_fork, args=(server.uri,))
    child.start()
    child.join(60)
    assert child.exitcode == 0
    ours, theirs = server.requests
    assert (ours.header("X-Pid"), theirs.header("X-Pid")) == (str(os.getpid()), str(child.pid))
    assert ours.header("X-Request-ID") != theirs.header("X-Request-ID")
