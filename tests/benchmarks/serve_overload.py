"""`moembed serve` under four times its maximum throughput, for two minutes.

    python tests/benchmarks/serve_overload.py [BUNDLE] [--task query] [--seconds 120] [-o RESULT]

First, 64 closed-loop clients measure the maximum throughput; then requests arrive at four times that rate, open loop. Prints the
outcomes, the latencies of accepted requests against the bound that the server's limits imply, and the server's memory every five
seconds.

The bound: a request is accepted if at most `max_requests` (1,024) are in flight and its tokens fit into the queue
(`queue_tokens`, 262,144). Requests of equal size are served in order of arrival, at the rate that remains besides rejecting
others. So no response takes longer than the smaller of max_requests / rate and (queue_tokens / tokens per request + requests
of the running calls) / rate; twice that is allowed, since the rate varies.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from load import in_turn, paced, percentile
from processes import Process, running
from serve_texts import requests_of, texts_of

from moembed import Embedder
from moembed.server.settings import Settings

FACTOR = 4
# More than the server accepts, so that it has to reject some.
_CONNECTIONS = 2 * Settings().max_requests


def main() -> None:
    """Measure, print the result, and write it."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundle", nargs="?", default="built-in")
    arguments.add_argument("--task", choices=("query", "document"), default="query")
    arguments.add_argument("--seconds", type=float, default=120)
    arguments.add_argument("-o", metavar="RESULT", type=Path, help="JSON file")
    chosen = arguments.parse_args()
    embedder = Embedder.from_pretrained(None if chosen.bundle == "built-in" else chosen.bundle)
    requests = requests_of(embedder, chosen.task)
    tokens = statistics.mean(embedder.count_tokens(texts_of(requests), prompt_name=chosen.task))
    with running("--model", f"moembed={chosen.bundle}") as server:
        result = asyncio.run(overloaded(server, requests, tokens, chosen.seconds))
        result["after"] = {name: server.metric(f"moembed_{name}") for name in ("queue_texts", "queue_tokens")}
    text = json.dumps(result, indent=1)
    print(text)
    if chosen.o is not None:
        chosen.o.write_text(text + "\n")


async def overloaded(server: Process, requests: list[bytes], tokens: float, seconds: float) -> dict[str, Any]:
    """Measure throughput and overload; times are in seconds, memory in MB."""
    await in_turn(server.address, requests, clients=64, seconds=2)
    start = time.perf_counter()
    throughput = len(await in_turn(server.address, requests, clients=64, seconds=10)) / (time.perf_counter() - start)
    memory: list[dict[str, float]] = []

    async def watch() -> None:
        while True:
            memory.append(server.memory())
            await asyncio.sleep(5)

    watching = asyncio.create_task(watch())
    client_cpu, start = time.process_time(), time.perf_counter()
    result = await paced(server.address, requests, rate=FACTOR * throughput, seconds=seconds, connections=_CONNECTIONS)
    wall = time.perf_counter() - start
    watching.cancel()
    accepted = [outcome for outcome in result.outcomes if outcome.status == 200]
    rejected = [outcome for outcome in result.outcomes if outcome.status == 429]
    limits = Settings()
    max_waiting = min(limits.max_requests, (limits.queue_tokens + 2 * limits.call_tokens) / tokens)
    return {
        "throughput_per_s": round(throughput, 1),
        "sent_per_s": round(len(result.outcomes) / seconds, 1),
        "unsent": result.unsent,
        "statuses": dict(Counter(outcome.status for outcome in result.outcomes)),
        "answered_per_s": round(len(accepted) / wall, 1),
        "accepted_s": {p: round(percentile(accepted, p) / 1e3, 2) for p in (50, 99)}
        | {"max": round(max(outcome.seconds for outcome in accepted), 2)},
        "bound_s": round(2 * max_waiting * wall / len(accepted), 1),
        "rejected_ms": {p: round(percentile(rejected, p), 1) for p in (50, 99)} if rejected else None,
        "retry_after": dict(Counter(outcome.retry_after for outcome in rejected)),
        "memory": memory,
        "client_cpus": round((time.process_time() - client_cpu) / wall, 2),
    }


if __name__ == "__main__":
    main()
