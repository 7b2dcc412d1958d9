"""Everyone who can run this network on a CPU, measured in turn on the same ids: the tables of docs/benchmarks.md and README.

    pip install "moembed[export,eval,bench]"
    PYTHONPATH=tests python -m support.checkpoints full --full
    moembed export full -o full-fp32 && moembed quantize full-fp32 -o full-int8
    python tests/benchmarks/compare.py full full-int8 --fp32 full-fp32 -o compared [--corpus TEXTS] [--publish]

Each contestant has a process of its own and must first give the vectors of the torch network, as closely as `contestants.py`
says. Then they take turns, after one call that does not count and with a pause before each, since threads spin for a while.
Shapes are random ids without padding; the corpus is real text in batches as `Embedder` plans them, the same batches for all.
Load time and memory are of fresh processes with files in the page cache. The limit of a shape is the larger of two times:
its weights through memory, or its products at the rate of a loop out of registers that does nothing else.

What is measured is kept in `compare.json` at once. `--seconds` ends the run early, with exit code 3; the same command goes on.
Delete that file to begin anew.
"""

import argparse
import gzip
import importlib
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import SPINNING_SECONDS
from contestants import CONTESTANTS, EXACT, MODULES, NATIVE, Batches, Contestant, Worker, missing, workers
from limits import limits, work
from published import publish
from report import GROWING, markdown, plot

from moembed.bundle.bundle import Bundle
from moembed.inference.batching import plan
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.machine import this_machine
from moembed.verify.probes import probe_texts

SHAPES = ("1x16", "1x32", "1x128", "1x512", "8x128", "32x128", "8x512")
CORPUS_TOKENS = 4096
PROBES = (1, 9, 40, 130, 64)
STARTS = 3


class State:
    """`compare.json`: what has been measured, written after every step."""

    def __init__(self, path: Path, seconds: float) -> None:
        self._path, self._end = path, time.monotonic() + seconds
        self.values: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def at(self, *keys: str) -> dict[str, Any]:
        """The dictionary under these keys, made if need be."""
        found = self.values
        for key in keys:
            found = found.setdefault(key, {})
        return found

    def save(self) -> None:
        """Write, and end the program if its time is over."""
        self._path.write_text(json.dumps(self.values, indent=1) + "\n", "utf-8")
        if time.monotonic() > self._end:
            print("Not all is measured: the same command goes on from here.", file=sys.stderr)
            sys.exit(3)


