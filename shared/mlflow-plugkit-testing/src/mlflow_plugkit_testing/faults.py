"""A loopback proxy that breaks what passes through it, in front of any real server.

    with FaultProxy("127.0.0.1", 8333) as proxy:
        with proxy.inject(Fault("status", status=503, retry_after=1)) as injected:
            client_of(proxy.address).upload(...)
        assert injected.hits == 1

HTTP/1.1 is understood request by request: a fault strikes one request, and one that touches a body
strikes only bodies of at least `Fault.least_body` bytes, so that it hits content rather than listings.
With `protocol="tcp"` (databases) bytes are passed on as they come: a fault strikes one connection.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Literal

if TYPE_CHECKING:
    from typing_extensions import Self

Kind = Literal[
    "drop", "delay", "status", "cut-request", "cut-response", "lost-answer", "corrupt-request", "corrupt-response"
]
BLOCK = 64 * 1024
PATIENCE_SECONDS = 30.0
LINE_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Fault:
    """One way to break a request.

    Attributes:
        kind: `drop` closes the connection before anything is passed on; `delay` waits; `status` answers
            instead of the server; `cut-request` and `cut-response` close the connection in the middle of a
            body; `lost-answer` lets the server do the work and closes instead of passing its answer on;
            `corrupt-request` and `corrupt-response` change one byte in the middle of a body.
        status: the HTTP status of `status`.
        retry_after: seconds for its Retry-After header, or None.
        seconds: how long `delay` waits.
        times: how many requests it strikes, or None for all.
        methods: the HTTP methods it strikes; empty strikes all.
        least_body: bytes; smaller bodies are not cut or corrupted. For `tcp`, the offset in the stream.
    """

    kind: Kind
    status: int = 503
    retry_after: float | None = None
    seconds: float = 1.0
    times: int | None = 1
    methods: tuple[str, ...] = ()
    least_body: int = 1024

    def __str__(self) -> str:
        shown = f"{self.kind}-{self.status}" if self.kind == "status" else self.kind
        return shown if self.retry_after is None else f"{shown}-retry-after"


class Injected:
    """A fault in force: `hits` counts the requests that it struck."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.hits = 0
        self._lock = threading.Lock()

    def strikes(self, method: str) -> bool:
        """Take this request, if the fault is for it and not used up."""
        if self.fault.methods and method not in self.fault.methods:
            return False
        with self._lock:
            if self.fault.times is not None and self.hits >= self.fault.times:
                return False
            self.hits += 1
            return True


class FaultProxy:
    """The proxy, as a context manager; it listens on 127.0.0.1 at a port of the system's choice.

    Args:
        host, port: the real server.
        protocol: `http` (HTTP/1.1 without TLS), or `tcp` for anything else.
    """

    def __init__(self, host: str, port: int, protocol: Literal["http", "tcp"] = "http") -> None:
        self.upstream = (host, port)
        self._serve = _serve_http if protocol == "http" else _serve_tcp
        self._injected: list[Injected] = []
        self._sockets: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._closing = False
        self.requests = 0

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def address(self) -> str:
        """`127.0.0.1:<port>`."""
        return f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.disconnect()

    @contextmanager
    def inject(self, fault: Fault) -> Iterator[Injected]:
        """Put a fault in force for the length of the block, and end the connections that it left behind."""
        injected = Injected(fault)
        with self._lock:
            self._injected.append(injected)
        try:
            yield injected
        finally:
            with self._lock:
                self._injected.remove(injected)

    def disconnect(self) -> None:
        """Close every connection that passes through now."""
        with self._lock:
            sockets = list(self._sockets)
        for connection in sockets:
            _close(connection)

    def strike(self, method: str, kinds: tuple[str, ...], body: int | None = None) -> Fault | None:
        """The fault of one of these kinds that strikes now, or None. `body` is the bytes it would touch."""
        with self._lock:
            candidates = [i for i in self._injected if i.fault.kind in kinds]
        for injected in candidates:
            if (body is None or body >= injected.fault.least_body) and injected.strikes(method):
                return injected.fault
        return None

    def connect(self) -> socket.socket:
        """A connection to the real server."""
        connection = socket.create_connection(self.upstream, timeout=PATIENCE_SECONDS)
        self._track(connection)
        return connection

    def _track(self, connection: socket.socket) -> None:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with self._lock:
            self._sockets.add(connection)

    def _forget(self, connection: socket.socket) -> None:
        _close(connection)
        with self._lock:
            self._sockets.discard(connection)

    def _accept(self) -> None:
        while not self._closing:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            client.settimeout(PATIENCE_SECONDS)
            self._track(client)
            threading.Thread(target=self._run, args=(client,), daemon=True).start()

    def _run(self, client: socket.socket) -> None:
        server: socket.socket | None = None
        try:
            server = self.connect()
            self._serve(self, client, server)
        except (OSError, ValueError):
            pass
        finally:
            for connection in filter(None, (client, server)):
                self._forget(connection)


