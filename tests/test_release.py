"""Releases, for real: a copy of the repository, its nox sessions, and a package index on loopback."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from release_index import PASSWORD, USER, Index, free_port, package_index
from release_repository import Repository, run

from tools.workspace import packages

BASE, PLUGIN = "mlflow-plugkit", "mlflow-reference-plugin"
VERSION = packages()[BASE].version
BASE_WHEEL = f"mlflow_plugkit-{VERSION}-py3-none-any.whl"
Break = Callable[[Repository], object]


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    """A repository in which `nox -s changelog` has run for the base and the plugin; committed and tagged."""
    repository = Repository.of_this_tree(tmp_path_factory.mktemp("release") / "repository")
    for name in (BASE, PLUGIN):
        done = repository.nox("changelog", name)
        assert done.returncode == 0, done.stdout + done.stderr
    repository.commit()
    for name in (BASE, PLUGIN):
        repository.tag(f"{name}-v{packages()[name].version}")
    return repository


@pytest.fixture
def repository(ready: Repository, tmp_path: Path) -> Repository:
    return ready.clone(tmp_path / "repository")


@pytest.fixture(scope="module")
def shared_index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    with package_index(tmp_path_factory.mktemp("index")) as index:
        yield index


@pytest.fixture
def index(shared_index: Index) -> Iterator[Index]:
    """An index that is empty before and after the test."""
    yield shared_index
    for file in shared_index.store.iterdir():
        file.unlink()


def refusals(repository: Repository, package: str, url: str) -> list[str]:
    """The refusals that `release.py check` prints; its exit status must agree with them."""
    done = repository.release("check", package, "--index", url)
    found = [line for line in done.stderr.splitlines() if line.startswith("refused: ")]
    assert done.returncode == (1 if found else 0), done.stdout + done.stderr
    return found


def committed(change: Break) -> Break:
    """The change, as the commit that carries the release's tag."""

    def made(repository: Repository) -> None:
        change(repository)
        repository.commit()
        repository.tag(f"{BASE}-v{VERSION}")

    return made


HOME = f"shared/{BASE}"
BROKEN: dict[str, tuple[Break, str]] = {
    "a dirty tree": (lambda r: (r.folder / "new.txt").write_text("new"), "has uncommitted changes"),
    "no tag": (lambda r: r.git("tag", "-d", f"{BASE}-v{VERSION}"), "it has no tag of this package"),
    "the tag of another version": (lambda r: r.tag(f"{BASE}-v9.9.9"), f"{BASE}-v9.9.9"),
    "a tag on another commit": (lambda r: r.commit(), "it has no tag of this package"),
    "no changelog section": (
        committed(lambda r: r.edit(f"{HOME}/CHANGELOG.md", f"## {VERSION} ", f"## {VERSION}1 ")),
        f"CHANGELOG.md has no section for {VERSION}",
    ),
    "a fragment left over": (
        committed(lambda r: (r.folder / HOME / "changes" / "7.fixd.md").write_text("Mended.")),
        "changes/ still holds 7.fixd.md",
    ),
}


def test_a_package_that_is_ready_may_be_published(repository: Repository, index: Index) -> None:
    assert refusals(repository, BASE, index.url) == []


@pytest.mark.parametrize("case", BROKEN)
def test_a_package_that_is_not_ready_is_refused_for_that_reason_alone(
    case: str, repository: Repository, index: Index
) -> None:
    change, reason = BROKEN[case]
    change(repository)
    found = refusals(repository, BASE, index.url)
    assert len(found) == 1, found
    assert reason in found[0]


def test_a_version_that_is_on_the_index_is_refused(repository: Repository, index: Index) -> None:
    index.put(BASE_WHEEL)
    found = refusals(repository, BASE, index.url)
    assert len(found) == 1, found
    assert f"{BASE} {VERSION} is on the index already" in found[0]


def test_another_version_on_the_index_does_not_matter(repository: Repository, index: Index) -> None:
    index.put(f"mlflow_plugkit-{VERSION}1-py3-none-any.whl")
    index.put(f"mlflow_plugkit_testing-{VERSION}.tar.gz")
    assert refusals(repository, BASE, index.url) == []


@pytest.mark.parametrize(("there", "has"), [((), "none of it"), (("mlflow_plugkit-0.0.1.tar.gz",), "0.0.1")])
def test_a_package_whose_base_is_not_on_the_index_in_an_admitted_version_is_refused(
    there: tuple[str, ...], has: str, repository: Repository, index: Index
) -> None:
    for filename in there:
        index.put(filename)
    found = refusals(repository, PLUGIN, index.url)
    assert len(found) == 1, found
    assert f"the index has {has}. Publish {BASE} first." in found[0]


def test_unreleased_changes_of_the_base_are_noted(repository: Repository, index: Index) -> None:
    index.put(BASE_WHEEL)
    (repository.folder / HOME / "changes" / "8.added.md").write_text("More.")
    repository.commit()
    repository.tag(f"{PLUGIN}-v{packages()[PLUGIN].version}")
    done = repository.release("check", PLUGIN, "--index", index.url)
    assert done.returncode == 0, done.stderr
    assert f"note: {BASE} has changes that are not released" in done.stderr


