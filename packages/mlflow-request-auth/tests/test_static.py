"""API keys, token files, commands and profiles: credentials that come from this machine."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from mlflow_plugkit_testing.recording import Answer, RecordingServer
from mlflow_request_auth import selection


def ask(server: RecordingServer, header: str = "Authorization") -> str:
    mlflow.MlflowClient().search_experiments()
    (value,) = server.requests[-1].values(header)
    return value


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch):
    def set_all(provider: str, **values: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_AUTH", provider)
        for name, value in values.items():
            monkeypatch.setenv(f"MLFLOW_AUTH_{name.upper()}", value)

    return set_all


def test_an_api_keys_header_and_prefix_are_free(server: RecordingServer, choose) -> None:
    choose("api-key", api_key="k-123", api_key_header="Authorization", api_key_prefix="ApiKey")
    assert ask(server) == "ApiKey k-123"


def test_an_api_key_file_is_read_again_when_it_changes(server: RecordingServer, choose, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("first-key\n")
    choose("api-key", api_key_file=str(tmp_path / "key"))
    assert ask(server, "X-API-Key") == "first-key"
    (tmp_path / "key").write_text("the-second-key\n")
    assert ask(server, "X-API-Key") == "the-second-key"


@pytest.mark.parametrize("header", ["", "X Key", "X-Key:", "Host", "content-length", "Cookie", "X-Kéy", "a\r\nb"])
def test_a_header_name_that_cannot_be_is_refused(server: RecordingServer, choose, header: str) -> None:
    choose("api-key", api_key="k-123", api_key_header=header)
    if not header:  # an empty variable is an unset one
        assert ask(server, "X-API-Key") == "k-123"
        return
    with pytest.raises(MlflowException, match="MLFLOW_AUTH_API_KEY_HEADER"):
        ask(server)


@pytest.mark.parametrize("key", ["two\r\nlines: x", "漢", "nul\x01", "   "])
def test_a_key_that_no_header_can_carry_is_refused_unseen(server: RecordingServer, choose, key: str) -> None:
    choose("api-key", api_key=key)
    with pytest.raises(MlflowException) as caught:
        ask(server)
    assert not key.strip() or key not in str(caught.value)
    assert not server.requests


def test_a_token_file_is_followed_through_rotations(server: RecordingServer, choose, tmp_path: Path) -> None:
    """Written over, replaced, and swapped as Kubernetes does: a symbolic link to another folder."""
    for number in (1, 2):
        (tmp_path / f"data{number}").mkdir()
        (tmp_path / f"data{number}" / "token").write_text(f"linked-{number}")
    (tmp_path / "current").symlink_to("data1")
    choose("token-file", token_file=str(tmp_path / "current" / "token"))
    assert ask(server) == "Bearer linked-1"
    (tmp_path / "next").symlink_to("data2")
    os.replace(tmp_path / "next", tmp_path / "current")
    assert ask(server) == "Bearer linked-2"
    (tmp_path / "data2" / "token").write_text("written-over")
    assert ask(server) == "Bearer written-over"


def test_a_token_file_that_is_away_for_a_moment(server: RecordingServer, choose, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-token")
    choose("token-file", token_file=str(tmp_path / "token"))
    ask(server)
    (tmp_path / "token").rename(tmp_path / "away")
    assert ask(server) == "Bearer the-token"
    (tmp_path / "token").write_text("")
    assert ask(server) == "Bearer the-token"


def test_a_token_file_that_rotated_under_a_request(server: RecordingServer, choose, tmp_path: Path) -> None:
    """The server refuses what it got; the file, whose time stamp lies, holds another token by now."""
    file = tmp_path / "token"
    file.write_text("token-1")
    choose("token-file", token_file=str(file))
    ask(server)
    stamp = file.stat().st_mtime_ns
    with file.open("r+") as open_file:
        open_file.write("token-2")
    os.utime(file, ns=(stamp, stamp))
    server.answer(Answer(401))
    assert ask(server) == "Bearer token-2"


@pytest.mark.parametrize("content", [None, b"", b"two\nlines", b"\xff\xfe"])
def test_a_token_file_without_a_token_stops(
    server: RecordingServer, choose, tmp_path: Path, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / "token").write_bytes(content)
    choose("token-file", token_file=str(tmp_path / "token"))
    with pytest.raises(MlflowException, match="token"):
        ask(server)
    assert not server.requests


@pytest.fixture
def helper(tmp_path: Path, choose):
    """Choose a program that counts its runs and prints what a Python expression says."""

    def write(expression: str, **settings: str) -> Path:
        runs = tmp_path / "runs"
        (tmp_path / "helper.py").write_text(
            f"import json, sys, time\nopen({str(runs)!r}, 'a').write('x')\n"
            f"n = len(open({str(runs)!r}).read())\n{expression}\n"
        )
        choose("command", command=f"'{sys.executable}' -S '{tmp_path / 'helper.py'}'", **settings)
        return runs

    return write


@pytest.mark.parametrize(
    "output",
    [
        "print('the-token')",
        "print(json.dumps({'access_token': 'the-token', 'expires_in': 300}))",
        "print(json.dumps({'kind': 'ExecCredential', 'status': {'token': 'the-token'}}))",
        "print(json.dumps({'status': {'token': 'the-token', 'expirationTimestamp': '2099-01-02T03:04:05Z'}}))",
    ],
)
def test_what_a_command_may_print(server: RecordingServer, helper, output: str) -> None:
    runs = helper(output)
    assert [ask(server) for _ in range(3)] == ["Bearer the-token"] * 3
    assert runs.read_text() == "x"


def test_a_commands_token_is_got_again_at_its_end(server: RecordingServer, helper) -> None:
    helper("print(json.dumps({'access_token': f'token-{n}', 'expires_in': 1}))")
    assert ask(server) == "Bearer token-1"
    end = time.monotonic() + 10
    while ask(server) == "Bearer token-1":
        assert time.monotonic() < end
    assert ask(server) == "Bearer token-2"


def test_a_refused_token_of_a_command_is_got_again(server: RecordingServer, helper) -> None:
    helper("print(f'token-{n}')")
    ask(server)
    server.answer(Answer(401))
    assert ask(server) == "Bearer token-2"


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("sys.exit('no login for you')", "exit status 1: no login for you"),
        ("sys.exit('bad password=hunter22')", r"password=\*\*\*"),
        ("print('two words')", "printed no token"),
        ("print('')", "printed no token"),
        ("print('{')", "cannot be read"),
        ("print('{}')", "no access_token"),
        ("time.sleep(60)", "within 0.5 seconds"),
    ],
)
def test_a_command_that_fails_stops(server: RecordingServer, helper, expression: str, message: str) -> None:
    helper(expression, timeout="0.5" if "sleep" in expression else "10")
    start = time.monotonic()
    with pytest.raises(MlflowException, match=message):
        ask(server)
    assert time.monotonic() - start < 5
    assert not server.requests


def test_a_command_that_worked_before_is_given_time(server: RecordingServer, helper) -> None:
    """A hiccup of the helper in the third hour must not end the training."""
    helper("sys.exit('hiccup') if n == 2 else print(f'token-{n}')")
    ask(server)
    server.answer(Answer(401))
    assert ask(server) == "Bearer token-3"


@pytest.mark.parametrize("command", ["no-such-program-anywhere", "'unbalanced", "  "])
def test_a_command_that_cannot_run_is_named(server: RecordingServer, choose, command: str) -> None:
    choose("command", command=command)
    with pytest.raises(MlflowException, match="MLFLOW_AUTH_COMMAND"):
        ask(server)


@pytest.fixture
def profiles(tmp_path: Path, choose):
    def write(text: str) -> None:
        (tmp_path / "profiles.toml").write_text(text)
        choose("profiles", profiles=str(tmp_path / "profiles.toml"))

    return write


def test_each_server_gets_its_own_credentials(
    server: RecordingServer, profiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One with a key, one with a token file, one with none; a port in the name wins."""
    (tmp_path / "key").write_text("key-of-the-first")
    (tmp_path / "token").write_text("token-of-the-second")
    with RecordingServer() as second, RecordingServer() as third:
        profiles(
            f'[hosts."127.0.0.1"]\nauth = "api-key"\napi_key_file = {json.dumps(str(tmp_path / "key"))}\n'
            f'[hosts."127.0.0.1:{second.port}"]\nauth = "token-file"\n'
            f"token_file = {json.dumps(str(tmp_path / 'token'))}\n"
            f'[hosts."127.0.0.1:{third.port}"]\nauth = "none"\n'
        )
        for each in (server, second, third):
            mlflow.MlflowClient(tracking_uri=each.uri).search_experiments()
        headers = [
            (r.values("X-API-Key"), r.values("Authorization")) for s in (server, second, third) for r in s.requests
        ]
    assert headers == [(["key-of-the-first"], []), ([], ["Bearer token-of-the-second"]), ([], [])]


