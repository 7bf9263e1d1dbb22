"""Publishing one package: the checks before, and the upload by hatch.

    python tools/release.py check      mlflow-oss-artifacts [--index URL]
    python tools/release.py upload     mlflow-oss-artifacts [--index URL]
    python tools/release.py package-of mlflow-oss-artifacts-v1.2.0

The index is an upload URL, https://upload.pypi.org/legacy/ by default. The user and the password are
HATCH_INDEX_USER and HATCH_INDEX_AUTH in the environment, and nowhere else.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from packaging.utils import canonicalize_name
from packaging.version import Version

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.package_index import PYPI, filename_version, index_versions
from tools.workspace import ROOT, Package, package_named, packages


def tag_of(package: Package) -> str:
    """The tag that the commit of this version carries, e.g. `mlflow-oss-artifacts-v1.2.0`."""
    return f"{package.name}-v{package.version}"


def package_of(tag: str) -> Package:
    """The package that a release tag names; SystemExit when it names none, or not the version of its manifest."""
    found = re.fullmatch(r"(.+)-v(\d[^-]*)", tag)
    if not found:
        raise SystemExit(f"{tag!r} is no release tag: those read <package>-v<version>.")
    package = package_named(found[1])
    if tag != tag_of(package):
        raise SystemExit(f"{tag} does not match the manifest of {package.name}, which says {package.version}.")
    return package


def problems(package: Package, index: str) -> Iterator[str]:
    """Why this package must not be published now: one sentence each, with what to do."""
    if urlsplit(index).username is not None:
        yield "The index URL holds a user. Put it in HATCH_INDEX_USER and the password in HATCH_INDEX_AUTH."
        return
    if _git("status", "--porcelain"):
        yield "The working tree has uncommitted changes. Commit them, so that what is published can be found again."
    yield from _tag_problems(package)
    yield from _changelog_problems(package)
    if Version(package.version) in index_versions(package.name, index):
        yield f"{package.name} {package.version} is on the index already. Raise the version in its pyproject.toml."
    yield from _dependency_problems(package, index)


def _tag_problems(package: Package) -> Iterator[str]:
    own = re.compile(rf"{re.escape(package.name)}-v\d")
    tags = [tag for tag in _git("tag", "--points-at", "HEAD").split() if own.match(tag)]
    if tags != [tag_of(package)]:
        found = f"it has {', '.join(tags)}" if tags else "it has no tag of this package"
        yield f"The commit must carry the tag {tag_of(package)}, and {found}. Run: git tag {tag_of(package)}"


def _changelog_problems(package: Package) -> Iterator[str]:
    changelog = package.folder / "CHANGELOG.md"
    text = changelog.read_text(encoding="utf-8") if changelog.exists() else ""
    if not re.search(rf"^## {re.escape(package.version)}(\s|$)", text, re.MULTILINE):
        yield f"CHANGELOG.md has no section for {package.version}. Run: nox -s changelog -- {package.name}"
    if left := fragments(package):
        names = ", ".join(left)
        yield f"changes/ still holds {names}, not yet in CHANGELOG.md. Run: nox -s changelog -- {package.name}"


def _dependency_problems(package: Package, index: str) -> Iterator[str]:
    """An installer could not resolve a wheel whose neighbours are not on its index."""
    for requirement in package.requirements(extras=None):
        name = canonicalize_name(requirement.name)
        if name not in packages() or name == package.name:
            continue
        there = index_versions(name, index)
        if not any(requirement.specifier.contains(version) for version in there):
            has = ", ".join(map(str, sorted(there))) or "none of it"
            yield f"It requires {requirement}, and the index has {has}. Publish {name} first."


def notes(package: Package) -> Iterator[str]:
    """What may be right, and deserves a look."""
    for requirement in package.requirements(extras=None):
        name = canonicalize_name(requirement.name)
        if name in packages() and name != package.name and fragments(packages()[name]):
            yield (
                f"{name} has changes that are not released. If this package needs them, release {name} first and "
                f"raise {requirement} in its pyproject.toml."
            )


def fragments(package: Package) -> list[str]:
    """The change fragments of a package that no release has taken up yet."""
    return sorted(file.name for file in package.folder.glob("changes/*") if not file.name.startswith("."))


def upload(package: Package, index: str) -> None:
    """Publish what `dist/<package>` holds with hatch; SystemExit when that is not this version's sdist and wheel."""
    files = sorted((ROOT / "dist" / package.name).iterdir())
    versions = [filename_version(file.name, package.name) for file in files]
    if versions != [Version(package.version)] * 2:
        raise SystemExit(f"dist/{package.name} is not the sdist and the wheel of {package.version}. Build it again.")
    environment = {**os.environ, "HATCH_INDEX_REPO": index}
    command = ["hatch", "publish", "--no-prompt", *map(str, files)]
    result = subprocess.run(command, cwd=package.folder, env=environment, check=False)
    if result.returncode:
        raise SystemExit(f"hatch could not publish {package.name} (exit status {result.returncode}): see above.")


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "upload", "package-of"])
    parser.add_argument("what", help="a package, or a tag")
    parser.add_argument("--index", default=PYPI, help="an upload URL (default: %(default)s)")
    options = parser.parse_args()
    if options.action == "package-of":
        print(package_of(options.what).name)
        return 0
    package = package_named(options.what)
    if options.action == "upload":
        upload(package, options.index)
        return 0
    for note in notes(package):
        print(f"note: {note}", file=sys.stderr)
    found = list(problems(package, options.index))
    for problem in found:
        print(f"refused: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
