"""Recording of the inputs of a model's linear layers and experts over calibration texts."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.inference.batching import pad
from moembed.tokenizer.tokenizer import Ids
from moembed.verify.parity import open_session

Activations = dict[str, NDArray[Any]]
MAX_TOKENS = 16384  # 3 GB of activations at the published size
_BATCH = 8


def record_activations(graph: Path, texts: Sequence[Ids]) -> Activations:
    """Run texts through a float32 graph and record the inputs of its linear layers and experts.

    Args:
        graph: an fp32 bundle's ONNX file.
        texts: token ids, special tokens included. Recording stops after 16384 tokens.

    Returns:
        Name of a value of the graph -> its content, `[T, width]` float32, or `[T, top_k]` int64 for expert indices.
    """
    model = onnx.load(graph, load_external_data=False)
    names = [node.input[0] for node in model.graph.node if node.op_type == "Gemm"]
    for node in model.graph.node:
        if node.op_type == "Experts":
            names += [node.input[0], node.input[2]]
    names = list(dict.fromkeys(names))
    session = open_session(model, graph.parent, names)
    parts: list[list[NDArray[Any]]] = [[] for _ in names]
    tokens = 0
    for start in range(0, len(texts), _BATCH):
        ids, mask = pad(texts[start : start + _BATCH], 1)
        for part, value in zip(parts, session.run(names, {"input_ids": ids, "attention_mask": mask}), strict=True):
            part.append(value)
        tokens += int(mask.sum())
        if tokens >= MAX_TOKENS:
            break
    return {name: np.concatenate(part) for name, part in zip(names, parts, strict=True)}


def expert_inputs(
    x: NDArray[np.float32], expert_indices: NDArray[np.int64], expert: int, w1: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compute the inputs of the two products of one expert.

    Args:
        x: `[T, hidden]`, the input of all experts.
        expert_indices: `[T, top_k]`.
        expert: the expert's index.
        w1: `[ffn, hidden]`, its first matrix.

    Returns:
        The rows of `x` that are routed to the expert, `[t, hidden]`, and `gelu(rows @ w1.T)`, `[t, ffn]`.
    """
    rows = x[(expert_indices == expert).any(axis=1)]
    return rows, F.gelu(F.linear(torch.tensor(rows), torch.tensor(w1))).numpy()
