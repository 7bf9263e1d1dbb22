"""Git's state, read from real repositories."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlflow_run_context.git import find_repository, head, remote_url, repository_name, signature

Git = Callable[..., str]
Tags = Callable[[], dict[str, str]]


def test_a_clean_repository(git: Git, tags: Tags) -> None:
    git("remote", "add", "backup", "https://example.com/other.git")
    git("remote", "add", "origin", "https://ann:s3cret@git.example.com/team/models.git?token=abc")
    found = tags()
    assert found["ctx.git.commit"] == git("rev-parse", "HEAD")
    assert found["ctx.git.branch"] == "main"
    assert found["ctx.git.dirty"] == "false"
    assert found["ctx.git.remote"] == "https://git.example.com/team/models.git"
    assert found["ctx.git.repository"] == "models"
    assert not {"ctx.git.diff_digest", "ctx.git.untracked", "ctx.git.diff"} & found.keys()


def test_changes_are_seen_and_their_digest_is_that_of_git(git: Git, tags: Tags) -> None:
    Path("train.py").write_text("print(2)\n")
    Path("new.txt").write_text("x")
    Path("staged.bin").write_bytes(bytes(range(256)))
    git("add", "staged.bin")
    found = tags()
    diff = subprocess.run(["git", "diff", "HEAD", "--binary"], capture_output=True, check=True).stdout
    assert found["ctx.git.dirty"] == "true"
    assert found["ctx.git.untracked"] == "1"
    assert found["ctx.git.diff_digest"] == f"sha256:{hashlib.sha256(diff).hexdigest()}"


def test_a_renamed_file_called_like_an_entry_is_counted_once(git: Git, tags: Tags) -> None:
    Path("? odd").write_text("a\n" * 50)
    git("add", ".")
    git("commit", "-q", "-m", "second")
    git("mv", "? odd", "1 odd")
    found = tags()
    assert (found["ctx.git.dirty"], found.get("ctx.git.untracked")) == ("true", None)


def test_a_commit_or_a_checkout_counts_at_once(git: Git, tags: Tags) -> None:
    first = tags()
    Path("train.py").write_text("print(3)\n")
    git("commit", "-q", "-a", "-m", "second")
    second = tags()
    git("checkout", "-q", "-b", "feature/x")
    assert second["ctx.git.commit"] == git("rev-parse", "HEAD") != first["ctx.git.commit"]
    assert tags()["ctx.git.branch"] == "feature/x"


def test_an_edit_counts_after_the_refresh_time(git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tags()["ctx.git.dirty"] == "false"
    Path("train.py").write_text("print(4)\n")
    assert tags()["ctx.git.dirty"] == "false"
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_REFRESH", "0")
    assert tags()["ctx.git.dirty"] == "true"


def test_a_detached_head_a_packed_branch_a_worktree_and_a_submodule(git: Git, tags: Tags, tmp_path: Path) -> None:
    commit = git("rev-parse", "HEAD")
    git("branch", "packed")
    git("pack-refs", "--all")
    assert tags()["ctx.git.commit"] == commit
    git("checkout", "-q", "--detach")
    found = tags()
    assert found["ctx.git.commit"] == commit
    assert "ctx.git.branch" not in found
    git("worktree", "add", "-q", str(tmp_path / "tree"), "packed")
    inside = find_repository(tmp_path / "tree")
    assert inside is not None
    about = head(inside, signature(inside))
    assert (about["git.commit"], about["git.branch"]) == (commit, "packed")
    git("-c", "protocol.file.allow=always", "submodule", "add", "-q", str(tmp_path / "project"), "sub")
    module = find_repository(tmp_path / "project" / "sub")
    assert module is not None
    assert head(module, signature(module))["git.commit"] == commit


def test_a_repository_without_a_commit(git: Git, tags: Tags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    git("init", "-q", "-b", "main", folder=tmp_path / "empty")
    Path("a.txt").write_text("a")
    git("add", ".", folder=tmp_path / "empty")
    found = tags()
    assert (found["ctx.git.branch"], found["ctx.git.dirty"]) == ("main", "true")
    assert "ctx.git.commit" not in found


def test_the_script_decides_which_repository_it_is(
    git: Git, tags: Tags, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert "ctx.git.commit" not in tags()
    monkeypatch.setattr(sys, "argv", [str(tmp_path / "project" / "train.py")])
    assert tags()["ctx.git.repository"] == "project"


def test_the_diff_is_a_tag_on_request_only_scrubbed_and_cut(
    git: Git, tags: Tags, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("train.py").write_text("password = 'hunter2-Zq8'\n" + "x = 1\n" * 3000)
    assert "ctx.git.diff" not in tags()
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT_GIT_DIFF", "true")
    diff = tags()["ctx.git.diff"]
    assert "\n+x = 1\n" in diff
    assert "hunter2" not in diff
    assert len(diff) == 5000
    assert diff.endswith(" ... [truncated]")


def test_a_repository_cannot_have_its_own_programs_run(git: Git, tags: Tags, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    trap.chmod(0o755)
    for option in ("core.fsmonitor", "diff.external", "core.pager", "diff.d.command", "diff.d.textconv"):
        git("config", option, str(trap))
    Path(".gitattributes").write_text("*.py diff=d\n")
    (Path(".git") / "hooks" / "post-index-change").write_bytes(trap.read_bytes())
    Path("train.py").write_text("print(5)\n")
    assert "ctx.git.diff_digest" in tags()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("config", "url"),
    [
        ('[remote "origin"]\n\turl = https://token@host/a.git\n', "https://host/a.git"),
        ('[remote "origin"]\n\turl = git@host:team/a.git\n', "git@host:team/a.git"),
        ('[remote "origin"]\n\turl = ann:secret@host:a.git\n', ""),
        ('[remote "a"]\nurl=ssh://git@host:22/a\n[remote "origin"]\n fetch = x\n', "ssh://host:22/a"),
        ('[remote "origin"]\nurl = "https://u:p@ss@host/a"\n', "https://host/a"),
        ('[url "x"]\nurl = no\n[remote "origin"]\n[branch "b"]\nurl = no\n', ""),
        ("url = no", ""),
        ('[remote "origin"]\nurl = https://[broken/a\n', ""),
    ],
)
def test_the_remote_is_read_without_credentials(config: str, url: str) -> None:
    assert remote_url(config) == url


def test_the_repositorys_name() -> None:
    names = ["https://h/t/a.git", "git@h:t/a.git", "git@h:a", "/srv/a.git/", "C:\\repos\\a"]
    assert {repository_name(name) for name in names} == {"a"}
