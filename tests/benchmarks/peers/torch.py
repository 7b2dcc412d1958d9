"""torch: the network of `moembed.models`, which visits the chosen experts one after the other on packed tokens."""

from pathlib import Path

import numpy as np
import torch

from moembed.models.checkpoint import load_network
from peers.padded import Embed, Texts, padded


def version() -> str:
    """What is installed."""
    return f"torch {torch.__version__}"


def load(source: Path, mode: str, threads: int) -> Embed:
    """Open the checkpoint `source`; `mode` is a dtype, or `no-expert-bias`: float32 without what llama.cpp drops."""
    torch.set_num_threads(threads)
    network = load_network(source)
    if mode == "no-expert-bias":
        for layer in network.config.moe_layers:
            network.encoder.layers[layer].mlp.experts.bias.zero_()
    else:
        network.to(getattr(torch, mode))

    def embed(texts: Texts) -> np.ndarray:
        with torch.inference_mode():
            vectors, _ = network(*(torch.from_numpy(part) for part in padded(texts)))
            return vectors.float().numpy()

    return embed