def test_an_index_that_does_not_answer_is_an_error_in_one_line(repository: Repository) -> None:
    done = repository.release("check", BASE, "--index", f"http://127.0.0.1:{free_port()}/")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_password_in_the_index_url_is_refused_and_not_repeated(repository: Repository, index: Index) -> None:
    url = index.url.replace("://", f"://{USER}:{PASSWORD}@")
    done = repository.release("check", BASE, "--index", url)
    assert done.returncode == 1
    assert "HATCH_INDEX_AUTH" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr
    done = repository.nox("publish", BASE, "--index", url)
    assert done.returncode == 1
    assert "HATCH_INDEX_AUTH" in done.stdout + done.stderr
    assert PASSWORD not in done.stdout + done.stderr


def test_a_private_index_is_asked_with_the_credentials_of_the_upload(repository: Repository, tmp_path: Path) -> None:
    with package_index(tmp_path / "index", private=True) as index:
        asked = ("check", BASE, "--index", index.url)
        without = repository.release(*asked)
        assert without.returncode == 1
        assert "answers 401" in without.stderr
        index.put(BASE_WHEEL)
        done = repository.release(*asked, HATCH_INDEX_USER=USER, HATCH_INDEX_AUTH=PASSWORD)
        assert done.returncode == 1
        assert "is on the index already" in done.stderr
        assert PASSWORD not in done.stdout + done.stderr


def test_the_package_of_a_tag_is_found_and_a_wrong_tag_is_refused(repository: Repository) -> None:
    right = repository.release("package-of", f"{BASE}-v{VERSION}")
    assert (right.returncode, right.stdout) == (0, f"{BASE}\n")
    for tag, reason in {
        f"{BASE}-v9.9.9": f"says {VERSION}",
        f"{BASE}-{VERSION}": "is no release tag",
        f"mlflow-nobody-v{VERSION}": "There is no package",
        f"{BASE}-v{VERSION}-rc1": "is no release tag",
    }.items():
        wrong = repository.release("package-of", tag)
        assert (wrong.returncode, wrong.stdout) == (1, ""), tag
        assert reason in wrong.stderr


def test_the_checks_pass_in_the_shallow_checkout_of_a_tag(ready: Repository, index: Index, tmp_path: Path) -> None:
    """What the release workflow checks out: one commit, no branch, one tag."""
    tag = f"{BASE}-v{VERSION}"
    options = ("--depth", "1", "--branch", tag, "--single-branch", "-c", "advice.detachedHead=false")
    run(["git", "clone", "-q", *options, f"file://{ready.folder}", str(tmp_path / "checkout")], tmp_path)
    assert refusals(Repository(tmp_path / "checkout"), BASE, index.url) == []


def test_a_wrong_password_stops_the_upload_and_is_not_printed(repository: Repository, index: Index) -> None:
    done = repository.nox("publish", BASE, "--index", index.url, password="wrong-and-secret")
    assert done.returncode == 1
    assert f"hatch could not publish {BASE}" in done.stdout + done.stderr
    assert "wrong-and-secret" not in done.stdout + done.stderr
    assert list(index.store.iterdir()) == []


@pytest.mark.parametrize(
    "wheel", ["mlflow_plugkit-0.0.1-py3-none-any.whl", BASE_WHEEL.replace("kit", "kit_testing"), ""]
)
def test_files_that_are_not_this_versions_are_not_uploaded(wheel: str, repository: Repository, index: Index) -> None:
    dist = repository.folder / "dist" / BASE
    dist.mkdir(parents=True)
    for name in filter(None, (f"mlflow_plugkit-{VERSION}.tar.gz", wheel)):
        (dist / name).write_bytes(b"")
    done = repository.release("upload", BASE, "--index", index.url)
    assert done.returncode == 1
    assert f"is not the sdist and the wheel of {VERSION}" in done.stderr
    assert list(index.store.iterdir()) == []


USE = """
import os, mlflow
assert os.environ["MLFLOW_TRACKING_URI"] == mlflow.get_tracking_uri()
with mlflow.start_run() as run:
    mlflow.log_metric("loss", 0.25, step=3)
read = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
print([(metric.value, metric.step) for metric in read])
"""


@pytest.mark.slow
def test_a_published_plugin_installs_alone_into_an_empty_environment_and_works(
    repository: Repository, index: Index, tmp_path: Path
) -> None:
    for name in (BASE, PLUGIN):
        done = repository.nox("publish", name, "--index", index.url)
        assert done.returncode == 0, done.stdout + done.stderr
        assert PASSWORD not in done.stdout + done.stderr
        assert any("is on the index already" in line for line in refusals(repository, name, index.url))
    stems = {name.replace("-", "_") + "-" + packages()[name].version for name in (BASE, PLUGIN)}
    endings = (".tar.gz", "-py3-none-any.whl")
    assert {file.name for file in index.store.iterdir()} == {stem + end for stem in stems for end in endings}

    uv(tmp_path, "venv", "-q", "env")
    uv(tmp_path, "pip", "install", "-q", "-p", "env", PLUGIN, "--index", f"{index.url}simple/")
    python = tmp_path / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    used = run([str(python), "-c", USE], tmp_path, MLFLOW_TRACKING_URI=f"file-plugin:{tmp_path}/data?create=true")
    assert used.stdout.splitlines()[-1:] == ["[(0.25, 3)]"], used.stdout + used.stderr
    assert list((tmp_path / "data").iterdir())


def uv(folder: Path, *arguments: str) -> None:
    done = run(["uv", *arguments], folder)
    assert done.returncode == 0, done.stderr
