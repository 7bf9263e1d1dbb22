"""What each request of the fake Hub's API does. A route gets the Hub, which holds the lock, and the request."""

from __future__ import annotations

import base64
import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from fake_hub.state import File, HubError, Repository, bucket_level, describe, is_ignored, level

if TYPE_CHECKING:
    from fake_hub.server import FakeHub, Request

# Above this size, in bytes, this Hub keeps a file in the xet storage rather than in git.
LARGE_SIZE = 1_000_000


def create_repository(hub: FakeHub, request: Request) -> Any:
    wanted = request.json()
    name = f"{wanted.get('organization') or 'me'}/{wanted['name']}" if "/" not in wanted["name"] else wanted["name"]
    private = wanted.get("private") is True or wanted.get("visibility") == "private"
    hub.state.create(wanted.get("type", "model"), name, private)
    prefix = "datasets/" if wanted.get("type") == "dataset" else ""
    return {"url": f"{hub.url}/{prefix}{name}", "name": name, "id": name}


def validate_yaml(hub: FakeHub, request: Request) -> Any:
    if "bad: [" in request.json()["content"]:
        raise HubError(400, message="Invalid metadata")
    return {"errors": [], "warnings": []}


def create_branch(hub: FakeHub, request: Request) -> Any:
    repository, branch = _repository(hub, request), request.groups[2]
    if branch in repository.branches:
        raise HubError(409, message="Reference already exists")
    repository.branches[branch] = repository.at(request.json().get("startingPoint") or "main").oid
    return {}


def repository_info(hub: FakeHub, request: Request) -> Any:
    repository = _repository(hub, request)
    commit = repository.at(request.groups[2] or "main")
    return {"_id": "1", "id": request.groups[1], "sha": commit.oid}


def preupload(hub: FakeHub, request: Request) -> Any:
    commit, wanted = _repository(hub, request).at(request.groups[2]), request.json()
    stored = commit.files.get(".gitignore")
    ignored = wanted.get("gitIgnore", (stored.content or b"").decode() if stored else "").splitlines()
    answers = []
    for file in wanted["files"]:
        known = commit.files.get(file["path"])
        large = file["size"] > LARGE_SIZE or file["path"].endswith(hub.large_suffixes)
        answers.append(
            {
                "path": file["path"],
                "uploadMode": "lfs" if large else "regular",
                "shouldIgnore": is_ignored(file["path"], ignored),
                "oid": (known.sha256 or known.oid) if known else None,
            }
        )
    return {"files": answers, "commitOid": commit.oid}


def commit(hub: FakeHub, request: Request) -> Any:
    repository, branch = _repository(hub, request), request.groups[2]
    for hook in list(hub.before_commit):
        hook(repository, branch)
    if branch not in repository.branches:
        raise HubError(404, "RevisionNotFound", f"Invalid rev id: {branch}")
    head = repository.at(branch)
    header, *operations = [json.loads(line) for line in request.body.splitlines()]
    expected = header["value"].get("parentCommit")
    if expected and expected != head.oid:
        raise HubError(412, message="A commit has happened since. Please refresh and try again.")
    files = dict(head.files)
    for operation in operations:
        _apply(hub, files, operation["key"], operation["value"])
    made = repository.commit(branch, header["value"]["summary"], files)
    kind, name, _ = request.groups
    url = f"{hub.url}/{'' if kind == 'model' else f'{kind}s/'}{name}/commit/{made.oid}"
    return {"success": True, "commitOid": made.oid, "commitUrl": url, "hookOutput": ""}


def _apply(hub: FakeHub, files: dict[str, File], key: str, value: dict[str, Any]) -> None:
    path = value["path"]
    if key == "file":
        files[path] = File.regular(base64.b64decode(value["content"]))
    elif key == "lfsFile":
        xet_hash = hub.shards.xet_hash(value["oid"])
        if xet_hash is None:
            raise HubError(422, message=f"lfs object {value['oid']} was not uploaded")
        files[path] = File.large(value["size"], value["oid"], xet_hash)
    elif key == "deletedFile":
        if files.pop(path, None) is None:
            raise HubError(404, "EntryNotFound", f"A file with this name doesn't exist: {path}")
    else:
        raise HubError(400, message=f"unknown operation {key}")


def tree(hub: FakeHub, request: Request) -> Any:
    found = _repository(hub, request).at(request.groups[2])
    return _page(hub, request, level(found.files, request.groups[3], _flag(request, "recursive")))


def paths_info(hub: FakeHub, request: Request) -> Any:
    files = _repository(hub, request).at(request.groups[2]).files
    wanted = parse_qs(request.body.decode()).get("paths", [])
    return [describe(path, files[path]) for path in wanted if path in files]


def xet_token(hub: FakeHub, request: Request) -> Any:
    from fake_hub.server import XET_TOKEN, Answer

    place, expires = f"local://{hub.storage}", int(time.time()) + 3600
    headers = {
        "X-Xet-Cas-Url": place,
        "X-Xet-Access-Token": XET_TOKEN,
        "X-Xet-Token-Expiration": str(expires),
    }
    return Answer.of({"casUrl": place, "accessToken": XET_TOKEN, "exp": expires}, **headers)


