"""The driver over alibabacloud-oss-v2, the successor of oss2. Only this module imports it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

import alibabacloud_oss_v2 as oss

from mlflow_oss_artifacts.credentials import CredentialSource
from mlflow_oss_artifacts.driver import Begun, Entry, Headers, Listing, SentPart
from mlflow_oss_artifacts.settings import OssSettings
from mlflow_oss_artifacts.transport import CHUNK, Body, make_session

LONGEST_SECONDS = 7 * 24 * 3600
"""The most that a V4 URL may live."""


class V2Driver:
    """See `mlflow_oss_artifacts.driver.Driver`. The SDK's retries and CRC adapters are off: the engine has its own."""

    def __init__(self, settings: OssSettings, credentials: CredentialSource) -> None:
        def current() -> Any:
            now = credentials.get()
            return oss.credentials.Credentials(now.key_id, now.key_secret, now.token)

        self._session = make_session(settings)
        self._bucket = settings.bucket
        self._client = oss.Client(
            oss.config.Config(
                region=settings.signing_region or "",
                endpoint=settings.endpoint_url,
                signature_version=settings.signature,
                credentials_provider=oss.credentials.CredentialsProviderFunc(current),
                retry_max_attempts=1,
                http_client=oss.transport.RequestsHttpClient(
                    session=self._session,
                    connect_timeout=settings.connect_timeout,
                    readwrite_timeout=settings.read_timeout,
                ),
                use_cname=settings.address_style == "cname",
                use_path_style=settings.address_style == "path",
                disable_upload_crc64_check=True,
                disable_download_crc64_check=True,
            )
        )

    def put(self, key: str, body: Body, headers: Headers) -> Headers:
        request = oss.PutObjectRequest(bucket=self._bucket, key=key, body=body, headers=headers)
        answer: Headers = self._client.put_object(request).headers
        return answer

    def get(self, key: str, headers: Headers) -> tuple[int, Headers, Iterator[bytes]]:
        found = self._client.get_object(oss.GetObjectRequest(bucket=self._bucket, key=key, headers=headers))
        return found.status_code, found.headers, _chunks(found.body)

    def head(self, key: str) -> Headers:
        answer: Headers = self._client.head_object(oss.HeadObjectRequest(bucket=self._bucket, key=key)).headers
        return answer

    def list(self, prefix: str, delimiter: str, token: str | None, count: int) -> Listing:
        page = self._client.list_objects_v2(
            oss.ListObjectsV2Request(
                bucket=self._bucket,
                prefix=prefix,
                delimiter=delimiter or None,
                continuation_token=token,
                max_keys=count,
            )
        )
        entries = [Entry(each.key, each.size, each.etag) for each in page.contents or ()]
        folders = [each.prefix for each in page.common_prefixes or ()]
        return Listing(entries, folders, page.next_continuation_token if page.is_truncated else None)

    def delete(self, key: str) -> None:
        self._client.delete_object(oss.DeleteObjectRequest(bucket=self._bucket, key=key))

    def delete_many(self, keys: Sequence[str]) -> Iterable[str]:
        objects = [oss.DeleteObject(key=key) for key in keys]
        request = oss.DeleteMultipleObjectsRequest(bucket=self._bucket, objects=objects, quiet=False)
        return [each.key for each in self._client.delete_multiple_objects(request).deleted_objects or ()]

    def begin(self, key: str, headers: Headers) -> str:
        request = oss.InitiateMultipartUploadRequest(bucket=self._bucket, key=key, headers=headers)
        return str(self._client.initiate_multipart_upload(request).upload_id)

    def put_part(self, key: str, upload_id: str, number: int, body: Body, headers: Headers) -> Headers:
        request = oss.UploadPartRequest(
            bucket=self._bucket, key=key, upload_id=upload_id, part_number=number, body=body, headers=headers
        )
        answer: Headers = self._client.upload_part(request).headers
        return answer

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart]) -> Headers:
        sent = [oss.UploadPart(part_number=part.number, etag=part.etag) for part in parts]
        request = oss.CompleteMultipartUploadRequest(
            bucket=self._bucket,
            key=key,
            upload_id=upload_id,
            complete_multipart_upload=oss.CompleteMultipartUpload(parts=sent),
        )
        answer: Headers = self._client.complete_multipart_upload(request).headers
        return answer

    def abort(self, key: str, upload_id: str) -> None:
        self._client.abort_multipart_upload(
            oss.AbortMultipartUploadRequest(bucket=self._bucket, key=key, upload_id=upload_id)
        )

    def parts(self, key: str, upload_id: str) -> Iterator[SentPart]:
        pages = self._client.list_parts_paginator()
        for page in pages.iter_page(oss.ListPartsRequest(bucket=self._bucket, key=key, upload_id=upload_id)):
            for part in page.parts or ():
                yield SentPart(part.part_number, part.etag, part.size)

    def uploads(self, prefix: str) -> Iterator[Begun]:
        pages = self._client.list_multipart_uploads_paginator()
        request = oss.ListMultipartUploadsRequest(bucket=self._bucket, prefix=prefix, max_uploads=1000)
        for page in pages.iter_page(request):
            for found in page.uploads or ():
                yield Begun(found.key, found.upload_id, _timestamp(found.initiated))

    def presign(self, method: str, key: str, seconds: int, headers: Headers, query: Mapping[str, str]) -> str:
        kinds = {"GET": oss.GetObjectRequest, "PUT": oss.PutObjectRequest}
        if "uploadId" in query:
            request = oss.UploadPartRequest(
                bucket=self._bucket, key=key, upload_id=query["uploadId"], part_number=int(query["partNumber"])
            )
        else:
            request = kinds[method](bucket=self._bucket, key=key, headers=dict(headers))
        # The SDK counts from a moment ago and cuts off the fraction of a second that has passed since.
        expires = timedelta(seconds=seconds + 1 if seconds < LONGEST_SECONDS else seconds)
        return str(self._client.presign(request, expires=expires).url)

    def close(self) -> None:
        self._session.close()


def _chunks(body: Any) -> Iterator[bytes]:
    try:
        yield from body.iter_bytes(block_size=CHUNK)
    finally:
        body.close()


def _timestamp(moment: datetime | str) -> float:
    if isinstance(moment, str):
        moment = datetime.strptime(moment, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=timezone.utc)
    return moment.timestamp()
