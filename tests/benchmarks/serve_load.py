"""Throughput and latency of `moembed serve` over loopback, with client and server on the same CPUs.

    python tests/benchmarks/serve_load.py [BUNDLE ...] [-o RESULT]

For the built-in model, or for each bundle, it measures: the time that the server adds to a short query, and the share of the rate
of batches that its clients get (both against an embedder in a process of its own, in turns); the time from the start of the
process until it is ready, and the memory then; closed-loop clients that send one text at a time; the same without batching
(`--call-tokens 1`: one text per model call); and a client with short queries beside one with documents in bulk. Prints a
Markdown table and writes it to RESULT.md, with all values in RESULT.json. `--publish` puts both into `serve_load/`, in place of
what was measured on the same kind of machine, and a summary for each kind into `docs/benchmarks.md`.
"""

import argparse
import asyncio
import itertools
import json
import statistics
import time
from collections import Counter
from pathlib import Path
from typing import Any

from blocks import PAGE, Block
from direct import Direct
from load import Outcome, in_turn, percentile
from processes import Process, running
from published import kind_of
from serve_texts import embed, requests_of, texts_of

from moembed import Embedder
from moembed.verify.machine import this_machine

CLIENTS = (1, 8, 64)
MANY = 32  # clients whose rate is compared with that of batches
HERE = Path(__file__).with_suffix("")
BLOCK = Block(PAGE, "server", "python tests/benchmarks/serve_load.py [BUNDLE ...] --publish")
# Documents per request of a client that builds an index.
_BULK = 64


def main() -> None:
    """Measure the models, print the tables, and write the results."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("bundles", nargs="*", metavar="BUNDLE", help="none for the built-in model")
    arguments.add_argument("--seconds", type=float, default=5, help="of each row")
    arguments.add_argument("--starts", type=int, default=5)
    arguments.add_argument("-o", metavar="RESULT", type=Path, help="path without suffix")
    arguments.add_argument(
        "--publish", action="store_true", help="keep the result here, and rewrite docs/benchmarks.md"
    )
    chosen = arguments.parse_args()
    machine = this_machine()
    result: dict[str, Any] = {
        "machine": {"cpu": machine.cpu, "kernels": machine.kernels, "onnxruntime": machine.onnxruntime},
        "models": {},
    }
    for bundle in chosen.bundles or ["built-in"]:
        result["models"][bundle] = measured(bundle, chosen.seconds, chosen.starts)
    table = "\n".join(markdown(result))
    print(table)
    for path in filter(None, [chosen.o, HERE / kind_of(result) if chosen.publish else None]):
        path.with_suffix(".md").write_text(table.rstrip() + "\n")
        path.with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")
    if chosen.publish:
        BLOCK.write(page_block())


def measured(bundle: str, seconds: float, starts: int) -> dict[str, Any]:
    """Measure one model; start times are in seconds, latencies in ms, memory in MB."""
    embedder = Embedder.from_pretrained(None if bundle == "built-in" else bundle)
    requests = {task: requests_of(embedder, task) for task in ("query", "document")}
    found: dict[str, Any] = {
        "tokens": {
            task: statistics.mean(embedder.count_tokens(texts_of(raw), prompt_name=task))
            for task, raw in requests.items()
        }
    }
    del embedder
    flags = ("--model", f"moembed={bundle}")
    found["ready_s"] = sorted(started(flags) for _ in range(starts + 1))[
        :starts
    ]  # the slowest one filled the page cache
    with running(*flags) as server:
        found["idle_mb"] = server.memory()
        found["rows"] = [
            row(server, raw, task, clients, seconds) for task, raw in requests.items() for clients in CLIENTS
        ]
        found["beside"] = beside(server, requests, seconds)
        found["after_mb"] = server.memory()
    with running(*flags) as server, Direct(bundle, texts_of(requests["query"])) as direct:
        found["overhead"] = overhead(server, direct, requests["query"], seconds)
    with running(*flags, "--call-tokens", "1") as server:
        found["one_by_one"] = [row(server, requests["query"], "query", clients, seconds) for clients in CLIENTS]
    return found


def overhead(server: Process, direct: Direct, requests: list[bytes], seconds: float) -> dict[str, float]:
    """Compare the server with the embedder, in turns of a second: one client's median, and the rate of many clients."""
    found: dict[str, list[float]] = {name: [] for name in ("call_ms", "request_ms", "texts_per_s", "requests_per_s")}
    for ask in (lambda: one_by_one(server, requests, 0.5), direct.median_ms, direct.texts_per_s):
        ask()  # warm-up
    for _ in range(max(3, round(seconds))):
        found["call_ms"].append(direct.median_ms())
        found["request_ms"].append(one_by_one(server, requests, 1))
        found["texts_per_s"].append(direct.texts_per_s())
        start = time.perf_counter()
        outcomes = asyncio.run(in_turn(server.address, requests, clients=MANY, seconds=1))
        found["requests_per_s"].append(len(outcomes) / (time.perf_counter() - start))
    more = [request - call for request, call in zip(found["request_ms"], found["call_ms"], strict=True)]
    share = [a / b for a, b in zip(found["requests_per_s"], found["texts_per_s"], strict=True)]
    result = {name: round(statistics.median(values), 2) for name, values in found.items()}
    return result | {"more_ms": round(statistics.median(more), 2), "share": round(statistics.median(share), 3)}


