"""OpenVINO, from our own network: its operators in plain torch, then `openvino.convert_model`, then nncf for int8 weights.

The graph is on padded tokens, which suits OpenVINO better than packing. Experts are evaluated in two ways: `sparse` gathers the
tokens of each expert, `dense` lets every expert see every token (4 times the arithmetic of these layers, no dynamic shapes).
"""

from pathlib import Path

import numpy as np
import openvino
from peers.padded import Embed, Texts, padded

WAYS = ("sparse", "dense")


def version() -> str:
    """What is installed."""
    import nncf

    return f"openvino {openvino.__version__.split('-')[0]}, nncf {nncf.__version__}"


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write `WAY.xml` with float32 weights and `WAY-int8.xml` with weights of 8 bits, for both ways."""
    import nncf
    import torch
    from peers.plain import Plain

    from moembed.models.checkpoint import load_network

    for way in WAYS:
        if (folder / f"{way}-int8.xml").exists():
            continue
        example = torch.randint(5, 1000, (2, 24))
        mask = torch.ones_like(example)
        mask[1, 17:] = 0
        with torch.inference_mode():
            model = openvino.convert_model(
                Plain(load_network(checkpoint), way), example_input=(example, mask), input=([-1, -1], [-1, -1])
            )
        openvino.save_model(model, folder / f"{way}.xml", compress_to_fp16=False)
        model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
        openvino.save_model(model, folder / f"{way}-int8.xml", compress_to_fp16=False)


def load(source: Path, mode: str, threads: int) -> Embed:
    """Compile a graph that `prepare` left in the folder `source`; `mode` is `WAY`, `WAY-int8`, then options as `key=value`."""
    name, *options = mode.split(",")
    settings: dict[str, object] = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "bf16",
    }
    settings |= dict(option.split("=") for option in options)
    request = openvino.Core().compile_model(source / f"{name}.xml", "CPU", settings).create_infer_request()

    def embed(texts: Texts) -> np.ndarray:
        return next(iter(request.infer(padded(texts), share_inputs=True).values())).copy()

    return embed
