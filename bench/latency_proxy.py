"""A TCP proxy on loopback that holds each byte back for half a round trip, as a distant service would.

    python bench/latency_proxy.py TARGET_PORT ROUND_TRIP_MS

Prints its port. What is read is passed on after the delay without waiting for what came before, so it adds
latency and takes away as little bandwidth as a Python process can.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

CHUNK = 256 * 1024
WAITING = 256


class Delayed(asyncio.Protocol):
    """One direction of a connection: each chunk is written to the peer `delay` seconds after it arrived."""

    def __init__(self, delay: float) -> None:
        self.delay = delay
        self.transport: asyncio.Transport | None = None
        self.peer: Delayed | None = None
        self.before: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.peer is None:
            self.before.append(data)
            return
        asyncio.get_running_loop().call_later(self.delay, self.peer.write, data)

    def write(self, data: bytes) -> None:
        if self.transport and not self.transport.is_closing():
            self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.peer:
            asyncio.get_running_loop().call_later(self.delay, self.peer.close)

    def close(self) -> None:
        if self.transport:
            self.transport.close()


class Front(Delayed):
    """A client's side: opens the connection to the target, whose handshake also takes a round trip."""

    def __init__(self, delay: float, port: int) -> None:
        super().__init__(delay)
        self._port = port

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._opening = asyncio.ensure_future(self._open())

    async def _open(self) -> None:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(2 * self.delay)
        with suppress(OSError):
            _, back = await loop.create_connection(lambda: Delayed(self.delay), "127.0.0.1", self._port)
            back.peer, self.peer = self, back
            for data in self.before:
                loop.call_later(self.delay, back.write, data)
            return
        self.close()


async def serve(target: int, round_trip_ms: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Front(round_trip_ms / 2000, target), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), float(sys.argv[2])))
