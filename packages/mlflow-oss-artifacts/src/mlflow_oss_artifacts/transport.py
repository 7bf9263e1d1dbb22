"""The HTTP session that both SDKs send through.

Both take a `requests` session or what looks like one. This one has as many kept connections as there are
parallel transfers, reads the proxies of the environment once instead of at each request, never looks
into a .netrc (which would replace the signature), follows no redirect, and leaves content as it is
stored where `requests` would unpack it.
"""

from __future__ import annotations

from email.utils import formatdate
from typing import Any, BinaryIO

import requests
from requests.adapters import HTTPAdapter
from requests.utils import get_environ_proxies

from mlflow_oss_artifacts.settings import OssSettings

Body = bytes | BinaryIO
BLOCK = 256 * 1024
"""Bytes of a file that are read and sent at once."""
CHUNK = 1024 * 1024
"""Bytes of a content that a read hands over at once."""


class _Adapter(HTTPAdapter):
    def __init__(self, settings: OssSettings) -> None:
        self._verify = settings.ca_file or True
        super().__init__(pool_connections=4, pool_maxsize=settings.parallel, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs, blocksize=BLOCK)

    def send(  # type: ignore[override] # narrowed to what the session passes
        self,
        request: requests.PreparedRequest,
        stream: bool = False,
        timeout: Any = None,
        verify: bool | str = True,
        cert: Any = None,
        proxies: dict[str, str] | None = None,
    ) -> requests.Response:
        answer = super().send(request, stream, timeout, self._verify, cert, proxies)
        answer.raw.headers.pop("Content-Encoding", None)
        # alibabacloud-oss-v2 cannot read an error that has no Date, as those of proxies on the way may be.
        answer.headers.setdefault("Date", formatdate(usegmt=True))
        return answer


def make_session(settings: OssSettings) -> requests.Session:
    """A session for the settings' endpoint. It has no connection yet."""
    session = requests.Session()
    session.trust_env = False
    session.max_redirects = 0
    session.proxies = get_environ_proxies(settings.endpoint_url)
    adapter = _Adapter(settings)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
