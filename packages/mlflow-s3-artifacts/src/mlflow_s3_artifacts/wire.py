"""Requests that boto3 signs and that are sent without it: large uploads from a file, and listings.

boto3 spends milliseconds in each call and, over plain HTTP, hashes all that it sends; a presigned request needs
neither. Errors are botocore's own, so that one table knows them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, BinaryIO
from xml.etree import ElementTree

from mlflow_plugkit.artifacts.backend import Digest, Page, Source, StoredObject
from mlflow_plugkit.collector import collector_paused
from mlflow_s3_artifacts.client import Connection
from mlflow_s3_artifacts.objects import MD5_ETAG

SECONDS = 3600
_BLOCK = 256 * 1024


class _Body:
    """A reader that hands out larger blocks than the 16 KiB that HTTP libraries ask for."""

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader

    def read(self, _: int = -1) -> bytes:
        return self._reader.read(_BLOCK)


def upload(connection: Connection, operation: str, arguments: Mapping[str, Any], source: Source) -> Mapping[str, str]:
    """Send a source of known size with `put_object` or `upload_part`; the headers (in lower case) of the answer."""
    headers = signed_headers(connection, operation, arguments)
    url = presigned(connection, operation, arguments, SECONDS)
    with source.open() as reader:
        body = _Body(reader) if source.size else b""
        response = _send(connection, "PUT", url, headers | {"Content-Length": str(source.size)}, body)
    return _succeeded(response, operation)[0]


def list_page(connection: Connection, arguments: Mapping[str, Any], cut: int, md5_etags: bool) -> Page:
    """One page of `list_objects_v2`.

    Args:
        connection: to the service.
        arguments: boto3's.
        cut: characters of each key, the root's prefix, that are left out.
        md5_etags: whether an ETag that looks like an MD5 may be taken for one (see `objects.md5_of_etag`).
    """
    headers = signed_headers(connection, "list_objects_v2", arguments)
    url = presigned(connection, "list_objects_v2", dict(arguments) | {"EncodingType": "url"}, SECONDS)
    _, content = _succeeded(_send(connection, "GET", url, headers), "list_objects_v2")
    with collector_paused():
        return _parse_page(content, cut, md5_etags)


def presigned(connection: Connection, operation: str, arguments: Mapping[str, Any], seconds: int) -> str:
    """The URL that boto3 presigns for an operation."""
    url = connection.client.generate_presigned_url(operation, Params=dict(arguments), ExpiresIn=seconds)
    return str(url)


def signed_headers(connection: Connection, operation: str, arguments: Mapping[str, Any]) -> dict[str, str]:
    """The headers that must be sent with a presigned URL: those that carry arguments in S3's own model."""
    client = connection.client
    model = client.meta.service_model.operation_model(client.meta.method_to_api_mapping[operation])
    headers: dict[str, str] = {}
    for name, value in arguments.items():
        where = model.input_shape.members[name].serialization
        if where.get("location") == "header":
            headers[where["name"]] = str(value)
        elif where.get("location") == "headers":
            headers |= {f"{where['name']}{key}": text for key, text in value.items()}
    return headers


def client_error(operation: str, status: int, headers: Mapping[str, str], body: bytes) -> Exception:
    """Make botocore's ClientError for an answer that it did not see itself."""
    from botocore.exceptions import ClientError

    text = body.decode(errors="replace")
    code, message = (re.search(rf"<{tag}>([^<]*)</{tag}>", text) for tag in ("Code", "Message"))
    error = {"Code": code[1] if code else str(status), "Message": message[1] if message else f"HTTP {status}"}
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": dict(headers)}
    made: Exception = ClientError({"Error": error, "ResponseMetadata": metadata}, operation)
    return made


def _send(connection: Connection, method: str, url: str, headers: Mapping[str, str], body: Any = b"") -> Any:
    from botocore.awsrequest import AWSRequest

    return connection.http.send(AWSRequest(method, url, headers, body).prepare())


def _succeeded(response: Any, operation: str) -> tuple[Mapping[str, str], bytes]:
    headers = {name.lower(): value for name, value in response.headers.items()}
    content = response.content
    if response.status_code != 200:
        raise client_error(operation, response.status_code, headers, content)
    return headers, content


def _parse_page(content: bytes, cut: int, md5_etags: bool) -> Page:
    from botocore.compat import unquote_str
    from botocore.parsers import ResponseParserError

    try:
        root = ElementTree.fromstring(content)  # noqa: S314 # as botocore reads it; expat bounds entities since 2.4.1
    except ElementTree.ParseError as exc:
        raise ResponseParserError(f"the service's listing is no XML: {exc}") from None
    space = root.tag.removesuffix("ListBucketResult")
    if space == root.tag:
        raise ResponseParserError("the service's answer is no listing")
    encoded = root.findtext(f"{space}EncodingType") == "url"

    def name(text: str | None) -> str:
        decoded = unquote_str(text or "") if encoded else text or ""
        return str(decoded)[cut:]

    objects = []
    contents, key, size, etag = (f"{space}{tag}" for tag in ("Contents", "Key", "Size", "ETag"))
    for entry in root:
        if entry.tag == contents:
            found = {field.tag: field.text for field in entry}
            version = found.get(etag)
            match = MD5_ETAG.fullmatch(version) if version and md5_etags else None
            digest = Digest("md5", match[1]) if match else None
            objects.append(StoredObject(name(found.get(key)), int(found.get(size) or 0), version, digest))
    folders = [name(entry.findtext(f"{space}Prefix")) for entry in root.iterfind(f"{space}CommonPrefixes")]
    more = root.findtext(f"{space}IsTruncated") == "true"
    token = root.findtext(f"{space}NextContinuationToken") if more else None
    if more and not token:
        raise ResponseParserError("the service's listing breaks off without saying where it goes on")
    return Page(objects, [folder.removesuffix("/") for folder in folders], token)