def test_a_server_without_a_table_stops(server: RecordingServer, profiles) -> None:
    profiles('[hosts."other.example.com"]\nauth = "none"\n')
    with pytest.raises(MlflowException, match=r'\[hosts."127.0.0.1"\]'):
        ask(server)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[hosts", "is no TOML"),
        ("", "must hold tables"),
        ('[host."a"]\nauth = "none"', "must hold tables"),
        ('[hosts."a/b"]\nauth = "none"', "write the host as"),
        ('[hosts."*"]\nauth = "none"', "write the host as"),
        ('[hosts."a"]\n', "must name a provider; there are oauth2"),
        ('[hosts."a"]\nauth = "oauth"', "Did you mean 'oauth2'"),
        ('[hosts."a"]\nauth = "oauth2"\nisuer = "x"', "Did you mean 'issuer'"),
        ('[hosts."a"]\nauth = "api-key"\napi_key = "in clear"', "give api_key_file"),
    ],
)
def test_a_wrong_profiles_file_is_explained(server: RecordingServer, profiles, text: str, message: str) -> None:
    profiles(text)
    with pytest.raises(MlflowException, match=message) as caught:
        ask(server)
    assert "in clear" not in str(caught.value)


def test_a_profiles_file_is_read_again_when_it_changes(server: RecordingServer, profiles, tmp_path: Path) -> None:
    profiles('[hosts."127.0.0.1"]\nauth = "none"\n')
    mlflow.MlflowClient().search_experiments()
    assert server.requests[-1].values("Authorization") == []
    (tmp_path / "token").write_text("now-with-a-token")
    profiles(f'[hosts."127.0.0.1"]\nauth = "token-file"\ntoken_file = {json.dumps(str(tmp_path / "token"))}\n')
    assert ask(server) == "Bearer now-with-a-token"


def test_the_environment_may_change_between_requests(
    server: RecordingServer, choose, monkeypatch: pytest.MonkeyPatch
) -> None:
    choose("api-key", api_key="first")
    assert ask(server, "X-API-Key") == "first"
    assert selection.auth_for("api-key") is selection.auth_for("api-key")
    monkeypatch.setenv("MLFLOW_AUTH_API_KEY", "second")
    assert ask(server, "X-API-Key") == "second"
