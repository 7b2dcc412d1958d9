"""A float32 bundle against the torch network it was traced from: the same texts, interleaved, medians and ratios.

    python tests/checkpoints.py /tmp/full --full            # random weights of the published size
    moembed export /tmp/full -o /tmp/full-bundle
    python tests/benchmarks/fp32.py /tmp/full /tmp/full-bundle

Prints a Markdown table. Times are of one call in milliseconds; a ratio above 1 means that the bundle is faster.
"""

import argparse
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from common import SHAPES, interleaved, row

from moembed.bundle import Bundle
from moembed.machine import this_machine
from moembed.models.checkpoint import load_network
from moembed.session import Session


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("checkpoint", type=Path)
    arguments.add_argument("bundle", type=Path)
    arguments.add_argument("--threads", type=int, default=2)
    arguments.add_argument("--rounds", type=int, default=15)
    chosen = arguments.parse_args()
    torch.set_num_threads(chosen.threads)
    network = load_network(chosen.checkpoint)
    session = Session(Bundle.open(chosen.bundle), threads=chosen.threads)
    print(
        f"{this_machine().cpu}, {chosen.threads} threads, onnxruntime {onnxruntime.__version__}, torch {torch.__version__}, "
        f"{chosen.rounds} interleaved rounds, median (min-max) ms\n"
    )
    print("| batch x tokens | moembed fp32 | torch fp32 | ratio of medians |\n|---|---|---|---|")
    rng = np.random.default_rng(0)
    for batch, length in SHAPES:
        ids = rng.integers(5, network.config.vocab_size - 64, (batch, length))
        mask = np.ones_like(ids)
        tensors = torch.from_numpy(ids), torch.from_numpy(mask)

        def by_torch(tensors: tuple[torch.Tensor, torch.Tensor] = tensors) -> object:
            with torch.inference_mode():
                return network(*tensors)

        def by_bundle(ids: np.ndarray = ids, mask: np.ndarray = mask) -> object:
            return session.run("sentence_embedding", ids, mask)

        times = interleaved({"moembed": by_bundle, "torch": by_torch}, chosen.rounds)
        print(row((batch, length), times), flush=True)


if __name__ == "__main__":
    main()
