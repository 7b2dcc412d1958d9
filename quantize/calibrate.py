"""What the norms of a model put out: the largest absolute value of every channel, over some texts."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from moembed.export.parity import instrumented

Maxima = dict[str, NDArray[np.float32]]


def norm_maxima(graph: Path, texts: Iterable[list[int]]) -> Maxima:
    """Run texts through a float32 graph and watch its norms.

    Args:
        graph: an fp32 bundle's ONNX file.
        texts: token ids, special tokens included.

    Returns:
        Norm's name in the checkpoint (`emb_ln`, `encoder.layers.0.norm1`, ...) -> `[hidden]` float32.
    """
    model = onnx.load(graph, load_external_data=False)
    outputs = {
        node.input[1].removesuffix(".weight"): node.output[0]
        for node in model.graph.node
        if node.op_type == "LayerNormalization"
    }
    session = instrumented(model, graph.parent, list(outputs.values()))
    maxima: Maxima = {}
    for ids in texts:
        feed = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        for name, states in zip(outputs, session.run(list(outputs.values()), feed), strict=True):
            largest = np.abs(states).max(axis=0)
            maxima[name] = np.maximum(maxima[name], largest) if name in maxima else largest
    return maxima
