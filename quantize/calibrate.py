"""What the products of a model read, over some texts."""

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
from moembed.verify.parity import instrumented

Values = dict[str, NDArray[Any]]
MOST_TOKENS = 16384  # of the published size: 3 GB of values
_BATCH = 8


def observed(graph: Path, texts: Sequence[Ids]) -> Values:
    """Run texts through a float32 graph and keep what its linear layers and experts read.

    Args:
        graph: an fp32 bundle's ONNX file.
        texts: token ids, special tokens included. Reading stops at 16384 tokens.

    Returns:
        Name of a value of the graph -> what it was, `[T, width]` float32, or `[T, top_k]` int64 for the chosen experts.
    """
    model = onnx.load(graph, load_external_data=False)
    names = [node.input[0] for node in model.graph.node if node.op_type == "Gemm"]
    for node in model.graph.node:
        if node.op_type == "Experts":
            names += [node.input[0], node.input[2]]
    names = list(dict.fromkeys(names))
    session = instrumented(model, graph.parent, names)
    parts: list[list[NDArray[Any]]] = [[] for _ in names]
    tokens = 0
    for start in range(0, len(texts), _BATCH):
        ids, mask = pad(texts[start : start + _BATCH], 1)
        for part, value in zip(parts, session.run(names, {"input_ids": ids, "attention_mask": mask}), strict=True):
            part.append(value)
        tokens += int(mask.sum())
        if tokens >= MOST_TOKENS:
            break
    return {name: np.concatenate(part) for name, part in zip(names, parts, strict=True)}


def rows_of_expert(
    x: NDArray[np.float32], expert_indices: NDArray[np.int64], expert: int, w1: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What the two products of one expert read.

    Args:
        x: `[T, hidden]`, what all experts read.
        expert_indices: `[T, top_k]`.
        expert: which.
        w1: `[ffn, hidden]`, its first matrix.

    Returns:
        The expert's rows of `x`, `[t, hidden]`, and `gelu(rows @ w1.T)`, `[t, ffn]`.
    """
    rows = x[(expert_indices == expert).any(axis=1)]
    return rows, F.gelu(F.linear(torch.tensor(rows), torch.tensor(w1))).numpy()
