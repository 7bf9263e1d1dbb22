"""One pooled client per process and cluster, behind one choke point for retries and errors."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from mlflow_plugkit.errors import mlflow_error
from mlflow_plugkit.logs import get_logger
from mlflow_plugkit.requirements import require
from mlflow_plugkit_elasticsearch.errors import ERRORS, RETRYABLE_STATUS, status_of
from mlflow_plugkit_elasticsearch.settings import CLOUD_HOST, ElasticsearchSettings

DISTRIBUTION = "mlflow-plugkit-elasticsearch"
# Version 8 of the API: clients 8 and 9 may ask for it, and servers 8 and 9 answer it, so that any two of them agree
# (https://www.elastic.co/docs/reference/elasticsearch/rest-apis/compatibility).
JSON = "application/vnd.elasticsearch+json;compatible-with=8"
NDJSON = "application/vnd.elasticsearch+x-ndjson;compatible-with=8"
_lock = threading.Lock()


class Answer(NamedTuple):
    """What Elasticsearch answered.

    Attributes:
        status: the HTTP status.
        body: the parsed JSON; {} where there is none.
        repeated: whether an earlier attempt of this request may have been carried out without an answer.
    """

    status: int
    body: Any
    repeated: bool


class Cluster:
    """A cluster as one process talks to it. `Cluster.of` shares it between stores."""

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self.settings = settings
        self._secrets = _secrets(settings)
        self._client: Any = None
        self._pid = 0
        self._making = threading.Lock()
        self.logger = get_logger("mlflow_plugkit_elasticsearch", self._secrets)

    @classmethod
    def of(cls, settings: ElasticsearchSettings) -> Cluster:
        """The cluster for these settings, made once in this process; nothing is connected yet."""
        with _lock:
            return _cluster(settings)

    def request(
        self,
        method: str,
        path: str,
        operation: str,
        body: Any = None,
        *,
        params: Mapping[str, str] | None = None,
        accepted: Collection[int] = (),
        lines: bool = False,
    ) -> Answer:
        """Send one request; repeat it, with jittered pauses, while the cluster is unreachable or overloaded.

        Every request of this package may be sent twice: documents have ids of their own or a condition.

        Args:
            method: the HTTP method.
            path: as in Elasticsearch's reference, percent-encoded by the caller.
            operation: what is being done, for messages ("search the runs").
            body: what becomes JSON; bytes are sent as they are.
            params: the query.
            accepted: statuses that are answers here, not errors (404, 409).
            lines: the body is newline-delimited JSON.

        Raises:
            MlflowException: as the table in `errors` says.
        """
        content = body if isinstance(body, bytes | None) else dumps(body)
        headers = {"accept": JSON} | ({"content-type": NDJSON if lines else JSON} if content is not None else {})
        tenacity = require("tenacity", distribution=DISTRIBUTION)
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(is_retryable),
            wait=tenacity.wait_random_exponential(multiplier=0.1, max=5.0),
            stop=tenacity.stop_after_delay(self.settings.retry_for),
            before_sleep=self._report,
            reraise=True,
        )
        repeated = False
        with ERRORS.applied(operation, self._secrets):
            for attempt in retrying:
                with attempt:
                    repeated = attempt.retry_state.attempt_number > 1
                    status, answer = self._send(method, path, params, headers, content, accepted)
        return Answer(status, answer, repeated)

    def _send(
        self,
        method: str,
        path: str,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str],
        content: bytes | None,
        accepted: Collection[int],
    ) -> tuple[int, Any]:
        try:
            response = self.client.perform_request(method, path, params=params, headers=headers, body=content)
        except Exception as exc:
            status = status_of(exc)
            if status is None or status not in accepted:
                raise
            body = getattr(exc, "body", None)
            return status, body if isinstance(body, dict) else {}
        if not isinstance(response.body, dict):
            transport = require("elastic_transport", distribution=DISTRIBUTION)
            raise transport.SerializationError(f"The answer is no JSON object: {str(response.body)[:200]!r}")
        return response.meta.status, response.body

    def _report(self, state: Any) -> None:
        error = state.outcome.exception()
        self.logger.warning(
            "Elasticsearch: attempt %d failed (%s), the next one in %.1f s",
            state.attempt_number,
            str(error) or type(error).__name__,
            state.next_action.sleep,
        )

    @property
    def client(self) -> Any:
        """The official client, made on first use and anew after a fork."""
        if self._pid != os.getpid():
            with self._making:
                if self._pid != os.getpid():
                    self._client, self._pid = _make(self.settings), os.getpid()
        return self._client


def is_retryable(exc: BaseException) -> bool:
    """Whether the same request may succeed a moment later: no connection, no answer, or an overloaded cluster."""
    names = {f"{c.__module__.partition('.')[0]}.{c.__name__}" for c in type(exc).__mro__}
    if "elastic_transport.TlsError" in names:
        return False
    unanswered = {"elastic_transport.ConnectionError", "elastic_transport.ConnectionTimeout"}
    return bool(names & unanswered) or status_of(exc) in RETRYABLE_STATUS


def dumps(value: Any) -> bytes:
    """JSON as Elasticsearch takes it.

    Raises:
        MlflowException: `INVALID_PARAMETER_VALUE` for what JSON cannot hold, such as half a surrogate pair.
    """
    import orjson  # not at the top: the tables of the READMEs are made where only the settings can be imported

    try:
        return orjson.dumps(value)
    except TypeError as exc:
        raise mlflow_error(f"The value cannot be stored: {exc}. Use valid Unicode text and 64-bit numbers.") from None


@lru_cache(maxsize=32)
def _cluster(settings: ElasticsearchSettings) -> Cluster:
    return Cluster(settings)


def _make(settings: ElasticsearchSettings) -> Any:
    elasticsearch = require("elasticsearch", distribution=DISTRIBUTION)
    arguments: dict[str, Any] = {
        "request_timeout": settings.timeout,
        "max_retries": 0,
        "retry_on_status": (),
        "connections_per_node": settings.connections,
        "http_compress": not settings.is_loopback,
        "serializers": _serializers(),
    }
    for name in ("api_key", "bearer_token"):
        secret = getattr(settings, name)
        if secret:
            arguments["bearer_auth" if name == "bearer_token" else name] = secret.get_secret_value()
    if settings.username and settings.password:
        arguments["basic_auth"] = _basic(settings.username, settings.password.get_secret_value())
    if settings.uses_tls:
        if settings.ca_file:
            arguments["ca_certs"] = settings.ca_file
        if settings.fingerprint:
            arguments["ssl_assert_fingerprint"] = settings.fingerprint
    if settings.address.host == CLOUD_HOST:
        arguments["cloud_id"] = settings.cloud_id
    else:
        arguments["hosts"] = settings.urls
    with ERRORS.applied("set up the connection", _secrets(settings)):
        return elasticsearch.Elasticsearch(**arguments)


def _basic(username: str, password: str) -> str:
    """Credentials as RFC 7617 encodes them; the official client takes only ASCII."""
    return base64.b64encode(f"{username}:{password}".encode()).decode()


def _secrets(settings: ElasticsearchSettings) -> tuple[str, ...]:
    """What must not be shown, also in the form in which it is sent."""
    held = settings.secrets()
    if settings.username and settings.password:
        held += (_basic(settings.username, settings.password.get_secret_value()),)
    return held


def _serializers() -> dict[str, Any]:
    """Orjson for what comes back: a page of a thousand runs is megabytes of JSON.

    What is no JSON, such as a proxy's page of HTML, stays a text: its status decides what becomes of it.
    """
    import orjson

    base = require("elasticsearch", distribution=DISTRIBUTION).JsonSerializer

    class Orjson(base):  # type: ignore[misc, valid-type] # imported lazily
        mimetype = "application/json"

        def loads(self, data: bytes) -> Any:
            try:
                return orjson.loads(data)
            except orjson.JSONDecodeError:
                return data.decode(errors="replace")

    answered = ("application/json", "application/vnd.elasticsearch+json", "text/html", "text/plain", "text/xml")
    return dict.fromkeys(answered, Orjson())
