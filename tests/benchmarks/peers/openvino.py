"""OpenVINO, from our own network: its operators in plain torch, then `openvino.convert_model`, then nncf for 8 bits: of weights
alone (`compress_weights`), or of weights and activations with static scales (`quantize`).

SmoothQuant and bias correction are off: with them the mean cosine over the probe texts falls from 0.993 to 0.942, at the same
speed. What was tried and is not here because it is slower: all experts for all tokens in place of gathered ones (1.5 times at 16
tokens, 2.1 at 512); float32 in place of bfloat16 (with int8 weights and dynamic int8 about the same up to 128 tokens, 1.2
times at 1024).
"""

from pathlib import Path

import numpy as np
import openvino

from peers.padded import Embed, Texts, padded

# Lengths of the texts of random ids that NNCF calibrates with. Each is long enough to reach every expert: an expert without
# tokens gives statistics that are no numbers.
CALIBRATION = (512, 384, 320, 256, 200, 160, 128, 96, 500, 400, 300, 250, 220, 180, 140, 100)


def version() -> str:
    """What is installed."""
    import nncf

    return f"openvino {openvino.__version__.split('-')[0]}, nncf {nncf.__version__}"


def prepare(checkpoint: Path, folder: Path) -> None:
    """Write `network.xml` (float32), `network-int8.xml` (weights of 8 bits) and `network-nncf.xml` (all products of 8 bits)."""
    import nncf

    prepare_weights(checkpoint, folder)
    if not (folder / "network-nncf.xml").exists():
        model = _read(folder)
        names = [one.get_any_name() for one in model.inputs]
        rows = [np.random.default_rng(length).integers(5, 40_000, (1, length)) for length in CALIBRATION]
        items = nncf.Dataset(rows, lambda ids: dict(zip(names, (ids, np.ones_like(ids)), strict=True)))
        plain = nncf.AdvancedQuantizationParameters(
            disable_bias_correction=True, smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=-1)
        )
        transformer = nncf.ModelType.TRANSFORMER
        model = nncf.quantize(model, items, model_type=transformer, subset_size=len(rows), advanced_parameters=plain)
        openvino.save_model(model, folder / "network-nncf.xml", compress_to_fp16=False)


def prepare_weights(checkpoint: Path, folder: Path) -> None:
    """Write `network.xml` and `network-int8.xml`, of a network of any family."""
    import nncf

    if not (folder / "network-int8.xml").exists():
        openvino.save_model(_converted(checkpoint), folder / "network.xml", compress_to_fp16=False)
        model = nncf.compress_weights(_read(folder), mode=nncf.CompressWeightsMode.INT8_ASYM)
        openvino.save_model(model, folder / "network-int8.xml", compress_to_fp16=False)


def _read(folder: Path) -> openvino.Model:
    return openvino.Core().read_model(folder / "network.xml")


def _converted(checkpoint: Path) -> openvino.Model:
    import torch

    from moembed.models.checkpoint import load_network
    from peers.plain import Plain

    example = torch.randint(5, 1000, (2, 24))
    mask = torch.ones_like(example)
    mask[1, 17:] = 0
    with torch.inference_mode():
        network = Plain(load_network(checkpoint))
        return openvino.convert_model(network, example_input=(example, mask), input=([-1, -1], [-1, -1]))


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
