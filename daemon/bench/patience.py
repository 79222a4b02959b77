"""A front for the bench's broker that waits as Kafka does: ``python -m daemon.bench.patience``.

Kafka keeps a fetch that finds nothing open until something comes or ``fetch.wait.max.ms`` is over.
The bench's broker (noida-db 0.2.3) answers it at once and is asked again at once, so that one idle
consumer takes most of a core. This process stands between them. A client that asks the very same
again got nothing the last time; its question is held, and put to the broker every few milliseconds
until the answer is another one or the client's time is over. All else goes through as it is, one
request of a connection after the other; only the broker's port is told as this one. Requests that
get no answer (a producer with ``acks=0``) are not for it.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from contextlib import suppress
from typing import Final

FETCH: Final = 1
FLEXIBLE_FETCH: Final = 12
"""Versions from here on have tagged fields in the header of the request (KIP-482)."""
LAST_WITH_REPLICA: Final = 14
"""Later versions of a fetch do not begin with the replica's number (KIP-903)."""
ASK_SECONDS: Final = 0.02
"""Between two looks: what a message waits longer than with Kafka, at most."""
KEPT: Final = 16
"""Questions of a connection that are remembered: a client may ask for some partitions and for the
others in turn."""
HOST: Final = "127.0.0.1"


async def frame(reader: asyncio.StreamReader) -> bytes:
    """The next request or answer, with its length before it."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head, "big"))


def wait_seconds(request: bytes) -> float | None:
    """How long a fetch may wait, by its ``max_wait_ms``; None for any other request."""
    key, version, _, client = struct.unpack_from(">hhih", request, 4)
    if key != FETCH:
        return None
    body = 14 + max(client, 0)
    if version >= FLEXIBLE_FETCH:
        body += 1  # no tagged field has been given to this header yet
    if version <= LAST_WITH_REPLICA:
        body += 4
    return int(struct.unpack_from(">i", request, body)[0]) / 1000


def question(request: bytes) -> bytes:
    """What a fetch asks for, in whatever order it names the partitions: clients begin with another
    one each time. Two that only look alike cost one more look."""
    return bytes(sorted(request[:8] + request[12:]))


class Front:
    """Listens on one port for the broker on another."""

    def __init__(self, port: int, broker: int) -> None:
        self.port = port
        self.broker = broker
        self._theirs = HOST.encode() + struct.pack(">i", broker)
        self._ours = HOST.encode() + struct.pack(">i", port)

    async def serve(self) -> None:
        """Until the process is ended."""
        server = await asyncio.start_server(self._client, HOST, self.port)
        async with server:
            await server.serve_forever()

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection of a client, as long as the broker's lasts."""
        try:
            broker, asks = await asyncio.open_connection(HOST, self.broker)
        except OSError:
            writer.close()
            return
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._carry(reader, writer, broker, asks)
        for end in (writer, asks):
            end.close()

    async def _carry(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        broker: asyncio.StreamReader,
        asks: asyncio.StreamWriter,
    ) -> None:
        seen: dict[bytes, int] = {}
        while True:
            request = await frame(reader)
            wait = wait_seconds(request)
            asks.write(request)
            answer = await frame(broker)
            if wait is None:
                answer = answer.replace(self._theirs, self._ours)
            else:
                asked = question(request)
                until = time.monotonic() + wait
                # an answer that has become no longer has nothing new in it
                while seen.get(asked) == len(answer) and (left := until - time.monotonic()) > 0:
                    await asyncio.sleep(min(ASK_SECONDS, left))
                    asks.write(request)
                    answer = await frame(broker)
                if len(seen) >= KEPT:
                    seen.pop(next(iter(seen)))
                seen[asked] = len(answer)
            writer.write(answer)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(Front(int(sys.argv[1]), int(sys.argv[2])).serve())
