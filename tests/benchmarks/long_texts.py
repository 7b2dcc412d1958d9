"""Memory and time of one long text: a network with the layers of gte-multilingual-base and random weights, in INT8.

    PYTHONPATH=tests python tests/benchmarks/long_texts.py [--tokens 8192] [--layers 12] [--kernels NAME ...] [--keep FOLDER]

Prints a Markdown table with a line per set of kernels, each in a fresh process: the private memory of the open session, the most
that it had while it computed the text (sampled, Linux), and the time of that call. Weights are mapped and not private. The
vocabulary is small, which changes neither. `--keep` leaves the graph in a folder, and uses one that is there.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from worker import memory

from moembed.bundle.external_data import read_graph
from moembed.inference.kernels import PORTABLE, Kernels, usable_kernels
from moembed.inference.session import run, session_options, session_with_outputs

VOCABULARY, SAMPLE_SECONDS = 1024, 0.02


def write_int8(graph: Path, layers: int, tokens: int) -> None:
    """Write the INT8 graph of a random network, without the careful rounding of weights, which takes minutes."""
    from moembed.export.templates import make_template
    from moembed.export.weights import fill
    from moembed.export.writer import write_graph
    from moembed.models.checkpoint import open_checkpoint
    from moembed.quantize.recipe import load_recipe
    from moembed.quantize.rewrite import Rewriter
    from support.full_networks import write_full

    sizes = {"num_hidden_layers": layers, "max_position_embeddings": tokens, "vocab_size": VOCABULARY}
    with TemporaryDirectory() as name:
        checkpoint = write_full(Path(name) / "checkpoint", "gte-multilingual-base", **sizes)
        with open_checkpoint(checkpoint, "np") as (config, weights):
            model = fill(make_template(config), config, weights)
            ids = [np.random.default_rng(0).integers(0, VOCABULARY, 128).tolist()]
            write_graph(Rewriter(model, load_recipe("int8"), ids, compensate=False).run(), graph, {"recipe": "int8"})


def measure(graph: Path, tokens: int, kernels: str, threads: int) -> tuple[float, float, float]:
    """Private megabytes before and at most during a call, and its seconds."""
    options = session_options(Kernels(kernels), threads)
    options.intra_op_num_threads = threads
    session = session_with_outputs(*read_graph(graph), [], options)
    ids = np.random.default_rng(1).integers(0, VOCABULARY, (1, tokens))

    def call(length: int) -> None:
        part = ids[:, :length]
        run(session, ["sentence_embedding"], part, np.ones_like(part), str(graph))

    call(16)
    before, ended = memory()["private_mb"], threading.Event()
    peaks = [before]

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            peaks.append(memory()["private_mb"])

    sampler = threading.Thread(target=sample)
    sampler.start()
    start = time.perf_counter()
    call(tokens)
    seconds = time.perf_counter() - start
    ended.set()
    sampler.join()
    return before, max(peaks), seconds


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--tokens", type=int, default=8192)
    arguments.add_argument("--layers", type=int, default=12)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--kernels", nargs="+", default=[usable_kernels()[0], PORTABLE])
    arguments.add_argument("--keep", type=Path, metavar="FOLDER")
    arguments.add_argument("--graph", type=Path, help=argparse.SUPPRESS)  # of the process that measures
    chosen = arguments.parse_args()
    if chosen.graph is not None:
        (kernels,) = chosen.kernels
        print(json.dumps(measure(chosen.graph, chosen.tokens, kernels, chosen.threads)))
        return
    with TemporaryDirectory() as name:
        graph = (chosen.keep or Path(name)) / "graph" / "model.onnx"
        if not graph.exists():
            write_int8(graph, chosen.layers, chosen.tokens)
        print("| kernels | tokens | layers | session MB | peak MB | s |\n|---|---|---|---|---|---|")
        for kernels in chosen.kernels:
            command = [sys.executable, __file__, "--graph", str(graph), "--kernels", kernels]
            command += ["--tokens", str(chosen.tokens), "--threads", str(chosen.threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            before, peak, seconds = json.loads(done.stdout)
            print(f"| `{kernels}` | {chosen.tokens} | {chosen.layers} | {before:.0f} | {peak:.0f} | {seconds:.1f} |")


if __name__ == "__main__":
    main()
