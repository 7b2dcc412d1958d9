"""Everyone who can run this network on a CPU, measured in turn on the same ids: the tables of docs/benchmarks.md and README.

    pip install "moembed[export,eval,bench]"
    PYTHONPATH=tests python -m support.checkpoints full --full
    moembed export full -o full-fp32 && moembed quantize full-fp32 -o full-int8
    python tests/benchmarks/compare.py full full-int8 --fp32 full-fp32 -o compared [--corpus TEXTS] [--publish]

Each contestant has a process of its own and must first give the vectors of the torch network, as closely as `contestants.py`
says. Then they take turns. A turn is a pause, since threads of the one before spin for a while, then one to ten calls that do
not count (until half a second is over), and then the call that is timed: what is compared is a stream of calls. Pages of memory
and caches that were not used for a second are slow at first, on a guest above all, and every contestant waits for its turn longer
than that. The first call that does not count is kept as the first call after a pause. A program that does nothing but read as
many bytes of weights as 1x16 needs takes turns too (`peers/reading.py`).

Shapes are random ids without padding. `mixed` is real text in mixed lengths, sorted by length, each contestant with the batches
that suit it best: of 1, 4, 16 or 32 texts, or as `Embedder` plans them. Load time and memory are of fresh processes with files
in the page cache. The limit of a shape is the larger of two times: its weights through memory, or its products at the rate of a
product of matrices from the cache (`limits.cpp`).

What is measured is kept in `compare.json` at once. `--seconds` ends the run early, with exit code 3; the same command goes on.
Delete that file to begin anew.

llama.cpp crashes in its AMX code with this network in some releases. Build it without then:
`CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_AVX512=ON -DGGML_AVX512_VNNI=ON" pip install
--no-binary llama-cpp-python llama-cpp-python`.
"""

import argparse
import importlib
import os
import sys
import time
from pathlib import Path

import numpy as np
from common import SPINNING_SECONDS
from contestants import (
    CONTESTANTS,
    EXACT,
    MODULES,
    NATIVE,
    READ,
    READING,
    Batches,
    Contestant,
    Worker,
    missing,
    reading,
    workers,
)
from limits import limits_of, measured, unit_of, weights_of, work
from mixed import MIXED, TOKENS, batches_of, measure_mixed, rows_of
from published import publish
from report import GROWING, LENGTHS, markdown, plot
from state import State

from moembed.bundle.bundle import Bundle
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.machine import this_machine

SHAPES = ("1x16", "1x32", "1x128", "1x512", "8x128", "32x128", "8x512")
PROBES = (1, 9, 40, 130, 64)
STARTS = 3