def rounds_of(tokens: int) -> int:
    """More of what is short."""
    return min(15, max(3, 6000 // tokens))


def random_batch(shape: str) -> Batches:
    """One batch of random ids."""
    batch, length = map(int, shape.split("x"))
    return [np.random.default_rng(0).integers(5, 40_000, (batch, length)).tolist()]


def corpus_batches(path: Path | None, tokenizer: Tokenizer) -> Batches:
    """Batches of `CORPUS_TOKENS` tokens or a little more, of texts drawn from a file with a text, or JSON with one, a line."""
    texts = probe_texts() if path is None else list(_texts(path))
    order = np.random.default_rng(0).permutation(len(texts))
    rows: list[list[int]] = []
    for index in order:
        (ids,) = tokenizer.encode([texts[index]])
        rows.append(ids[:512].tolist())
        if sum(map(len, rows)) >= CORPUS_TOKENS:
            break
    return [[rows[i] for i in part] for part in plan([len(row) for row in rows], batch_size=64)]


def _texts(path: Path) -> Iterator[str]:
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if line.startswith("{"):
                one = json.loads(line)
                yield one.get("text") or one["t"]
            elif line.strip():
                yield line.strip()


def prepare(sources: dict[str, Path], state: State, wanted: list[str]) -> list[Contestant]:
    """Let every module write what it reads; those who can take part."""
    why = {}
    for module in MODULES:
        why[module] = missing(module) if module in wanted else "not asked for"
        peer = None if why[module] else importlib.import_module(f"peers.{module}")
        if peer and hasattr(peer, "prepare"):
            folder = sources["prepared"] / module
            folder.mkdir(parents=True, exist_ok=True)
            peer.prepare(sources["checkpoint"], folder)
    able = []
    for one in CONTESTANTS:
        entry = state.at("contestants", one.name)
        absent = why[one.module] or ("no bundle given" if one.source == "fp32" and "fp32" not in sources else "")
        if absent:
            entry["absent"] = absent
        elif "refused" not in entry:
            entry.pop("absent", None)
            able.append(one)
    return able


def verify(able: list[Contestant], sources: dict[str, Path], state: State) -> list[Contestant]:
    """Those whose vectors are as close to the torch network's as they have to be."""
    unknown = [one for one in able if "cosine" not in state.at("contestants", one.name)]
    if unknown:
        rng = np.random.default_rng(1)
        probes = [[rng.integers(5, 40_000, n).tolist() for n in PROBES]]
        expected = {}
        for mode in {EXACT, *(one.reference for one in unknown)}:
            reference = Contestant("reference", "torch", "checkpoint", mode)
            with workers([reference], sources, 2, sources["logs"]) as one:
                expected[mode] = one["reference"].vectors(probes)
        for one in unknown:
            entry = state.at("contestants", one.name)
            try:
                with workers([one], sources, 2, sources["logs"]) as started:
                    vectors = started[one.name].vectors(probes)
                    entry["version"] = started[one.name].started["version"]
            except RuntimeError as error:
                entry["refused"] = f"cannot run: {error}"
                continue
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            cosines = {mode: float((vectors * e).sum(1).mean()) for mode, e in expected.items()}
            entry["cosine"] = cosines[EXACT]
            entry["cosine_to_reference"] = cosines[one.reference]
            if not cosines[one.reference] >= one.at_least:
                entry["refused"] = f"cosine {cosines[one.reference]:.4f}, at least {one.at_least} is asked"
            state.save()
    return [one for one in able if "refused" not in state.at("contestants", one.name)]


def measure_load(able: list[Contestant], sources: dict[str, Path], state: State) -> None:
    """Load time, and memory when loaded, after a text of 512 tokens, and at most."""
    for one in able:
        entry = state.at("contestants", one.name)
        while len(entry.setdefault("loads", [])) < STARTS:
            with workers([one], sources, 2, sources["logs"]) as started:
                worker = started[one.name]
                load = {"load_s": worker.started["load_s"], "private_mb": worker.started["private_mb"]}
                worker.milliseconds(random_batch("1x512"))
                worker.milliseconds(random_batch("8x128"))
                used = worker.memory()
            entry["loads"].append(load | {"used_mb": used["private_mb"], "peak_mb": used["peak_mb"]})
            state.save()


def measure_times(
    able: list[Contestant], sources: dict[str, Path], state: State, batches: dict[str, Batches], threads: int
) -> None:
    """Rounds of all shapes for a number of threads."""
    counts = {name: sum(len(text) for part in parts for text in part) for name, parts in batches.items()}
    times = state.at("times", str(threads))
    if all(len(times.get(name, {}).get(NATIVE, [])) >= rounds_of(counts[name]) for name in batches):
        return
    state.at("limits").setdefault(str(threads), []).append(limits(threads))
    with workers(able, sources, threads, sources["logs"]) as started:
        for name, parts in batches.items():
            found = times.setdefault(name, {})
            missing_rounds = rounds_of(counts[name]) - len(found.get(NATIVE, []))
            for number in range(missing_rounds + 1 if missing_rounds > 0 else 0):
                before = time.perf_counter(), *_processor_seconds(started)
                one_round = {}
                for contestant, worker in started.items():
                    time.sleep(SPINNING_SECONDS)
                    one_round[contestant] = worker.milliseconds(parts)
                if not number:
                    continue
                for contestant, ms in one_round.items():
                    found.setdefault(contestant, []).append(round(ms, 3))
                state.at("others", str(threads)).setdefault(name, []).append(_others(before, started))
                state.save()
            print(threads, name, {k: round(float(np.median(v)), 1) for k, v in found.items()}, file=sys.stderr)


def _processor_seconds(started: dict[str, Worker]) -> tuple[float, float]:
    # What all processes used, and what ours did (Linux).
    if sys.platform != "linux":
        return 0.0, 0.0
    tick = os.sysconf("SC_CLK_TCK")
    user, nice, system, _, _, irq, soft, steal = map(int, Path("/proc/stat").read_text().split("\n")[0].split()[1:9])
    own = 0
    for pid in (os.getpid(), *(worker.pid for worker in started.values())):
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        own += int(fields[11]) + int(fields[12])
    return (user + nice + system + irq + soft + steal) / tick, own / tick


def _others(before: tuple[float, float, float], started: dict[str, Worker]) -> float:
    seconds, everyone, own = (
        b - a for a, b in zip(before, (time.perf_counter(), *_processor_seconds(started)), strict=True)
    )
    return round((everyone - own) / seconds / (os.cpu_count() or 1), 3)


def measure_growth(able: list[Contestant], sources: dict[str, Path], state: State) -> None:
    """Microseconds per token of ever larger calls of texts of 128 tokens, in turn; ours alone."""
    found = state.at("growing")
    if len(found.get(str(GROWING[0]), [])) >= 5:
        return
    with workers([one for one in able if one.name == NATIVE], sources, 2, sources["logs"]) as started:
        for number in range(6):
            for texts in GROWING:
                time.sleep(SPINNING_SECONDS)
                ms = started[NATIVE].milliseconds(random_batch(f"{texts}x128"))
                if number:
                    found.setdefault(str(texts), []).append(round(1e3 * ms / texts / 128, 2))
    state.save()


def main() -> None:
    """Measure and write."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("int8", type=Path, help="the INT8 bundle of that checkpoint")
    arguments.add_argument("--fp32", type=Path, help="its fp32 bundle, to take part too")
    arguments.add_argument(
        "-o", "--output", type=Path, required=True, help="a folder; what peers read is kept there too"
    )
    arguments.add_argument("--corpus", type=Path, help="real text, a line each, or JSONL with text or t; .gz may be")
    arguments.add_argument("--peers", nargs="+", choices=MODULES, default=MODULES, help="leave out all others")
    arguments.add_argument("--threads", type=int, nargs="+", default=[2, 1])
    arguments.add_argument("--shapes", nargs="+", default=SHAPES, metavar="BATCHxTOKENS")
    arguments.add_argument(
        "--seconds", type=float, default=float("inf"), help="stop after a step when so many are over"
    )
    arguments.add_argument(
        "--publish",
        action="store_true",
        help="keep this measurement for its kind of machine (compared/), and rewrite docs/benchmarks.md and README.md",
    )
    chosen = arguments.parse_args()
    sources = {"checkpoint": chosen.checkpoint, "int8": chosen.int8}
    sources |= {"prepared": chosen.output, "logs": chosen.output / "logs"} | (
        {"fp32": chosen.fp32} if chosen.fp32 else {}
    )
    sources["logs"].mkdir(parents=True, exist_ok=True)
    state = State(chosen.output / "compare.json", chosen.seconds)
    bundle, machine = Bundle.open(chosen.int8), this_machine()
    state.values["machine"] = {"cpu": machine.cpu, "kernels": machine.kernels, "instructions": machine.instructions}
    batches = {shape: random_batch(shape) for shape in chosen.shapes}
    batches["corpus"] = corpus_batches(chosen.corpus, Tokenizer(bundle))
    state.values["work"] = {k: [work(bundle, [len(t) for t in b]) for b in parts] for k, parts in batches.items()}
    state.values["tokens"] = {k: [len(t) for b in parts for t in b] for k, parts in batches.items()}
    try:
        able = verify(prepare(sources, state, chosen.peers), sources, state)
        measure_load(able, sources, state)
        measure_times(able, sources, state, batches, chosen.threads[0])
        measure_growth(able, sources, state)
        for threads in chosen.threads[1:]:
            measure_times(able, sources, state, batches, threads)
        state.save()
    finally:
        if state.values.get("times"):
            (chosen.output / "compare.md").write_text(markdown(state.values), "utf-8")
            plot(state.values, chosen.output / "compare.png")
    print(markdown(state.values), end="")
    if chosen.publish:
        publish(chosen.output)


if __name__ == "__main__":
    main()
