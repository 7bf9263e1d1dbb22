"""The generated parts of READMEs are up to date, and the check notices when one is not."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools import regenerate
from tools.workspace import ROOT, packages


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that hold generated parts."""
    for file, _ in regenerate.regenerated():
        target = tmp_path / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, target)
    return tmp_path


def test_every_generated_part_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert regenerate.main(["--check"]) == 0, capsys.readouterr().err


def test_a_package_without_its_row_is_noticed_and_mended(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    front = copy / "README.md"
    text = front.read_text()
    lines = text.splitlines(keepends=True)
    front.write_text("".join(line for line in lines if not line.startswith("| [mlflow-reference-plugin]")))
    assert regenerate.main(["--check"], copy) == 1
    assert "README.md is out of date" in capsys.readouterr().err
    assert regenerate.main([], copy) == 0
    assert front.read_text() == text


def test_a_changed_default_in_an_options_table_is_noticed(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    readme = copy / "packages/mlflow-reference-plugin/README.md"
    changed = readme.read_text().replace("| `mlflow-deployments` |", "| `elsewhere` |")
    assert changed != readme.read_text()
    readme.write_text(changed)
    assert regenerate.main(["--check"], copy) == 1
    assert "packages/mlflow-reference-plugin/README.md is out of date" in capsys.readouterr().err


def test_the_check_writes_nothing(copy: Path) -> None:
    front = copy / "README.md"
    front.write_text(front.read_text().replace("| status |", "| state |"))
    before = front.read_text()
    assert regenerate.main(["--check"], copy) == 1
    assert front.read_text() == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("<!-- options:begin -->\nno end", "needs a marker options:end"),
        ("<!-- errors:begin -->\n<!-- errors:end -->", "name the error table"),
        ("<!-- options:begin nowhere.settings:Settings -->\n<!-- options:end -->", "cannot be found"),
        ("<!-- options:begin -->\n<!-- options:end -->", "name the settings class"),
    ],
)
def test_a_marker_that_cannot_be_filled_is_named(
    copy: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    readme = copy / "packages/mlflow-reference-plugin/README.md"
    readme.write_text(text)
    assert regenerate.main(["--check"], copy) == 1
    error = capsys.readouterr().err
    assert "mlflow-reference-plugin/README.md" in error
    assert says in error


@pytest.mark.parametrize(
    ("specifier", "text"),
    [(">=2.22,<4", "2.22 to 3.x"), (">=3.1.1,<3.18", "3.1.1 to 3.17"), (">=2.22,>=3.2,<4", "3.2 to 3.x")],
)
def test_a_version_range_is_put_in_words(specifier: str, text: str) -> None:
    assert regenerate.range_text(SpecifierSet(specifier)) == text


def test_an_open_range_is_shown_as_it_is() -> None:
    assert regenerate.range_text(SpecifierSet(">=2.22")) == "`>=2.22`"


def test_every_package_has_a_row_with_its_groups_and_its_status() -> None:
    table = regenerate.package_table(list(packages().values()))
    assert len(table.splitlines()) == 2 + len(packages())
    row = next(line for line in table.splitlines() if "[mlflow-reference-plugin]" in line)
    assert "tracking store" in row
    assert row.endswith("| 2.22 to 3.x | beta |")
