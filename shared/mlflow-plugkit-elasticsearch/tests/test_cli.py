"""The command `mlflow-elasticsearch`, run as users run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest
import things
from click.testing import CliRunner, Result
from mlflow.exceptions import MlflowException
from things import THINGS

from mlflow_plugkit_elasticsearch import Documents, Index, installed
from mlflow_plugkit_elasticsearch.cli import main
from mlflow_plugkit_elasticsearch.names import KEYS

pytestmark = pytest.mark.once

INDICES = (THINGS, KEYS)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run the command where one package is installed whose indices are those of `things` and the claims of names."""
    entry = EntryPoint("test", f"{__name__}:INDICES", installed.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: INDICES if self.name == "test" else things)
    monkeypatch.setattr(installed, "entry_points", lambda group: (entry, EntryPoint("module", "things", group)))
    return lambda *arguments: CliRunner().invoke(main, arguments)


def test_the_indices_are_made_and_shown(run: Callable[..., Result], docs: Documents, uri: str) -> None:
    """Missing at first, then created, then there; also with a setting that forbids servers to create them."""
    prefix = docs.cluster.settings.prefix
    shown = run("status", uri)
    assert (shown.exit_code, shown.output.count("missing")) == (0, 2)
    made = run("bootstrap", uri)
    assert (made.exit_code, made.output) == (0, f"{prefix}-keys: created\n{prefix}-things: created\n")
    assert run("bootstrap", uri).output.count("was there") == 2
    docs.create(THINGS, "x", {"number": 1})
    shown = run("status", uri)
    assert shown.exit_code == 0
    assert [line.split() for line in shown.output.splitlines()[1:]] == [
        [f"{prefix}-keys", "current", "1", "1", "0"],
        [f"{prefix}-things", "current", "1", "1", "1"],
    ]
    assert run("upgrade", uri).output == "0 of 2 indices were upgraded.\n"


def test_other_schemas_are_shown_and_upgraded_or_refused(
    run: Callable[..., Result], docs: Documents, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`status` ends with 1 for them, `upgrade` brings up to date what is older and touches nothing that is newer."""
    import dataclasses

    run("bootstrap", uri)
    newer = dataclasses.replace(THINGS, version=2, properties={**THINGS.properties, "more": {"type": "keyword"}})
    monkeypatch.setattr(things, "THINGS", newer)
    monkeypatch.setattr(sys.modules[__name__], "INDICES", (newer, KEYS))
    shown = run("status", uri)
    assert (shown.exit_code, "older" in shown.output) == (1, True)
    done = run("upgrade", uri)
    assert (done.exit_code, done.output.splitlines()[-1]) == (0, "1 of 2 indices were upgraded."), done.output
    monkeypatch.undo()
    entry = EntryPoint("test", "x:y", installed.GROUP)
    monkeypatch.setattr(EntryPoint, "load", lambda self: (THINGS, KEYS))
    monkeypatch.setattr(installed, "entry_points", lambda group: (entry,))
    for command in ("upgrade", "bootstrap"):
        refused = CliRunner().invoke(main, [command, uri])
        assert refused.exit_code == 1
        assert "has schema 2, and this package knows schema 1" in refused.output
    assert CliRunner().invoke(main, ["status", uri]).exit_code == 1


def test_the_role_is_printed_as_json(uri: str) -> None:
    """For the indices of the prefix alone; a server that may not create indices needs less. Nothing is connected."""
    unreachable = "elasticsearch://127.0.0.1:1/some_prefix"
    full = json.loads(CliRunner().invoke(main, ["role", unreachable]).output)
    least = json.loads(CliRunner().invoke(main, ["role", unreachable, "--no-manage"]).output)
    assert [one["names"] for one in full["indices"] + least["indices"]] == [["some_prefix-*"]] * 2
    assert set(least["indices"][0]["privileges"]) < set(full["indices"][0]["privileges"])
    assert (least["cluster"], full["cluster"]) == ([], ["manage_index_templates"])
    assert "all" not in full["indices"][0]["privileges"]


def test_two_packages_may_share_an_index_but_not_describe_it_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both stores list the claims of names; a third description of it is refused, and so is none at all."""
    listed: dict[str, Any] = {"a": (THINGS, KEYS), "b": [KEYS]}
    monkeypatch.setattr(EntryPoint, "load", lambda self: listed[self.name])
    monkeypatch.setattr(
        installed, "entry_points", lambda group: tuple(EntryPoint(name, f"{name}:x", group) for name in listed)
    )
    assert installed.installed_indices() == [KEYS, THINGS]
    listed["b"] = [Index("keys", {})]
    with pytest.raises(MlflowException, match="differently"):
        installed.installed_indices()
    listed.clear()
    with pytest.raises(MlflowException, match="No Elasticsearch store is installed"):
        installed.installed_indices()


def test_the_command_is_installed_and_says_what_is_wrong(tmp_path: Path) -> None:
    """A sentence and the code 1, no traceback; the help names no secret's option."""
    command = str(Path(sys.executable).parent / "mlflow-elasticsearch")
    environ = {**os.environ, "MLFLOW_ELASTICSEARCH_RETRY_FOR": "0", "MLFLOW_ELASTICSEARCH_API_KEY": "geheim-4711"}
    for arguments, words in (
        (["role", "opensearch://h/p"], "does not start with elasticsearch:"),
        (["role", "elasticsearch://h/p?tsl=1"], "Did you mean 'tls'?"),
        (["role", "elasticsearch://h/A"], "prefix"),
    ):
        done = subprocess.run([command, *arguments], capture_output=True, text=True, env=environ, check=False)
        assert (done.returncode, words in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
        assert "geheim-4711" not in done.stderr + done.stdout
    help_text = subprocess.run([command, "--help"], capture_output=True, text=True, check=True).stdout
    assert all(name in help_text for name in ("status", "bootstrap", "upgrade", "role"))
    assert "password" not in help_text.lower()
