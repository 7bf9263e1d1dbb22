"""A minimal correct artifact repository in a local folder, with every mixin; the broken ones derive from it.

Its presigned URLs point at an `ObjectServer`, whose address stands in FOLDER_ARTIFACTS_ENDPOINT.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from mlflow.entities import FileInfo
from mlflow.store.artifact.artifact_repo import ArtifactRepository

from mlflow_plugkit.compat import artifact_mixins, init_artifact_repository
from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.uri import validate_path

ENDPOINT = "FOLDER_ARTIFACTS_ENDPOINT"
TOKEN = "FOLDER_ARTIFACTS_TOKEN"
PART = ".plugkit-part-"


class FolderRepository(ArtifactRepository):
    def __init__(self, artifact_uri, tracking_uri=None, registry_uri=None, **_):
        init_artifact_repository(self, ArtifactRepository, artifact_uri, tracking_uri, registry_uri)
        self.root = Path(unquote(urlsplit(artifact_uri).path))

    def local(self, path):
        # MLflow's client ends the path of a whole run with a slash.
        path = path.rstrip("/") if path and path != "/" else path
        return self.root / validate_path(path) if path else self.root

    def path_in(self, artifact_path, name):
        return self.local(f"{artifact_path}/{name}" if artifact_path else name)

    def write(self, target, chunks):
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f"{PART}{uuid.uuid4().hex}"
        try:
            with part.open("wb") as file:
                for chunk in chunks:
                    file.write(chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def read(self, path):
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk

    def log_artifact(self, local_file, artifact_path=None):
        target = self.path_in(artifact_path, os.path.basename(local_file))
        if not os.path.isfile(local_file):
            raise mlflow_error(f"No such local file: {local_file}", "RESOURCE_DOES_NOT_EXIST")
        self.write(target, self.read(Path(local_file)))

    def log_artifacts(self, local_dir, artifact_path=None):
        if artifact_path:
            validate_path(artifact_path)
        if not os.path.isdir(local_dir):
            raise mlflow_error(f"No such local folder: {local_dir}", "RESOURCE_DOES_NOT_EXIST")
        for folder, _, names in os.walk(local_dir):
            inside = Path(folder).relative_to(local_dir).as_posix()
            parts = [part for part in (artifact_path, inside) if part and part != "."]
            for name in names:
                self.log_artifact(os.path.join(folder, name), "/".join(parts) or None)

    def list_artifacts(self, path=None):
        folder = self.local(path)
        if not folder.is_dir():
            return []
        infos = [
            FileInfo(p.relative_to(self.root).as_posix(), p.is_dir(), None if p.is_dir() else p.stat().st_size)
            for p in folder.iterdir()
            if not p.name.startswith(PART)
        ]
        return sorted(infos, key=lambda info: info.path)

    def _download_file(self, remote_file_path, local_path):
        source = self.local(remote_file_path)
        if not source.is_file():
            raise mlflow_error(f"No such artifact: {remote_file_path}", "RESOURCE_DOES_NOT_EXIST")
        size = source.stat().st_size
        part = Path(f"{local_path}.part")
        try:
            with part.open("wb") as file:
                for chunk in self.transfer(source):
                    file.write(chunk)
            if part.stat().st_size != size or not self.same(source, part):
                raise mlflow_error(f"{remote_file_path} arrived incomplete or changed. Try again.", "DATA_LOSS")
            part.replace(local_path)
        finally:
            part.unlink(missing_ok=True)

    def transfer(self, source):
        return self.read(source)

    def same(self, source, part):
        return all(a == b for a, b in zip(self.read(source), self.read(part), strict=True))

    def delete_artifacts(self, artifact_path=None):
        target = self.local(artifact_path)
        if target.is_file():
            target.unlink()
        elif target.is_dir():
            shutil.rmtree(target)


class _Uploads:
    def create_multipart_upload(self, local_file, num_parts, artifact_path=None):
        from mlflow.entities.multipart_upload import CreateMultipartUploadResponse, MultipartUploadCredential

        self.path_in(artifact_path, os.path.basename(local_file))
        upload_id = uuid.uuid4().hex
        self.parts(upload_id).mkdir(parents=True)
        urls = [presigned(self.parts(upload_id) / str(n)) for n in range(1, num_parts + 1)]
        return CreateMultipartUploadResponse(
            upload_id, [MultipartUploadCredential(url=url, part_number=n + 1, headers={}) for n, url in enumerate(urls)]
        )

    def parts(self, upload_id):
        return self.root.parent / f"{PART}{upload_id}"

    def complete_multipart_upload(self, local_file, upload_id, parts, artifact_path=None):
        folder = self.parts(upload_id)
        if not folder.is_dir():
            raise mlflow_error(f"No such upload: {upload_id}", "RESOURCE_DOES_NOT_EXIST")
        ordered = sorted(part.part_number for part in parts)
        content = (chunk for number in ordered for chunk in self.read(folder / str(number)))
        self.write(self.path_in(artifact_path, os.path.basename(local_file)), content)
        shutil.rmtree(folder)

    def abort_multipart_upload(self, local_file, upload_id, artifact_path=None):
        shutil.rmtree(self.parts(upload_id), ignore_errors=True)


class _Presigned:
    def get_download_presigned_url(self, artifact_path, expiration=300):
        from mlflow.entities.presigned_download import PresignedDownloadUrlResponse

        source = self.local(validate_path(artifact_path))
        return PresignedDownloadUrlResponse(url=presigned(source), headers={}, file_size=source.stat().st_size)

    def create_presigned_upload_url(self, artifact_path, expiration=900):
        from mlflow.entities.presigned_upload import CreatePresignedUploadResponse

        return CreatePresignedUploadResponse(
            presigned_url=presigned(self.local(validate_path(artifact_path))), headers={}
        )


class _Streams:
    def log_artifact_from_stream(self, stream, artifact_file_name, artifact_path=None):
        target = self.path_in(artifact_path, os.path.basename(artifact_file_name))
        self.write(target, iter(lambda: stream.read(1 << 20), b""))

    async def log_artifact_from_async_stream(self, chunks, artifact_file_name, artifact_path=None):
        target = self.path_in(artifact_path, os.path.basename(artifact_file_name))
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent / f"{PART}{uuid.uuid4().hex}"
        try:
            with part.open("wb") as file:
                async for chunk in chunks:
                    await asyncio.to_thread(file.write, chunk)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)


_MIXINS = artifact_mixins()


class FullRepository(FolderRepository, _Uploads, _Presigned, _Streams, *_MIXINS.values()):
    """The folder with all the mixins that this MLflow has."""


def presigned(path):
    return f"{os.environ[ENDPOINT]}{quote(path.as_posix())}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        path = Path(unquote(self.path))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.rfile.read(int(self.headers["Content-Length"])))
        self.answer(200, b"")

    def do_GET(self):
        path = Path(unquote(self.path))
        if not path.is_file():
            self.answer(404, b"")
            return
        content = path.read_bytes()
        wanted = self.headers.get("Range")
        if wanted is None:
            self.answer(200, content)
            return
        first, last = wanted.removeprefix("bytes=").split("-")
        self.answer(206, content[int(first) : int(last) + 1])

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", '"etag"')
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@contextmanager
def object_server() -> Iterator[str]:
    """Serve PUT and GET of local files on loopback: what presigned URLs point at."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
