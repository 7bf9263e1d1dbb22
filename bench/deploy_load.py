"""Load on a scoring server: connections that send one request after the other, and what became of each request."""

from __future__ import annotations

import asyncio
import threading
import time
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Sample:
    """One request: when it ended and how long it took, in seconds; its status, 0 where no answer came."""

    ended: float
    seconds: float
    status: int


class Load:
    """Requests from `connections` connections at a time, in a thread of its own, until the block ends.

    Args:
        url: where to POST.
        body: JSON.
        keep_alive: False opens a connection for each request.
        pause: seconds between two requests of a connection.
    """

    def __init__(self, url: str, body: bytes, connections: int, *, keep_alive: bool = True, pause: float = 0.0) -> None:
        parts = urlsplit(url)
        self._host, self._port = str(parts.hostname), int(parts.port or 80)
        kept = "keep-alive" if keep_alive else "close"
        head = f"POST {parts.path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
        self._request = f"{head}Connection: {kept}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        self._keep_alive, self._connections, self._pause = keep_alive, connections, pause
        self._end = threading.Event()
        self.samples: list[Sample] = []

    def __enter__(self) -> Load:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()

    @property
    def failures(self) -> list[Sample]:
        return [s for s in self.samples if s.status != 200]

    def rate(self) -> float:
        """Successful requests in a second."""
        ends = sorted(s.ended for s in self.samples if s.status == 200)
        return (len(ends) - 1) / (ends[-1] - ends[0]) if len(ends) > 1 else 0.0

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self._connections)))

    async def _connection(self) -> None:
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        while not self._end.is_set():
            began, status, stays = time.monotonic(), 0, False
            try:
                if streams is None:
                    streams = await asyncio.open_connection(self._host, self._port)
                streams[1].write(self._request)
                status, stays = await asyncio.wait_for(_answer(streams[0]), 30)
            except (OSError, asyncio.IncompleteReadError, asyncio.TimeoutError):
                status = 0
            ended = time.monotonic()
            self.samples.append(Sample(ended, ended - began, status))
            if streams and not (stays and self._keep_alive):
                streams[1].close()
                streams = None
            if self._pause or not status:
                await asyncio.sleep(self._pause or 0.01)
        if streams:
            streams[1].close()


def longest_gap(*loads: Load) -> float:
    """The longest time in which no request succeeded, in seconds."""
    ends = sorted(s.ended for load in loads for s in load.samples if s.status == 200)
    return max((b - a for a, b in pairwise(ends)), default=float("inf"))


async def _answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """Status of an answer, and whether its connection stays open."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].partition(b"\r\n")[0])
    await reader.readexactly(length)
    return int(head.split(maxsplit=2)[1]), b"connection: close" not in head
