"""A client that keeps a server busy: HTTP/1.1 with keep-alive on asyncio, requests that were written beforehand.

It parses no more of an answer than it needs, so that one process sends tens of thousands of requests a second.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

# A TCP port of this machine, or the path of a unix socket.
Address = int | str
Keep = Callable[[int, bytes], None]


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        index: which of the requests it was.
        due: seconds from the start until it was to be sent.
        seconds: from then until the whole answer was there.
        status: HTTP status, 0 if the connection ended without a whole answer.
        retry_after: the header's value, "" if there was none.
    """

    index: int
    due: float
    seconds: float
    status: int
    retry_after: str = ""


def request(path: str, body: bytes, **headers: str) -> bytes:
    """A POST request as it is sent."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """One connection; it has one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, str, bytes]] | None = None
        self.transport: asyncio.Transport | None = None
        self.closing = False

    @classmethod
    async def open(cls, address: Address) -> "Connection":
        """Connect.

        Raises:
            OSError: nobody listens.
        """
        loop = asyncio.get_running_loop()
        if isinstance(address, int):
            _, connection = await loop.create_connection(cls, "127.0.0.1", address)
        else:
            _, connection = await loop.create_unix_connection(cls, address)
        return connection

    async def ask(self, raw: bytes) -> tuple[int, str, bytes]:
        """Status, Retry-After and body of the answer to a request; status 0 if the connection ends before."""
        if self.transport is None or self.closing:
            return 0, "", b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return await self._answer

    def close(self) -> None:
        """Hang up."""
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        self.closing = True
        self._tell((0, "", b""))

    def data_received(self, data: bytes) -> None:
        """Called by asyncio."""
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields[bytes(name).lower()] = bytes(value).strip()
        if len(rest) < int(fields.get(b"content-length", b"0")):
            return
        self._buffer.clear()
        self.closing = fields.get(b"connection") == b"close"
        self._tell((int(head[9:12]), fields.get(b"retry-after", b"").decode(), bytes(rest)))

    def _tell(self, answer: tuple[int, str, bytes]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


async def in_turn(
    address: Address, requests: Sequence[bytes], *, clients: int, seconds: float, keep: Keep | None = None
) -> list[Outcome]:
    """Clients that send the next request as soon as the last one is answered, until the time is over."""
    numbers = itertools.count()
    outcomes: list[Outcome] = []
    start = time.perf_counter()

    async def client() -> None:
        connection = await Connection.open(address)
        while (due := time.perf_counter() - start) < seconds:
            index = next(numbers) % len(requests)
            status, retry_after, body = await connection.ask(requests[index])
            outcomes.append(Outcome(index, due, time.perf_counter() - start - due, status, retry_after))
            if keep is not None:
                keep(index, body)
            if connection.closing:
                connection = await Connection.open(address)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    return outcomes


@dataclass
class Paced:
    """What came of requests that were sent at a rate.

    Attributes:
        outcomes: one for each request that was sent.
        unsent: requests that were due while all connections were waiting for answers.
    """

    outcomes: list[Outcome] = field(default_factory=list)
    unsent: int = 0


async def paced(
    address: Address,
    requests: Sequence[bytes],
    *,
    rate: float,
    seconds: float,
    connections: int,
    keep: Keep | None = None,
) -> Paced:
    """Requests at a rate (1/s), whether or not the server keeps up, over a bounded number of connections."""
    result, idle = Paced(), [await Connection.open(address) for _ in range(connections)]
    running: set[asyncio.Task[None]] = set()
    start = time.perf_counter()

    async def one(index: int, due: float, connection: Connection) -> None:
        if connection.closing:
            connection = await Connection.open(address)
        status, retry_after, body = await connection.ask(requests[index])
        result.outcomes.append(Outcome(index, due, time.perf_counter() - start - due, status, retry_after))
        idle.append(connection)
        if keep is not None:
            keep(index, body)

    for number in range(int(rate * seconds)):
        due = number / rate
        # Only now and then, because a timer is no more exact than a millisecond.
        while (early := due - (time.perf_counter() - start)) > 0:
            await asyncio.sleep(early)
        if number % 16 == 0:
            await asyncio.sleep(0)
        if not idle:
            result.unsent += 1
            continue
        task = asyncio.create_task(one(number % len(requests), due, idle.pop()))
        running.add(task)
        task.add_done_callback(running.discard)
    while running:
        await asyncio.wait(running)
    for connection in idle:
        connection.close()
    return result


def percentile(outcomes: Sequence[Outcome], percent: int) -> float:
    """Milliseconds within which so many of the answers came."""
    times = [1e3 * outcome.seconds for outcome in outcomes]
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] if len(times) > 1 else times[0]
