"""What a package index already has."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.error
import urllib.request

from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import Version

PYPI = "https://upload.pypi.org/legacy/"
ACCEPT = "application/vnd.pypi.simple.v1+json, text/html;q=0.5"


def simple_url(index: str) -> str:
    """Where the simple API (PEP 503) of an upload URL is.

    PyPI and TestPyPI upload to /legacy/ and list at /simple/; others (pypiserver, devpi, Nexus, Artifactory,
    GitLab) list at simple/ below the upload URL.
    """
    index = index.rstrip("/")
    if index == PYPI.rstrip("/"):
        return "https://pypi.org/simple/"
    return f"{index.removesuffix('/legacy')}/simple/"


def index_versions(name: str, index: str) -> set[Version]:
    """The versions of a distribution that an index has; empty when it does not know the name.

    SystemExit when the index cannot be asked: silence would look like a version that is free.
    """
    url = f"{simple_url(index)}{name}/"
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})
    user, password = os.environ.get("HATCH_INDEX_USER"), os.environ.get("HATCH_INDEX_AUTH")
    if user and password and index != PYPI:
        secret = base64.b64encode(f"{user}:{password}".encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {secret}")
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            body, kind = answer.read().decode(), answer.headers.get_content_type()
    except urllib.error.HTTPError as exc:
        if exc.code == 404:
            return set()
        raise SystemExit(f"{url} answers {exc.code} {exc.reason}: what it has cannot be told.") from None
    except urllib.error.URLError as exc:
        raise SystemExit(f"{url} does not answer: {exc.reason}. Is the address right?") from None
    if kind.endswith("json"):
        files = [file["filename"] for file in json.loads(body)["files"]]
    else:
        files = [text.strip() for text in re.findall(r">([^<]+)</a>", body)]
    return {version for file in files if (version := filename_version(file, name))}


def filename_version(file: str, name: str) -> Version | None:
    """The version in the filename of a wheel or sdist of `name`; None for any other file."""
    try:
        if file.endswith(".whl"):
            found, version, *_ = parse_wheel_filename(file)
        else:
            found, version = parse_sdist_filename(file)
    except (InvalidWheelFilename, InvalidSdistFilename):
        return None
    return version if found == canonicalize_name(name) else None
