"""Publishing one package: the checks before, and the upload by hatch.

    python tools/release.py check  mlflow-oss-artifacts [--index URL]
    python tools/release.py upload mlflow-oss-artifacts [--index URL]

The index is an upload URL, https://upload.pypi.org/legacy/ by default; hatch takes the user and the
password from HATCH_INDEX_USER and HATCH_INDEX_AUTH.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tools.workspace import ROOT, Package, package_named

PYPI = "https://upload.pypi.org/legacy/"
# Any version, so that a mistyped tag is caught: what a release tag of this package looks like.
TAG = "{name}-v{version}"


def problems(package: Package, index: str, root: Path = ROOT) -> Iterator[str]:
    """Why this package must not be published now: one sentence each, with what to do."""
    if _git(root, "status", "--porcelain"):
        yield "The working tree has uncommitted changes. Commit them, so that what is published can be found again."
    wanted = TAG.format(name=package.name, version=package.version)
    tags = [t for t in _git(root, "tag", "--points-at", "HEAD").split() if re.match(rf"{package.name}-v\d", t)]
    if tags != [wanted]:
        found = f"it has {', '.join(tags)}" if tags else "it has no tag of this package"
        yield f"The commit must carry the tag {wanted}, and {found}. Run: git tag {wanted}"
    if not _changelog_names(package):
        yield f"CHANGELOG.md has no section for {package.version}. Run: nox -s changelog -- {package.name}"
    if package.version in published_versions(package.name, index):
        yield f"{package.name} {package.version} is on the index already. Raise the version in its pyproject.toml."


def published_versions(name: str, index: str) -> set[str]:
    """The versions of a distribution on an index, by the JSON form of the simple API (PEP 691), or its HTML."""
    simple = "https://pypi.org/simple/" if index == PYPI else f"{_origin(index)}/simple/"
    accept = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"
    request = urllib.request.Request(f"{simple}{name}/", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            body, kind = answer.read().decode(), answer.headers.get_content_type()
    except urllib.error.HTTPError as exc:
        if exc.code == 404:
            return set()
        raise
    except urllib.error.URLError as exc:
        raise SystemExit(f"The index {simple} does not answer: {exc.reason}. Is the address right?") from None
    files = (
        [f["filename"] for f in json.loads(body)["files"]] if kind.endswith("json") else re.findall(r">([^<]+)<", body)
    )
    stem = name.replace("-", "[-_.]")
    return {m[1] for file in files if (m := re.match(rf"{stem}-(\d[^-]*?)(?:-|\.tar\.gz)", file, re.IGNORECASE))}


def upload(package: Package, index: str) -> None:
    """Publish what `dist/<package>` holds with hatch."""
    files = sorted(map(str, (ROOT / "dist" / package.name).iterdir()))
    environment = {**os.environ, "HATCH_INDEX_REPO": index}
    subprocess.run(["hatch", "publish", "--no-prompt", *files], cwd=package.folder, env=environment, check=True)


def _changelog_names(package: Package) -> bool:
    changelog = package.folder / "CHANGELOG.md"
    return changelog.exists() and f"## {package.version}" in changelog.read_text(encoding="utf-8")


def _origin(index: str) -> str:
    parts = urlsplit(index)
    return f"{parts.scheme}://{parts.netloc}"


def _git(root: Path, *arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=root, check=True, capture_output=True, text=True).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["check", "upload"])
    parser.add_argument("package")
    parser.add_argument("--index", default=PYPI)
    options = parser.parse_args()
    package = package_named(options.package)
    if options.action == "upload":
        upload(package, options.index)
        return 0
    found = list(problems(package, options.index))
    for problem in found:
        print(f"refused: {problem}", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
