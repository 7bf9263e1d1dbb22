"""OSS's HTTP protocol over the storage."""

from __future__ import annotations

import base64
import hashlib
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qsl, quote, unquote, urlsplit
from xml.etree import ElementTree
from xml.sax.saxutils import escape

from oss_emulator.signing import Key, OssError, Signed, check
from oss_emulator.storage import Bucket, Stored

KEPT = ("content-type", "content-encoding", "cache-control", "content-disposition", "x-oss-storage-class",
        "x-oss-server-side-encryption", "x-oss-server-side-encryption-key-id")  # fmt: skip


@dataclass
class Answer:
    """Status, headers and body. With `sent`, the connection ends after so many bytes of the body."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    sent: int | None = None


@dataclass
class Request:
    """A request whose signature was good."""

    operation: str
    signed: Signed
    body: bytes
    version: str

    @property
    def key(self) -> str:
        return self.signed.key

    @property
    def parameters(self) -> dict[str, str]:
        return self.signed.parameters


class Emulator:
    """The server, as a context manager, on 127.0.0.1 at a port of the system's choice.

    Attributes:
        keys: the AccessKeys that it knows.
        buckets: by name.
        region: what V4 signatures must name.
        accepted: signature versions.
        denied: operations (`PutObject`) that it answers with AccessDenied.
        counts: requests with a good signature, by operation.
        intercept: if set, asked first; what it returns is the answer.
        domains: hosts that are bound to a bucket, with their port.
        log: method, path with query, and headers of every request.
    """

    def __init__(self, port: int = 0, region: str = "cn-test") -> None:
        self.region = region
        self.keys: dict[str, Key] = {}
        self.buckets: dict[str, Bucket] = {}
        self.accepted = {"v1", "v4"}
        self.denied: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.versions: Counter[str] = Counter()
        self.domains: dict[str, str] = {}
        self.intercept: Callable[[Request], Answer | None] | None = None
        self.damage: Callable[[Answer], Answer] | None = None
        self.log: list[tuple[str, str, str]] = []
        self._server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"emulator": self}))

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return "http://{}:{}".format(*self.address)

    def __enter__(self) -> Emulator:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @contextmanager
    def damaged_downloads(self, damage: Callable[[Answer], Answer]) -> Iterator[None]:
        """While it is open, every good answer to GetObject is changed by `damage`."""
        self.damage = damage
        try:
            yield
        finally:
            self.damage = None

    def answer(self, method: str, host: str, target: str, headers: dict[str, str], body: bytes) -> Answer:
        try:
            request = self._read(method, host, target, headers, body)
            self.counts[request.operation] += 1
            self.versions[request.version] += 1
            if self.intercept and (given := self.intercept(request)):
                return given
            if request.operation in self.denied:
                raise OssError(403, "AccessDenied", "You have no permission.")
            _check_md5(headers, body)
            if request.signed.bucket not in self.buckets:
                raise OssError(404, "NoSuchBucket", "The specified bucket does not exist.")
            answer = OPERATIONS[request.operation](self.buckets[request.signed.bucket], request)
            return self.damage(answer) if self.damage and request.operation == "GetObject" else answer
        except OssError as error:
            return _error(error, method)

    def _read(self, method: str, host: str, target: str, headers: dict[str, str], body: bytes) -> Request:
        parts = urlsplit(target)
        host = parts.netloc or host
        path, query = unquote(parts.path).lstrip("/"), parse_qsl(parts.query, keep_blank_values=True)
        if host in self.domains:
            bucket, key = self.domains[host], path
        elif re.search(r"\.oss[\w-]*\.aliyuncs\.com$", host):
            bucket, key = host.split(".")[0], path
        else:
            bucket, _, key = path.partition("/")
        signed = Signed(method, bucket, key, query, headers)
        version = check(signed, self.keys, self.region, self.accepted)
        return Request(_operation(signed), signed, body, version)


def _operation(signed: Signed) -> str:
    asked = signed.parameters
    if not signed.key:
        table = {("GET", "uploads"): "ListMultipartUploads", ("POST", "delete"): "DeleteMultipleObjects"}
        name = next((op for (method, word), op in table.items() if method == signed.method and word in asked), None)
        name = name or ("ListObjectsV2" if asked.get("list-type") == "2" else "ListObjects")
        if name.startswith("ListObjects") and signed.method != "GET":
            raise OssError(501, "NotImplemented", f"{signed.method} of a bucket")
        return name
    if signed.method == "POST" and "uploads" in asked:
        return "InitiateMultipartUpload"
    kind = "Upload" if "uploadId" in asked else "Object"
    table2 = {
        ("PUT", "Upload"): "UploadPart", ("POST", "Upload"): "CompleteMultipartUpload", ("GET", "Upload"): "ListParts",
        ("DELETE", "Upload"): "AbortMultipartUpload", ("PUT", "Object"): "PutObject", ("GET", "Object"): "GetObject",
        ("HEAD", "Object"): "HeadObject", ("DELETE", "Object"): "DeleteObject",
    }  # fmt: skip
    if (signed.method, kind) not in table2:
        raise OssError(405, "MethodNotAllowed", signed.method)
    return table2[signed.method, kind]


def _check_md5(headers: dict[str, str], body: bytes) -> None:
    given = headers.get("content-md5")
    if given and given != base64.b64encode(hashlib.md5(body).digest()).decode():
        raise OssError(400, "InvalidDigest", "The Content-MD5 you specified is not valid for the body.")


def _error(error: OssError, method: str) -> Answer:
    body = _xml("Error", Code=error.code, Message=error.message, RequestId="0" * 24, HostId="emulator")
    if method == "HEAD":
        return Answer(error.status, {"x-oss-err": base64.b64encode(body).decode()})
    return Answer(error.status, {"Content-Type": "application/xml"}, body)


def _xml(root: str, *pieces: str, **fields: object) -> bytes:
    inside = "".join(f"<{name}>{escape(str(value))}</{name}>" for name, value in fields.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}>{inside}{"".join(pieces)}</{root}>'.encode()


def _element(name: str, **fields: object) -> str:
    return f"<{name}>" + "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in fields.items()) + f"</{name}>"


def _about(stored: Stored) -> dict[str, str]:
    return stored.headers | {
        "ETag": stored.etag,
        "x-oss-hash-crc64ecma": str(stored.crc),
        "x-oss-object-type": "Multipart" if "-" in stored.etag else "Normal",
        "Last-Modified": formatdate(stored.modified, usegmt=True),
    }


def _put(bucket: Bucket, request: Request) -> Answer:
    headers = request.signed.headers
    if headers.get("x-oss-forbid-overwrite") == "true" and request.key in bucket.objects:
        raise OssError(409, "FileAlreadyExists", "The object you specified already exists.")
    stored = Stored(request.body, {name: headers[name] for name in KEPT if name in headers})
    bucket.store(request.key, stored)
    return Answer(headers={"ETag": stored.etag, "x-oss-hash-crc64ecma": str(stored.crc)})


def _get(bucket: Bucket, request: Request) -> Answer:
    stored, headers = bucket.object(request.key), request.signed.headers
    if headers.get("if-match", stored.etag).strip('"') != stored.etag.strip('"'):
        raise OssError(412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold.")
    about, size = _about(stored), len(stored.data)
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", headers.get("range", ""))
    if not wanted:
        return Answer(200, about, stored.data)
    start, end = int(wanted[1]), min(int(wanted[2] or size - 1), size - 1)
    if start > end:
        if headers.get("x-oss-range-behavior") == "standard":
            raise OssError(416, "InvalidRange", "The requested range cannot be satisfied.")
        return Answer(200, about, stored.data)
    return Answer(206, about | {"Content-Range": f"bytes {start}-{end}/{size}"}, stored.data[start : end + 1])


def _head(bucket: Bucket, request: Request) -> Answer:
    stored = bucket.object(request.key)
    return Answer(200, _about(stored) | {"Content-Length": str(len(stored.data))})


def _delete(bucket: Bucket, request: Request) -> Answer:
    bucket.delete(request.key)
    return Answer(204)


def _delete_many(bucket: Bucket, request: Request) -> Answer:
    if "content-md5" not in request.signed.headers:
        raise OssError(400, "MissingArgument", "Missing Some Required Arguments: Content-MD5")
    keys = [element.findtext("Key") or "" for element in ElementTree.fromstring(request.body).iter("Object")]
    if len(keys) > 1000:
        raise OssError(400, "MalformedXML", "more than 1000 objects")
    deleted = []
    for key in keys:
        if key not in bucket.protected:
            bucket.delete(key)
            deleted.append(_element("Deleted", Key=quote(key, safe="")))
    return Answer(body=_xml("DeleteResult", "<EncodingType>url</EncodingType>", *deleted))


def _list(bucket: Bucket, request: Request) -> Answer:
    asked, is_v2 = request.parameters, request.operation == "ListObjectsV2"
    count = int(asked.get("max-keys") or 100)
    if not 1 <= count <= 1000:
        raise OssError(400, "InvalidArgument", "max-keys must be 1 to 1000")
    token = asked.get("continuation-token" if is_v2 else "marker") or ""
    after = base64.b64decode(token).decode() if is_v2 and token else token or asked.get("start-after") or ""
    prefix, delimiter = asked.get("prefix", ""), asked.get("delimiter", "")
    keys, folders, following = bucket.names(prefix, delimiter, after, count)
    shown = (lambda text: quote(text, safe="")) if asked.get("encoding-type") == "url" else str
    pieces = []
    for key in keys:
        stored = bucket.objects.get(key)
        if stored is None:  # deleted by another request meanwhile
            continue
        moment = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
        pieces.append(_element("Contents", Key=shown(key), LastModified=moment, ETag=stored.etag, Type="Normal",
                               Size=len(stored.data), StorageClass="Standard"))  # fmt: skip
    pieces += [_element("CommonPrefixes", Prefix=shown(folder)) for folder in folders]
    fields: dict[str, object] = {"Name": "b", "Prefix": shown(prefix), "Delimiter": shown(delimiter), "MaxKeys": count}
    fields |= {"EncodingType": "url"} if shown is not str else {}
    fields |= {"IsTruncated": str(bool(following)).lower(), "KeyCount": len(pieces)}
    if following:
        name = "NextContinuationToken" if is_v2 else "NextMarker"
        fields[name] = base64.b64encode(following.encode()).decode() if is_v2 else shown(following)
    return Answer(body=_xml("ListBucketResult", *pieces, **fields))


def _begin(bucket: Bucket, request: Request) -> Answer:
    headers = request.signed.headers
    upload_id = bucket.begin(request.key, {name: headers[name] for name in KEPT if name in headers})
    fields = {"Bucket": request.signed.bucket, "Key": request.key, "UploadId": upload_id}
    return Answer(body=_xml("InitiateMultipartUploadResult", **fields))


def _put_part(bucket: Bucket, request: Request) -> Answer:
    upload, number = bucket.upload(request.key, request.parameters["uploadId"]), int(request.parameters["partNumber"])
    if not 1 <= number <= 10_000:
        raise OssError(400, "InvalidArgument", "Part number must be an integer between 1 and 10000.")
    part = upload.parts[number] = Stored(request.body)
    return Answer(headers={"ETag": part.etag, "x-oss-hash-crc64ecma": str(part.crc)})


def _complete(bucket: Bucket, request: Request) -> Answer:
    tree = ElementTree.fromstring(request.body)
    parts = [(int(p.findtext("PartNumber") or 0), p.findtext("ETag") or "") for p in tree.iter("Part")]
    stored = bucket.complete(request.key, request.parameters["uploadId"], parts)
    body = _xml("CompleteMultipartUploadResult", Bucket=request.signed.bucket, Key=request.key, ETag=stored.etag)
    return Answer(200, {"ETag": stored.etag, "x-oss-hash-crc64ecma": str(stored.crc)}, body)


def _abort(bucket: Bucket, request: Request) -> Answer:
    bucket.upload(request.key, request.parameters["uploadId"])
    del bucket.uploads[request.parameters["uploadId"]]
    return Answer(204)


def _list_parts(bucket: Bucket, request: Request) -> Answer:
    asked = request.parameters
    upload, count = bucket.upload(request.key, asked["uploadId"]), int(asked.get("max-parts") or 1000)
    numbers = [n for n in sorted(upload.parts) if n > int(asked.get("part-number-marker") or 0)]
    page, more = numbers[:count], len(numbers) > count
    pieces = [
        _element("Part", PartNumber=n, LastModified="2026-01-01T00:00:00.000Z", ETag=upload.parts[n].etag,
                 HashCrc64ecma=upload.parts[n].crc, Size=len(upload.parts[n].data))
        for n in page
    ]  # fmt: skip
    fields = {"Bucket": "b", "Key": request.key, "UploadId": asked["uploadId"], "MaxParts": count}
    fields |= {"NextPartNumberMarker": page[-1] if page else 0, "IsTruncated": str(more).lower()}
    return Answer(body=_xml("ListPartsResult", *pieces, **fields))


def _list_uploads(bucket: Bucket, request: Request) -> Answer:
    asked = request.parameters
    count, marker = (
        int(asked.get("max-uploads") or 1000),
        (asked.get("key-marker", ""), asked.get("upload-id-marker", "")),
    )
    found = sorted(
        (u.key, i, u.started) for i, u in bucket.uploads.items() if u.key.startswith(asked.get("prefix", ""))
    )
    found = [each for each in found if each[:2] > marker]
    page, more = found[:count], len(found) > count
    pieces = [
        _element("Upload", Key=quote(key, safe=""), UploadId=upload_id,
                 Initiated=time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(started)))
        for key, upload_id, started in page
    ]  # fmt: skip
    last = page[-1] if more else ("", "")
    fields = {"Bucket": "b", "EncodingType": "url", "NextKeyMarker": quote(last[0], safe=""), "Prefix": "",
              "NextUploadIdMarker": last[1], "MaxUploads": count, "IsTruncated": str(more).lower()}  # fmt: skip
    return Answer(body=_xml("ListMultipartUploadsResult", *pieces, **fields))


OPERATIONS: dict[str, Callable[[Bucket, Request], Answer]] = {
    "PutObject": _put, "GetObject": _get, "HeadObject": _head, "DeleteObject": _delete, "ListObjects": _list,
    "ListObjectsV2": _list, "DeleteMultipleObjects": _delete_many, "InitiateMultipartUpload": _begin,
    "UploadPart": _put_part, "CompleteMultipartUpload": _complete, "AbortMultipartUpload": _abort,
    "ListParts": _list_parts, "ListMultipartUploads": _list_uploads,
}  # fmt: skip


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that a test breaks are no news."""


class _Handler(BaseHTTPRequestHandler):
    emulator: ClassVar[Emulator]
    protocol_version = "HTTP/1.1"
    wbufsize = 256 * 1024

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def _serve(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self._body(headers)
        if body is None:
            self.close_connection = True
            return
        self.emulator.log.append((self.command, self.path, str(headers)))
        answer = self.emulator.answer(self.command, headers.get("host", ""), self.path, headers, body)
        self.send_response_only(answer.status)
        given = {"Content-Length": str(len(answer.body)), "x-oss-request-id": uuid.uuid4().hex[:24].upper(),
                 "Date": self.date_time_string(), "Server": "emulator"} | answer.headers  # fmt: skip
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: answer.sent])
        self.wfile.flush()
        self.close_connection = self.close_connection or answer.sent is not None

    def _body(self, headers: dict[str, str]) -> bytes | None:
        """The request's body, or None where the client went away in the middle of it."""
        if "chunked" not in headers.get("transfer-encoding", ""):
            size = int(headers.get("content-length") or 0)
            body = self.rfile.read(size) if size else b""
            return body if len(body) == size else None
        pieces = []
        while size := int(self.rfile.readline() or b"0", 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _serve
