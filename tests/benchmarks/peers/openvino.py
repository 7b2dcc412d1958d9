"""OpenVINO, from our own network: its operators in plain torch, then `openvino.convert_model`, then nncf for int8 weights.

What was tried and is not here because it is slower: all experts for all tokens in place of gathered ones (1.5 times at 16
tokens, 2.1 at 512); float32 in place of bfloat16 (with int8 weights and dynamic int8 about the same up to 128 tokens, 1.2
times at 1024).
"""

from pathlib import Path

import numpy as np
import openvino

from peers.padded import Embed, Texts, padded


def version() -> str:
    """What is installed."""
    import nncf

    return f"openvino {openvino.__version__.split('-')[0]}, nncf {nncf.__version__}"


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write `network.xml` with float32 weights and `network-int8.xml` with weights of 8 bits."""
    import nncf
    import torch

    from moembed.models.checkpoint import load_network
    from peers.plain import Plain

    if (folder / "network-int8.xml").exists():
        return
    example = torch.randint(5, 1000, (2, 24))
    mask = torch.ones_like(example)
    mask[1, 17:] = 0
    with torch.inference_mode():
        network = Plain(load_network(checkpoint))
        model = openvino.convert_model(network, example_input=(example, mask), input=([-1, -1], [-1, -1]))
    openvino.save_model(model, folder / "network.xml", compress_to_fp16=False)
    model = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT8_ASYM)
    openvino.save_model(model, folder / "network-int8.xml", compress_to_fp16=False)


def load(source: Path, mode: str, threads: int) -> Embed:
    """Compile a graph that `prepare` left in the folder `source`; `mode` is its name, then options as `key=value`."""
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