def resolve(hub: FakeHub, request: Request) -> Any:
    from fake_hub.server import Answer

    kind, name, revision, path = request.groups
    kind = kind.removesuffix("s/") or "model"
    found = hub.state.repository(kind, name).at(revision)
    file = found.files.get(path)
    if file is None:
        raise HubError(404, "EntryNotFound", "Entry not found")
    headers = {"X-Repo-Commit": found.oid, "Accept-Ranges": "bytes"}
    if file.content is None:
        route = f"{hub.url}/api/{kind}s/{name}/xet-read-token/{found.oid}"
        return Answer(200, b"", headers | _xet_headers(file, route))
    headers["ETag"] = f'"{file.oid}"'
    if request.method == "HEAD":
        return Answer(200, b"", headers | {"Content-Length": str(file.size)})
    content = file.content
    if hub.damaged_downloads and content:
        content = bytes([content[0] ^ 1]) + content[1:]
    return Answer(200, content, headers)


def create_bucket(hub: FakeHub, request: Request) -> Any:
    name = "/".join(request.groups)
    if name in hub.state.buckets:
        raise HubError(409, message="bucket exists")
    hub.state.buckets[name] = {}
    wanted = request.json()  # huggingface_hub 2.0 says it by `private`, later ones by `visibility`
    hub.created_private[name] = wanted.get("private") is True or wanted.get("visibility") == "private"
    return {"url": f"{hub.url}/buckets/{name}"}


def bucket_tree(hub: FakeHub, request: Request) -> Any:
    files = hub.state.bucket(request.groups[0])
    return _page(hub, request, bucket_level(files, request.groups[1], _flag(request, "recursive")))


def bucket_paths_info(hub: FakeHub, request: Request) -> Any:
    files = hub.state.bucket(request.groups[0])
    wanted = [path for path in request.json()["paths"] if path in files]
    return [{"type": "file", "path": p, "size": files[p].size, "xetHash": files[p].xet_hash} for p in wanted]


def bucket_batch(hub: FakeHub, request: Request) -> Any:
    files, failed = hub.state.bucket(request.groups[0]), []
    for line in request.body.splitlines():
        operation = json.loads(line)
        path = operation["path"]
        if operation["type"] == "addFile" and hub.shards.holds(operation["xetHash"]):
            size = hub.shards.size(operation["xetHash"])
            files[path] = File(size, operation["xetHash"], None, None, operation["xetHash"])
        elif path in hub.undeletable:
            failed.append({"path": path, "error": "locked"})
        elif operation["type"] == "deleteFile" and path in files:
            del files[path]
        else:
            failed.append({"path": path, "error": "not found"})
    return {"success": not failed, "failed": failed}


def bucket_resolve(hub: FakeHub, request: Request) -> Any:
    from fake_hub.server import Answer

    name, path = request.groups
    file = hub.state.bucket(name).get(path)
    if file is None:
        raise HubError(404, "EntryNotFound", "Entry not found")
    return Answer(200, b"", _xet_headers(file, f"{hub.url}/api/buckets/{name}/xet-read-token"))


def _xet_headers(file: File, route: str) -> dict[str, str]:
    return {
        "ETag": f'"{file.sha256 or file.oid}"',
        "X-Linked-Etag": f'"{file.sha256 or file.oid}"',
        "X-Linked-Size": str(file.size),
        "X-Xet-Hash": file.xet_hash or "",
        "X-Xet-Refresh-Route": route,
        "Link": f'<{route}>; rel="xet-auth"',
    }


def _repository(hub: FakeHub, request: Request) -> Repository:
    return hub.state.repository(request.groups[0], request.groups[1])


def _flag(request: Request, name: str) -> bool:
    return request.query.get(name, [""])[0].lower() in ("true", "1")


def _page(hub: FakeHub, request: Request, entries: list[dict[str, Any]]) -> Any:
    """One page of a listing; the Link header names the next, as the Hub's does."""
    from fake_hub.server import Answer

    start = int(request.query.get("cursor", ["0"])[0])
    stop = start + hub.page_size
    headers = {}
    if stop < len(entries):
        flags = f"recursive={_flag(request, 'recursive')}&cursor={stop}"
        headers["Link"] = f'<{hub.url}{request.path}?{flags}>; rel="next"'
    return Answer.of(entries[start:stop], **headers)


_REPOSITORY = r"/api/(model|dataset)s/([^/]+/[^/]+)"
_BUCKET = r"/api/buckets/([^/]+/[^/]+)"
ROUTES = (
    (r"POST /api/repos/create", create_repository),
    (r"POST /api/validate-yaml", validate_yaml),
    (rf"POST {_REPOSITORY}/branch/([^/]+)", create_branch),
    (rf"GET {_REPOSITORY}(?:/revision/([^/]+))?", repository_info),
    (rf"POST {_REPOSITORY}/preupload/([^/]+)", preupload),
    (rf"POST {_REPOSITORY}/commit/([^/]+)", commit),
    (rf"GET {_REPOSITORY}/tree/([^/]+)(?:/(.+))?", tree),
    (rf"POST {_REPOSITORY}/paths-info/([^/]+)", paths_info),
    (rf"GET {_REPOSITORY}/xet-(?:read|write)-token/[^/]+", xet_token),
    (rf"GET {_BUCKET}/xet-(?:read|write)-token", xet_token),
    (rf"GET {_BUCKET}/tree(?:/(.+))?", bucket_tree),
    (rf"POST {_BUCKET}/paths-info", bucket_paths_info),
    (rf"POST {_BUCKET}/batch", bucket_batch),
    (r"POST /api/buckets/([^/]+)/([^/]+)", create_bucket),
    (r"HEAD /buckets/([^/]+/[^/]+)/resolve/(.+)", bucket_resolve),
    (r"(?:GET|HEAD) /(datasets/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", resolve),
)
