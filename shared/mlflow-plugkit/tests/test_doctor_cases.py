"""Faults that need an environment of their own: broken metadata, broken imports, authentication, a missing MLflow."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from seeds import REPOSITORY, Seeds, environment, run, run_json

from mlflow_plugkit.cli import NEEDS_EXTRA
from mlflow_plugkit.doctor.findings import rules_table
from mlflow_plugkit.doctor.rules import RULES

README = Path(__file__).resolve().parent.parent / "README.md"


@pytest.fixture
def seeds(tmp_path: Path) -> Seeds:
    folder = tmp_path / "seeds"
    folder.mkdir()
    return Seeds(folder)


def ids(report: dict) -> set[tuple[str, str]]:
    return {(f["id"], f["subject"]) for f in report["findings"]}


def test_broken_metadata_and_an_sqlalchemy_too_new_are_named(tmp_path: Path, seeds: Seeds) -> None:
    """An entry_points.txt that cannot be parsed fails every reader of entry points, so MLflow's import, too."""
    info = seeds.dist_info("seed-broken", "1.0")
    (info / "entry_points.txt").write_text("[mlflow.tracking_store]\nno equals sign\n")
    (seeds.dist_info("seed-nameless", "1.0") / "entry_points.txt").write_text(
        "[mlflow.artifact_repository]\nnameless = seed_nameless:Repository\n"
    )
    (seeds.folder / "seed_nameless-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\n")
    seeds.module("seed_nameless.py", REPOSITORY)
    seeds.dist_info("mlflow-skinny", "3.6.0")
    seeds.dist_info("SQLAlchemy", "2.1.4")
    report, done = run_json(["doctor"], environment(tmp_path, PYTHONPATH=str(seeds.folder)))
    found = {(rule, Path(subject).name) for rule, subject in ids(report)}
    nameless = "seed_nameless-1.0.dist-info"
    assert {
        ("metadata-broken", "seed-broken"),
        ("metadata-broken", nameless),
        ("sqlalchemy-too-new", "sqlalchemy"),
    } <= found
    assert not {rule for rule, _ in found} - {"metadata-broken", "sqlalchemy-too-new", "mlflow-range-undeclared"}
    assert done.returncode == 1


def test_plugins_that_break_the_import_only_together_are_noticed(tmp_path: Path, seeds: Seeds) -> None:
    for mine, other in (("a", "b"), ("b", "a")):
        source = f"import sys\nif 'seed_{other}' in sys.modules:\n    raise RuntimeError('we do not get along')\n"
        entry = {"artifact_repository": {f"seed{mine}": f"seed_{mine}:make"}}
        factory = "def make(artifact_uri, tracking_uri=None, registry_uri=None): ...\n"
        seeds.add(f"seed-{mine}", entry, {f"seed_{mine}.py": source + factory})
    report, done = run_json(["doctor"], environment(tmp_path, PYTHONPATH=str(seeds.folder)))
    assert ids(report) == {("mlflow-import-breaks", "mlflow")}
    assert "we do not get along" in report["findings"][0]["what"]
    assert done.returncode == 1


def test_an_mlflow_that_cannot_be_imported_is_named(tmp_path: Path, seeds: Seeds) -> None:
    """The doctor itself imports no MLflow, so it works where a module that MLflow needs is broken."""
    seeds.module("yaml.py", "raise RuntimeError('this yaml is broken')")
    report, done = run_json(["doctor"], environment(tmp_path, PYTHONPATH=str(seeds.folder)))
    assert ids(report) == {("mlflow-import-fails", "mlflow")}
    assert "this yaml is broken" in report["findings"][0]["what"]
    assert done.returncode == 1


def test_warnings_alone_leave_the_exit_status_zero_and_the_text_says_what_to_do(tmp_path: Path, seeds: Seeds) -> None:
    env = environment(tmp_path, MLFLOW_GATEWAY_URI="http://me:URISECRET@127.0.0.1")
    done = run(["doctor"], env)
    assert done.returncode == 0, done.stderr
    assert "Warnings (1)" in done.stdout
    assert "MLFLOW_GATEWAY_URI  [secret-in-uri]" in done.stdout
    assert "Remedy: Take it out of the URI" in done.stdout
    assert "1 configured URI " in done.stdout
    assert "URISECRET" not in done.stdout + done.stderr


