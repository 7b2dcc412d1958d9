"""Load generator: HTTP/1.1 with keep-alive on asyncio, with prepared requests.

It parses responses no further than it needs, so that one process can send tens of thousands of requests per second.
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
    """Outcome of one request.

    Attributes:
        index: index of the request.
        due: seconds from the start until the request was due.
        seconds: seconds from then until the response was complete.
        status: HTTP status, 0 if the connection ended before the response was complete.
        retry_after: value of the header Retry-After, "" if there was none.
    """

    index: int
    due: float
    seconds: float
    status: int
    retry_after: str = ""


def request(path: str, body: bytes, **headers: str) -> bytes:
    """Return the bytes of a POST request."""
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    return f"POST {path} HTTP/1.1\r\nhost: localhost\r\n{lines}content-length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """Connection with one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, str, bytes]] | None = None
        self.transport: asyncio.Transport | None = None
        self.closing = False

    @classmethod
    async def open(cls, address: Address) -> "Connection":
        """Connect.

        Raises:
            OSError: the server does not listen.
        """
        loop = asyncio.get_running_loop()
        if isinstance(address, int):
            _, connection = await loop.create_connection(cls, "127.0.0.1", address)
        else:
            _, connection = await loop.create_unix_connection(cls, address)
        return connection

    async def ask(self, raw: bytes) -> tuple[int, str, bytes]:
        """Send a request; return status (0 if the connection ended before the response), Retry-After and body."""
        if self.transport is None or self.closing:
            return 0, "", b""
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(raw)
        return await self._answer

    def close(self) -> None:
        """Close the connection."""
        if self.transport is not None:
            self.transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Handle an event; called by asyncio."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        """Handle an event; called by asyncio."""
        self.closing = True
        self._resolve((0, "", b""))

    def data_received(self, data: bytes) -> None:
        """Handle an event; called by asyncio."""
        self._buffer += data
        head, separator, rest = self._buffer.partition(b"\r\n\r\n")
        if not separator:
            return
        fields = {}
        for line in head.split(b"\r\n")[1:]:
            name, _, value = line.partition(b":")
            fields[bytes(name).lower()] = bytes(value).strip()
        chunked = fields.get(b"transfer-encoding") == b"chunked"
        if not rest.endswith(b"\r\n0\r\n\r\n") if chunked else len(rest) < int(fields.get(b"content-length", b"0")):
            return
        self._buffer.clear()
        self.closing = fields.get(b"connection") == b"close"
        self._resolve((int(head[9:12]), fields.get(b"retry-after", b"").decode(), bytes(rest)))

    def _resolve(self, answer: tuple[int, str, bytes]) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(answer)


async def in_turn(
    address: Address, requests: Sequence[bytes], *, clients: int, seconds: float, keep: Keep | None = None
) -> list[Outcome]:
    """Run closed-loop clients: each sends its next request once the last is answered, until the time is over."""
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
    """Result of requests at a fixed rate.

    Attributes:
        outcomes: one per request that was sent.
        unsent: requests that were due while all connections were busy.
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
    """Send requests at a fixed rate (1/s), open loop, over a limited number of connections."""
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
        # Wait only if early: timers have a resolution of about a millisecond.
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
    """Return a percentile of the response times, in milliseconds."""
    times = [1e3 * outcome.seconds for outcome in outcomes]
    return statistics.quantiles(times, n=100, method="inclusive")[percent - 1] if len(times) > 1 else times[0]
