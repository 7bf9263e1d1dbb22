"""The driver over oss2, the vendor's first Python SDK. Only this module imports it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import oss2
from oss2.credentials import Credentials as Oss2Credentials
from oss2.credentials import CredentialsProvider
from oss2.models import PartInfo

from mlflow_oss_artifacts.credentials import CredentialSource
from mlflow_oss_artifacts.driver import Begun, Entry, Headers, Listing, SentPart
from mlflow_oss_artifacts.settings import OssSettings
from mlflow_oss_artifacts.transport import CHUNK, Body, make_session


class _Provider(CredentialsProvider):  # type: ignore[misc] # oss2 is untyped
    def __init__(self, source: CredentialSource) -> None:
        self._source = source

    def get_credentials(self) -> Any:
        now = self._source.get()
        return Oss2Credentials(now.key_id, now.key_secret, now.token or "")


class Oss2Driver:
    """See `mlflow_oss_artifacts.driver.Driver`. oss2's own CRC adapters are off: the backend checks content."""

    def __init__(self, settings: OssSettings, credentials: CredentialSource) -> None:
        sign = oss2.ProviderAuthV4 if settings.signature == "v4" else oss2.ProviderAuth
        session = oss2.Session()
        session.session = make_session(settings)
        self._session = session.session
        self._bucket = oss2.Bucket(
            sign(_Provider(credentials)),
            settings.endpoint_url,
            settings.bucket,
            is_cname=settings.address_style == "cname",
            is_path_style=settings.address_style == "path",
            session=session,
            connect_timeout=(settings.connect_timeout, settings.read_timeout),
            enable_crc=False,
            region=settings.signing_region,
        )

    def put(self, key: str, body: Body, headers: Headers) -> Headers:
        answer: Headers = self._bucket.put_object(key, body, headers).headers
        return answer

    def get(self, key: str, headers: Headers) -> tuple[int, Headers, Iterator[bytes]]:
        found = self._bucket.get_object(key, headers=headers)
        # oss2 has read an empty content already, and requests would not let it be read again.
        return found.status, found.headers, _chunks(found.resp.response) if found.content_length != 0 else iter(())

    def head(self, key: str) -> Headers:
        answer: Headers = self._bucket.head_object(key).headers
        return answer

    def list(self, prefix: str, delimiter: str, token: str | None, count: int) -> Listing:
        page = self._bucket.list_objects_v2(prefix, delimiter, continuation_token=token or "", max_keys=count)
        entries = [Entry(each.key, each.size, each.etag) for each in page.object_list]
        return Listing(entries, page.prefix_list, page.next_continuation_token if page.is_truncated else None)

    def delete(self, key: str) -> None:
        self._bucket.delete_object(key)

    def delete_many(self, keys: Sequence[str]) -> Iterable[str]:
        deleted: Iterable[str] = self._bucket.batch_delete_objects(list(keys)).deleted_keys
        return deleted

    def begin(self, key: str, headers: Headers) -> str:
        return str(self._bucket.init_multipart_upload(key, headers=headers).upload_id)

    def put_part(self, key: str, upload_id: str, number: int, body: Body, headers: Headers) -> Headers:
        answer: Headers = self._bucket.upload_part(key, upload_id, number, body, headers=headers).headers
        return answer

    def complete(self, key: str, upload_id: str, parts: Sequence[SentPart]) -> Headers:
        sent = [PartInfo(part.number, part.etag.strip('"')) for part in parts]
        answer: Headers = self._bucket.complete_multipart_upload(key, upload_id, sent).headers
        return answer

    def abort(self, key: str, upload_id: str) -> None:
        self._bucket.abort_multipart_upload(key, upload_id)

    def parts(self, key: str, upload_id: str) -> Iterator[SentPart]:
        for part in oss2.PartIterator(self._bucket, key, upload_id, max_retries=1):
            yield SentPart(part.part_number, part.etag, part.size)

    def uploads(self, prefix: str) -> Iterator[Begun]:
        for found in oss2.MultipartUploadIterator(self._bucket, prefix=prefix, max_retries=1):
            if found.upload_id:
                yield Begun(found.key, found.upload_id, float(found.initiation_date))

    def presign(self, method: str, key: str, seconds: int, headers: Headers, query: Mapping[str, str]) -> str:
        url = self._bucket.sign_url(method, key, seconds, dict(headers), dict(query), slash_safe=True)
        return str(url)

    def close(self) -> None:
        self._session.close()


def _chunks(answer: Any) -> Iterator[bytes]:
    """The content in large chunks; oss2's own iterator takes 8 KiB at a time."""
    try:
        yield from answer.iter_content(CHUNK)
    finally:
        answer.close()