def test_an_unknown_auth_provider_and_strict_mode(tmp_path: Path, seeds: Seeds) -> None:
    """With MLFLOW_TRACKING_AUTH, the netrc file is not read; strict mode makes a secret in a URI an error."""
    seeds.add(
        "seed-auth",
        {"request_auth_provider": {"any": "seed_auth:Provider"}},
        {
            "seed_auth.py": "class Provider:\n    def get_name(self):\n        return 'seedauth'\n"
            "    def get_auth(self):\n        return None\n"
        },
    )
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password NETRCSECRET\n")
    env = environment(
        tmp_path,
        PYTHONPATH=str(seeds.folder),
        NETRC=str(netrc),
        MLFLOW_TRACKING_URI="https://me:URISECRET@tracking.example",
        MLFLOW_TRACKING_TOKEN="TOKENSECRET",
        MLFLOW_TRACKING_AUTH="seedaut",
        MLFLOW_PLUGKIT_STRICT="true",
    )
    report, done = run_json(["doctor"], env)
    assert ids(report) == {("auth-provider-unknown", "MLFLOW_TRACKING_AUTH"), ("secret-in-uri", "MLFLOW_TRACKING_URI")}
    assert {f["severity"] for f in report["findings"]} == {"error"}
    assert "Did you mean 'seedauth'?" in done.stdout
    assert not [s for s in ("URISECRET", "TOKENSECRET", "NETRCSECRET") if s in done.stdout + done.stderr]


def minimal_path(folder: Path, *packages: str) -> str:
    """A folder of links to the given packages alone, for an interpreter that sees no site-packages (`-S`)."""
    folder.mkdir()
    for package in packages:
        spec = find_spec(package)
        assert spec is not None
        origin = Path(str(spec.origin))
        source = origin.parent if origin.name == "__init__.py" else origin
        (folder / source.name).symlink_to(source)
    return str(folder)


def test_a_missing_mlflow_is_named(tmp_path: Path) -> None:
    needed = ("mlflow_plugkit", "packaging", "click", "rich", "pygments", "markdown_it", "mdurl", "pydantic")
    needed += ("pydantic_core", "typing_extensions", "annotated_types", "typing_inspection")
    env = environment(tmp_path, PYTHONPATH=minimal_path(tmp_path / "packages", *needed))
    done = run(["doctor", "--json"], env, flags=["-S"])
    assert done.returncode == 1, done.stderr
    assert ids(json.loads(done.stdout)) == {("mlflow-missing", "mlflow")}


def test_without_the_extra_the_command_says_how_to_install_it(tmp_path: Path) -> None:
    env = environment(tmp_path, PYTHONPATH=minimal_path(tmp_path / "packages", "mlflow_plugkit"))
    done = run(["doctor"], env, flags=["-S"])
    assert (done.returncode, done.stdout, done.stderr.strip()) == (2, "", NEEDS_EXTRA)


def test_the_command_line_imports_neither_mlflow_nor_a_plugin() -> None:
    code = (
        "import sys; from mlflow_plugkit.cli import commands, doctor, list; "
        "sys.exit(any(m == 'mlflow' or m.startswith('mlflow.') for m in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, env=dict(os.environ))


def test_the_readme_lists_every_finding() -> None:
    """Between the markers stands exactly what the registry of rules renders."""
    text = README.read_text(encoding="utf-8")
    shown = text.split("<!-- findings:begin -->")[1].split("<!-- findings:end -->")[0].strip()
    assert shown == rules_table(), (
        "Render it anew: python -c 'import mlflow_plugkit.doctor.findings as f; print(f.rules_table())'"
    )
    assert len(RULES) == shown.count("\n") - 1