def one_by_one(server: Process, requests: list[bytes], seconds: float) -> float:
    """Return the median time of requests over one connection, in ms; the client blocks, as `ab` and most clients do."""
    times = []
    with server.connect() as connection:
        end = time.perf_counter() + seconds
        for raw in itertools.cycle(requests):
            start = time.perf_counter()
            connection.sendall(raw)
            answer = connection.recv(2**16)
            head, _, body = answer.partition(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
            while len(body) < length:
                body += connection.recv(2**16)
            times.append(1e3 * (time.perf_counter() - start))
            if start > end:
                return statistics.median(times)
    raise AssertionError


def started(flags: tuple[str, ...]) -> float:
    """Return the seconds until a server is ready."""
    process = Process(*flags)
    try:
        return round(process.wait_until_ready(), 3)
    finally:
        process.kill()


def row(server: Process, requests: list[bytes], task: str, clients: int, seconds: float) -> dict[str, Any]:
    """Measure one number of clients."""
    asyncio.run(in_turn(server.address, requests, clients=clients, seconds=0.5))
    before = server.metric("moembed_call_texts_sum"), server.metric("moembed_call_texts_count")
    client_cpu, server_cpu, start = time.process_time(), server.cpu_seconds(), time.perf_counter()
    outcomes = asyncio.run(in_turn(server.address, requests, clients=clients, seconds=seconds))
    wall = time.perf_counter() - start
    client_cpu, server_cpu = time.process_time() - client_cpu, server.cpu_seconds() - server_cpu
    texts, calls = (
        server.metric("moembed_call_texts_sum") - before[0],
        server.metric("moembed_call_texts_count") - before[1],
    )
    return {
        "task": task,
        "clients": clients,
        "per_s": round(len(outcomes) / wall, 1),
        "p50_ms": round(percentile(outcomes, 50), 1),
        "p99_ms": round(percentile(outcomes, 99), 1),
        "statuses": dict(Counter(outcome.status for outcome in outcomes)),
        "texts_per_call": round(texts / max(calls, 1), 1),
        "client_cpus": round(client_cpu / wall, 3),
        "server_cpus": round(server_cpu / wall, 2),
    }


def beside(server: Process, requests: dict[str, list[bytes]], seconds: float) -> dict[str, Any]:
    """Measure short queries of one client: alone, beside a bulk request of documents, and beside many small ones."""
    bulk = [embed(texts_of(requests["document"])[:_BULK], "document")]

    async def both(others: list[bytes], clients: int) -> list[Outcome]:
        filling = asyncio.create_task(in_turn(server.address, others, clients=clients, seconds=seconds + 1))
        await asyncio.sleep(1)
        found = await in_turn(server.address, requests["query"], clients=1, seconds=seconds)
        await filling
        return found

    runs = {
        "alone": asyncio.run(in_turn(server.address, requests["query"], clients=1, seconds=seconds)),
        f"successive requests of {_BULK} documents": asyncio.run(both(bulk, 1)),
        f"{_BULK} concurrent requests of one document": asyncio.run(both(requests["document"], _BULK)),
    }
    return {
        name: {"p50_ms": round(percentile(o, 50), 1), "p99_ms": round(percentile(o, 99), 1), "answers": len(o)}
        for name, o in runs.items()
    }


def published() -> dict[str, dict[str, Any]]:
    """What was measured on each kind of machine."""
    return {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(HERE.glob("*.json"))}


def page_block() -> str:
    """The tables of docs/benchmarks.md, one for each kind of machine."""
    return "\n".join(map(summary, published().values()))


def summary(result: dict[str, Any]) -> str:
    """The table of a kind of machine."""
    machine = result["machine"]
    lines = [f"{machine['cpu']}, kernels {machine['kernels']}, onnxruntime {machine['onnxruntime']}.", ""]
    head = [
        "",
        "clients",
        "short queries, requests/s",
        "p50, p99 ms",
        "one text a call",
        "documents, requests/s",
        "p50, p99 ms",
    ]
    lines += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for name, found in result["models"].items():
        rows = {(row["task"], row["clients"]): row for row in found["rows"]}
        alone = {row["clients"]: row for row in found["one_by_one"]}
        for clients in CLIENTS:
            query, document = rows["query", clients], rows["document", clients]
            cells = [clients, query["per_s"], f"{query['p50_ms']}, {query['p99_ms']}", alone[clients]["per_s"]]
            cells += [document["per_s"], f"{document['p50_ms']}, {document['p99_ms']}"]
            lines.append(f"| {name if clients == CLIENTS[0] else ''} | {' | '.join(map(str, cells))} |")
    # Measurements from before this was measured are shown without it.
    ways = {name: found["overhead"] for name, found in result["models"].items() if "overhead" in found}
    if ways:
        lines += [
            "",
            f"|  | `encode_query`, ms | 1 client, ms | more, ms | batches, texts/s | requests/s, {MANY} clients | share |",
            "|---|---|---|---|---|---|---|",
        ]
    for name, way in ways.items():
        cells = [way[key] for key in ("call_ms", "request_ms", "more_ms")]
        cells += [round(way["texts_per_s"]), round(way["requests_per_s"]), way["share"]]
        lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
    lines.append("")
    for name, found in result["models"].items():
        idle, ready = found["idle_mb"], statistics.median(found["ready_s"])
        lines.append(
            f"- {name}: ready {ready:.2f} s after the start of the process; idle with {idle['resident']:.0f} MB resident, "
            f"{idle['private']:.0f} MB private."
        )
    return "\n".join(lines) + "\n"


def markdown(result: dict[str, Any]) -> list[str]:
    """Return the lines of the tables."""
    lines = []
    for name, found in result["models"].items():
        lines += [
            f"{name}: ready after {statistics.median(found['ready_s']):.2f} s, idle {found['idle_mb']['resident']:.0f} MB "
            f"resident, {found['idle_mb']['private']:.0f} MB private",
            "",
            "| texts | clients | requests/s | p50 ms | p99 ms | texts per call | CPUs of server, client |",
            "|---|---|---|---|---|---|---|",
        ]
        for kind, rows in (("", found["rows"]), (", one by one", found["one_by_one"])):
            lines += [
                f"| {r['task']} of {found['tokens'][r['task']]:.0f} tokens{kind} | {r['clients']} | {r['per_s']} | "
                f"{r['p50_ms']} | {r['p99_ms']} | {r['texts_per_call']} | {r['server_cpus']}, {r['client_cpus']} |"
                for r in rows
            ]
        if way := found.get("overhead"):
            lines += [
                "",
                f"A short query takes {way['call_ms']} ms in `encode_query` and {way['request_ms']} ms as a request of one "
                f"client: {way['more_ms']} ms more. {MANY} clients get {way['requests_per_s']:.0f} requests/s, {way['share']} "
                f"of the {way['texts_per_s']:.0f} texts/s in batches.",
            ]
        lines += ["", "| a short query beside | p50 ms | p99 ms |", "|---|---|---|"]
        lines += [f"| {kind} | {r['p50_ms']} | {r['p99_ms']} |" for kind, r in found["beside"].items()]
        lines.append("")
    return lines


if __name__ == "__main__":
    main()