class _CutError(OSError):
    """The connection is to be closed here."""


@dataclass
class _Head:
    """The start line and headers of an HTTP message, as they came."""

    raw: bytes
    start: str
    headers: dict[str, str]

    @property
    def length(self) -> int | None:
        value = self.headers.get("content-length")
        return int(value) if value is not None else None

    @property
    def is_chunked(self) -> bool:
        return "chunked" in self.headers.get("transfer-encoding", "").lower()

    def without(self, name: str) -> bytes:
        lines = self.raw.split(b"\r\n")
        return b"\r\n".join(line for line in lines if line.partition(b":")[0].strip().lower() != name.encode())


def _serve_http(proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
    from_client, from_server = client.makefile("rb"), server.makefile("rb")
    with from_client, from_server:
        while head := _read_head(from_client):
            proxy.requests += 1
            method = head.start.partition(" ")[0]
            if fault := proxy.strike(method, ("status",)):
                _refuse(fault, head, from_client, client)
                continue
            if proxy.strike(method, ("drop",)):
                return
            if fault := proxy.strike(method, ("delay",)):
                time.sleep(fault.seconds)
            _pass_request(proxy, method, head, from_client, client, server)
            if proxy.strike(method, ("lost-answer",)):
                _read_head(from_server)
                return
            _pass_response(proxy, method, from_server, client)


def _pass_request(
    proxy: FaultProxy, method: str, head: _Head, from_client: BinaryIO, client: socket.socket, server: socket.socket
) -> None:
    if "100-continue" in head.headers.get("expect", "").lower():
        client.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    server.sendall(head.without("expect"))
    _pass_body(from_client, head, _Sender(proxy, server, method, ("cut-request", "corrupt-request"), head.length))


def _pass_response(proxy: FaultProxy, method: str, from_server: BinaryIO, client: socket.socket) -> None:
    head = _read_head(from_server)
    while head and head.start.split(" ")[1].startswith("1"):
        head = _read_head(from_server)
    if head is None:
        raise _CutError
    client.sendall(head.raw)
    status = int(head.start.split(" ")[1])
    if method == "HEAD" or status in (204, 304):
        return
    kinds = ("cut-response", "corrupt-response") if status < 300 else ()
    sender = _Sender(proxy, client, method, kinds, head.length)
    if head.is_chunked or head.length is not None:
        _pass_body(from_server, head, sender)
        return
    while block := from_server.read1(BLOCK):  # type: ignore[attr-defined] # a BufferedReader has it
        sender.send(block)
    raise _CutError


class _Sender:
    """Sends a body on; a fault of one of `kinds` strikes in its middle, or, of an unknown size, at `least_body`."""

    def __init__(
        self, proxy: FaultProxy, target: socket.socket, method: str, kinds: tuple[str, ...], size: int | None
    ) -> None:
        self.proxy, self.target, self.method, self.kinds, self.size = proxy, target, method, kinds, size
        self.passed = 0

    def send(self, block: bytes) -> None:
        self.passed += len(block)
        if self.kinds and self.passed > (self.size or 0) // 2:
            reached = self.passed if self.size is None else self.size
            fault = self.proxy.strike(self.method, self.kinds, reached)
            if fault or self.size is not None:
                self.kinds = ()
            if fault and fault.kind.startswith("cut"):
                self.target.sendall(block[: len(block) // 2])
                raise _CutError
            if fault:
                middle = len(block) // 2
                block = block[:middle] + bytes([block[middle] ^ 0x55]) + block[middle + 1 :]
        self.target.sendall(block)


def _pass_body(source: BinaryIO, head: _Head, sender: _Sender) -> None:
    if head.is_chunked:
        _pass_chunks(source, sender)
    elif head.length is not None:
        _pass_bytes(source, head.length, sender.send)


def _pass_bytes(source: BinaryIO, size: int, send: Callable[[bytes], object]) -> None:
    while size:
        block = source.read1(min(BLOCK, size))  # type: ignore[attr-defined] # a BufferedReader has it
        if not block:
            raise _CutError
        size -= len(block)
        send(block)


def _pass_chunks(source: BinaryIO, sender: _Sender) -> None:
    while True:
        line = source.readline(LINE_LIMIT)
        sender.target.sendall(line)
        size = int(line.partition(b";")[0], 16)
        if size:
            _pass_bytes(source, size, sender.send)
            _pass_bytes(source, 2, sender.target.sendall)
            continue
        while True:
            trailer = source.readline(LINE_LIMIT)
            sender.target.sendall(trailer)
            if not trailer.strip():
                return


def _refuse(fault: Fault, head: _Head, from_client: BinaryIO, client: socket.socket) -> None:
    """Answer with a status; a client that announced a body by `Expect` keeps it, others are heard to the end."""
    if "100-continue" not in head.headers.get("expect", "").lower():
        if head.is_chunked:
            client.sendall(_status_answer(fault))
            raise _CutError
        _pass_bytes(from_client, head.length or 0, len)
    client.sendall(_status_answer(fault))


def _read_head(source: BinaryIO) -> _Head | None:
    raw = b""
    while not raw.endswith(b"\r\n\r\n"):
        line = source.readline(LINE_LIMIT)
        if not line or len(raw) > LINE_LIMIT:
            return None
        raw += line
    start, *lines = raw.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return _Head(raw, start, {name.strip().lower(): value.strip() for name, _, value in pairs})


def _status_answer(fault: Fault) -> bytes:
    wait = "" if fault.retry_after is None else f"Retry-After: {fault.retry_after:g}\r\n"
    return f"HTTP/1.1 {fault.status} Injected\r\n{wait}Content-Length: 0\r\n\r\n".encode()


def _serve_tcp(proxy: FaultProxy, client: socket.socket, server: socket.socket) -> None:
    proxy.requests += 1
    if proxy.strike("", ("drop",)):
        return
    if fault := proxy.strike("", ("delay",)):
        time.sleep(fault.seconds)
    sent = [0]
    back = threading.Thread(target=_pump, args=(proxy, server, client, "response", sent), daemon=True)
    back.start()
    _pump(proxy, client, server, "request", sent)
    back.join(PATIENCE_SECONDS)


def _pump(proxy: FaultProxy, source: socket.socket, target: socket.socket, direction: str, sent: list[int]) -> None:
    """Pass bytes on until either side ends; a fault strikes when its offset in the stream is reached.

    `sent` counts the bytes of the requests: an answer is lost once they reach the fault's offset.
    """
    passed, kinds = 0, (f"cut-{direction}", f"corrupt-{direction}")
    source.settimeout(None)
    with suppress(OSError):
        while block := source.recv(BLOCK):
            passed += len(block)
            if direction == "request":
                sent[0] = passed
            elif proxy.strike("", ("lost-answer",), sent[0]):
                break
            fault = proxy.strike("", kinds, passed)
            if fault and fault.kind.startswith("cut"):
                break
            target.sendall(bytes([block[0] ^ 0x55]) + block[1:] if fault else block)
    for connection in (source, target):
        with suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
