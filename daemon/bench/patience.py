"""A front for the bench's broker that waits as Kafka does: ``python -m daemon.bench.patience``.

Kafka keeps a fetch that finds nothing open until something comes or ``fetch.wait.max.ms`` is over.
The bench's broker (noida-db 0.2.3) answers it at once and is asked again at once, so that one idle
consumer takes most of a core. This process stands between them: it puts a fetch to the broker every
few milliseconds until the answer has a record or an error in it, or the client's time is over. All
else goes through as it is, one request of a connection after the other; only the broker's port is
told as this one. Requests that get no answer (a producer with ``acks=0``) are not for it.

Layouts: https://kafka.apache.org/protocol, ``Fetch`` versions 4 to 13.
"""

from __future__ import annotations

import asyncio
import struct
import sys
import time
from contextlib import suppress
from typing import Final

FETCH: Final = 1
OLDEST: Final = 4
NEWEST: Final = 14
WITH_LOG_START: Final = 5
WITH_SESSION: Final = 7
WITH_NEAREST: Final = 11
FLEXIBLE: Final = 12
WITH_TOPIC_ID: Final = 13
"""Versions of a fetch from which on it has such a field, or its lengths are packed."""
ASK_SECONDS: Final = 0.02
"""Between two looks: what a message waits longer than with Kafka, at most."""
HOST: Final = "127.0.0.1"


async def frame(reader: asyncio.StreamReader) -> bytes:
    """The next request or answer, with its length before it."""
    head = await reader.readexactly(4)
    return head + await reader.readexactly(int.from_bytes(head, "big"))


def fetch_version(request: bytes) -> int | None:
    """The version of a fetch whose answer can be read; None for any other request."""
    key, version = struct.unpack_from(">hh", request, 4)
    return version if key == FETCH and OLDEST <= version <= NEWEST else None


def wait_seconds(request: bytes, version: int) -> float:
    """How long a fetch may wait, by its ``max_wait_ms``."""
    (client,) = struct.unpack_from(">h", request, 12)
    body = 14 + max(client, 0)
    if version >= FLEXIBLE:
        body += 1  # no tagged field has been given to this header yet
    body += 4  # the replica that asks
    return int(struct.unpack_from(">i", request, body)[0]) / 1000


class Fields:
    """Reads the fields of an answer, one after the other; ``version``: of the fetch."""

    def __init__(self, answer: bytes, version: int) -> None:
        self._bytes = answer
        self._at = 4
        self._flexible = version >= FLEXIBLE

    def number(self, size: int) -> int:
        """A signed integer of so many bytes."""
        return int.from_bytes(self.take(size), "big", signed=True)

    def take(self, size: int) -> bytes:
        """So many bytes."""
        self._at += size
        return self._bytes[self._at - size : self._at]

    def count(self, size: int = 4) -> int:
        """How many there are of what follows; -1 for null."""
        return self._varint() - 1 if self._flexible else self.number(size)

    def tags(self) -> None:
        """Tagged fields, which are passed over."""
        for _ in range(self._varint() if self._flexible else 0):
            self._varint()
            self.take(self._varint())

    def _varint(self) -> int:
        value = shift = 0
        while True:
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            if not byte & 0x80:
                return value
            shift += 7


def has_something(answer: bytes, version: int) -> bool:
    """True where the answer to a fetch has a record or an error in it."""
    fields = Fields(answer, version)
    fields.take(4)  # the number of the request
    fields.tags()
    fields.take(4)  # throttled
    wrong = version >= WITH_SESSION and fields.number(2) != 0
    fields.take(4 if version >= WITH_SESSION else 0)
    for _ in range(fields.count()):
        fields.take(16 if version >= WITH_TOPIC_ID else fields.count(2))
        for _ in range(fields.count()):
            if _partition_has_something(fields, version):
                return True
        fields.tags()
    return wrong


def _partition_has_something(fields: Fields, version: int) -> bool:
    fields.take(4)  # which
    wrong = fields.number(2) != 0
    fields.take(24 if version >= WITH_LOG_START else 16)  # where it ends, stably, and begins
    for _ in range(fields.count()):  # transactions that were given up
        fields.take(16)
        fields.tags()
    fields.take(4 if version >= WITH_NEAREST else 0)
    size = fields.count()
    fields.take(max(size, 0))
    fields.tags()
    return wrong or size > 0


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
        while True:
            request = await frame(reader)
            version = fetch_version(request)
            asks.write(request)
            answer = await frame(broker)
            if version is None:
                answer = answer.replace(self._theirs, self._ours)
            else:
                until = time.monotonic() + wait_seconds(request, version)
                while not has_something(answer, version):
                    if (left := until - time.monotonic()) <= 0:
                        break
                    await asyncio.sleep(min(ASK_SECONDS, left))
                    asks.write(request)
                    answer = await frame(broker)
            writer.write(answer)
            await writer.drain()


if __name__ == "__main__":
    asyncio.run(Front(int(sys.argv[1]), int(sys.argv[2])).serve())
