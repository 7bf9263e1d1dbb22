"""Templates, line numbers, hosts and the refusal, each on its own."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from mlflow_plugkit.settings import declared_options
from mlflow_plugkit_testing.recording import RecordingServer
from mlflow_request_headers import fields
from mlflow_request_headers.config import ConfigError, make_rule
from mlflow_request_headers.lines import json_lines, nearest, toml_lines
from mlflow_request_headers.names import name_problem, value_problem
from mlflow_request_headers.refusal import refusal
from mlflow_request_headers.settings import HeaderSettings
from mlflow_request_headers.target import host_and_port, matches
from mlflow_request_headers.template import TemplateError, compile_template


def test_toml_lines_know_tables_quoted_keys_and_inline_tables() -> None:
    tables = 'a = 1\n[headers] # all\n"X-A" = 1\n\n[hosts."*.example.com".headers]\n  X-A = 2\n'
    lines = toml_lines(tables + "[hosts]\nb = { headers = { X-C = 1 } }\n")
    assert lines[("a",)] == 1
    assert lines[("headers", "X-A")] == 3
    assert lines[("hosts", "*.example.com", "headers", "X-A")] == 6
    assert nearest(lines, ("hosts", "b", "headers", "X-C")) == 8
    assert nearest(lines, ("c",)) is None


def test_json_lines_find_a_key_below_its_parent() -> None:
    text = '{"headers": {"X-A": 1},\n "hosts": {\n  "h": {"headers": {"X-A": 2}}}}'
    paths = [("headers",), ("headers", "X-A"), ("hosts",), ("hosts", "h"), ("hosts", "h", "headers")]
    lines = json_lines(text, [*paths, ("hosts", "h", "headers", "X-A")])
    assert (lines[("headers", "X-A")], lines[("hosts", "h", "headers", "X-A")]) == (1, 3)


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("https://mlflow.Example.com/prefix", "mlflow.example.com:443"),
        ("http://ann:secret@host:5000", "host:5000"),
        ("http://[::1]:5000", "::1:5000"),
        ("sqlite:///mlflow.db", ""),
        ("./mlruns", ""),
        ("http://host:port", ""),
        ("databricks", ""),
    ],
)
def test_the_target_of_a_uri(uri: str, target: str) -> None:
    assert host_and_port(uri) == target


def test_a_pattern_names_hosts_with_and_without_their_port() -> None:
    assert matches("*.Example.com", "a.example.com:443")
    assert matches("a.example.com:443", "a.example.com:443")
    assert not matches("example.com", "a.example.com:443")
    assert not matches("a.example.com:80", "a.example.com:443")


@given(st.text(max_size=60))
def test_any_text_is_a_template_or_a_sentence(text: str) -> None:
    try:
        value = compile_template(text, Path()).value()
    except TemplateError:
        return
    assert value == value.strip()


@given(
    st.text(max_size=20), st.one_of(st.text(max_size=40), st.none(), st.booleans(), st.integers(), st.lists(st.none()))
)
def test_any_header_is_a_rule_or_an_error_that_says_where(name: str, value: object) -> None:
    problem = name_problem(name)
    try:
        rule = make_rule(name, value, "line 3 of headers.toml", Path())
    except ConfigError as exc:
        problem = str(exc)
        rule = None
    assert rule is not None or str(problem).startswith("line 3 of headers.toml: ")
    assert rule is None or problem is None


@given(st.text(max_size=40))
def test_a_value_without_a_problem_is_one_that_requests_takes(value: str) -> None:
    if value_problem(value) is None and value == value.strip():
        request = requests.Request("GET", "http://127.0.0.1", headers={"X-A": value}).prepare()
        assert request.headers["X-A"].encode("latin-1") == value.encode("latin-1")


def test_every_field_has_a_value_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for names in fields.FROM_ENVIRONMENT.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    assert all(isinstance(fields.field_value(name), str) for name in fields.NAMES)
    for name, variables in fields.FROM_ENVIRONMENT.items():
        for variable in variables:
            with monkeypatch.context() as patch:
                patch.setenv(variable, "value")
                assert fields.field_value(name) == "value"


def test_a_refusal_survives_copies_and_stops_requests_on_its_own() -> None:
    headers = refusal("because of the test")
    with RecordingServer() as server:
        for form in (headers, dict(**headers), copy.deepcopy(headers), pickle.loads(pickle.dumps(headers))):
            with pytest.raises(MlflowException, match="because of the test"):
                requests.get(server.uri, headers={"X-A": "1", **form}, timeout=5)
        plain_names = {str.__str__(name): value for name, value in headers.items()}
        assert all(type(name) is str for name in plain_names)
        with pytest.raises(MlflowException, match="because of the test"):
            requests.get(server.uri, headers=plain_names, timeout=5)
        assert not server.requests


def test_the_settings_show_no_value() -> None:
    settings = HeaderSettings.from_env({"MLFLOW_REQUEST_HEADERS": "X-Key: zebra-9"})
    assert "zebra-9" not in repr(settings)
    assert all(declared.env for declared in declared_options(HeaderSettings).values())