def rounds_of(tokens: int, most: int) -> int:
    """More of what is short, but not more than `most`."""
    return min(most, 15, max(3, 6000 // tokens))


def random_batch(shape: str, words: int = 40_000) -> Batches:
    """One batch of random ids below `words`."""
    batch, length = map(int, shape.split("x"))
    return [np.random.default_rng(0).integers(5, words, (batch, length)).tolist()]


def prepare(sources: dict[str, Path], state: State, wanted: list[str], without: list[str]) -> list[Contestant]:
    """Let every module write what it reads; those who can take part."""
    why = {}
    for module in MODULES:
        why[module] = missing(module) if module in wanted else "not asked for"
        peer = None if why[module] else importlib.import_module(f"peers.{module}")
        if peer and hasattr(peer, "prepare"):
            source = getattr(peer, "SOURCE", "checkpoint")
            if source not in sources:
                why[module] = "no bundle given"
                continue
            folder = sources["prepared"] / module
            folder.mkdir(parents=True, exist_ok=True)
            peer.prepare(sources[source], folder)
            state.save()
    able = []
    for one in CONTESTANTS:
        entry = state.at("contestants", one.name)
        absent = why[one.module] or ("no bundle given" if one.source == "fp32" and "fp32" not in sources else "")
        absent = absent or ("left out" if one.name in without else "")
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
    able: list[Contestant], sources: dict[str, Path], state: State, shapes: list[str], threads: int, most: int
) -> None:
    """Rounds of all shapes for a number of threads."""
    times, first = state.at("times", str(threads)), state.at("first", str(threads))
    left = {}
    for shape in shapes:
        wanted = rounds_of(sum(map(len, random_batch(shape)[0])), most)
        left[shape] = wanted - min(len(times.get(shape, {}).get(one.name, [])) for one in able)
    if not any(count > 0 for count in left.values()):
        return
    reader = reading(state.values["work"][READ][0]["bytes"]) if left.get(READ, 0) > 0 else None
    with workers([*([reader] if reader else []), *able], sources, threads, sources["logs"]) as started:
        for shape in shapes:
            found, found_first = times.setdefault(shape, {}), first.setdefault(shape, {})
            parts = random_batch(shape)
            for number in range(left[shape] + 1 if left[shape] > 0 else 0):
                before = time.perf_counter(), *_processor_seconds(started)
                one_round = {}
                for contestant, worker in started.items():
                    if contestant == READING and shape != READ:
                        continue
                    time.sleep(SPINNING_SECONDS)
                    one_round[contestant] = worker.milliseconds(parts)
                if not number:  # of a new process, or the first of a shape: other memory is taken
                    continue
                if reader and shape == READ:
                    state.at("reading").setdefault(str(threads), []).append(round(one_round.pop(READING)[1], 3))
                for contestant, (waited, ms) in one_round.items():
                    found_first.setdefault(contestant, []).append(round(waited, 3))
                    found.setdefault(contestant, []).append(round(ms, 3))
                state.at("others", str(threads)).setdefault(shape, []).append(_others(before, started))
                state.save()
            print(threads, shape, {k: round(float(np.median(v)), 1) for k, v in found.items()}, file=sys.stderr)


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


def measure_growth(able: list[Contestant], sources: dict[str, Path], state: State, limit: int) -> None:
    """Microseconds per token of ever larger calls of texts of 128 tokens, and of ever longer texts, in turn; ours alone."""
    shapes = {
        "growing": {str(n): f"{n}x128" for n in GROWING},
        "lengths": {str(n): f"1x{n}" for n in LENGTHS if n <= limit},
    }
    if all(len(state.at(kind).get(key, [])) >= 5 for kind, found in shapes.items() for key in found):
        return
    with workers([one for one in able if one.name == NATIVE], sources, 2, sources["logs"]) as started:
        for kind, of_kind in shapes.items():
            found: dict[str, list[float]] = {}
            for number in range(6):
                for key, shape in of_kind.items():
                    time.sleep(SPINNING_SECONDS)
                    batches = random_batch(shape)
                    _, ms = started[NATIVE].milliseconds(batches)
                    if number:
                        found.setdefault(key, []).append(round(1e3 * ms / sum(map(len, batches[0])), 2))
            state.at(kind).update(found)
    state.save()


def measure_limits(state: State, bundle: Bundle, threads: int) -> None:
    """What the machine can do with so many threads, before and after the rounds: the best of all counts."""
    kernels = state.values["machine"]["kernels"]
    found = measured(threads, weights_of(bundle))
    state.values["unit"] = unit_of(found, kernels)
    state.at("limits").setdefault(str(threads), []).append(limits_of(found, kernels))
    state.at("units").setdefault(str(threads), []).append(found)
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
    arguments.add_argument("--texts", type=int, default=2000, help="so many texts of it (default: 2000)")
    arguments.add_argument("--rounds", type=int, default=15, help="at most so many rounds (default: 15)")
    arguments.add_argument("--peers", nargs="+", choices=MODULES, default=MODULES, help="leave out all others")
    arguments.add_argument("--without", nargs="+", default=[], metavar="NAME", help="leave out these contestants")
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
    state.values["protocol"] = 2
    shapes = list(chosen.shapes)
    rows = rows_of(chosen.corpus, chosen.texts, Tokenizer(bundle), bundle.manifest.max_tokens)
    batches = {shape: random_batch(shape) for shape in shapes} | {MIXED: batches_of(rows, TOKENS)}
    for name, parts in batches.items():
        if name not in state.at("work"):
            state.at("work")[name] = [work(bundle, part) for part in parts]
            state.at("tokens")[name] = [len(text) for part in parts for text in part]
    try:
        able = verify(prepare(sources, state, chosen.peers, chosen.without), sources, state)
        measure_load(able, sources, state)
        for threads in chosen.threads:
            if str(threads) not in state.at("limits"):
                measure_limits(state, bundle, threads)
            measure_times(able, sources, state, shapes, threads, chosen.rounds)
            if threads == chosen.threads[0]:
                measure_mixed(able, sources, state, rows, threads, min(3, chosen.rounds))
                measure_growth(able, sources, state, bundle.manifest.max_tokens)
            if len(state.at("limits")[str(threads)]) < 2:
                measure_limits(state, bundle, threads)
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
