"""From an INT8 bundle back to float32 parameters: the inverse of `moembed.quantize.rewrite`, up to what rounding lost."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.numpy_helper import to_array

from moembed.bundle.external_data import read_graph
from moembed.errors import CheckpointError
from moembed.models.checkpoint import expected_tensors
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.roles import Kind, Role, role
from moembed.quantize.functions import EMBEDDINGS
from moembed.quantize.layout import dequantize_blocks, unpack
from moembed.quantize.pipeline import GRAPH
from moembed.quantize.rewrite import integers_name, scale_name, smooth_name

Floats = NDArray[np.float32]
# Kinds of weights whose input is the output of a norm, and was multiplied by its smoothing factors.
_SMOOTHED = (Kind.QKV, Kind.FC1, Kind.EXPERTS_W1, Kind.PROJECTION)


def dequantize(folder: Path) -> dict[str, Floats]:
    """Return the parameters that the integers of an INT8 bundle stand for.

    Args:
        folder: the bundle, of any recipe.

    Returns:
        Name of a tensor in the checkpoint's layout -> its values, C-contiguous: safetensors writes arrays as they lie in memory.

    Raises:
        CheckpointError: the folder has no readable INT8 graph or `config.json`.
    """
    config = NomicMoeConfig.from_file(folder / "config.json")
    path = folder / GRAPH
    try:
        content, data = read_graph(path)
        model = onnx.ModelProto.FromString(content)
        onnx.load_external_data_for_model(model, str(data))
        stored = {tensor.name: to_array(tensor) for tensor in model.graph.initializer}
        (embedding,) = (node for node in model.graph.node if node.op_type in EMBEDDINGS.values())
    except Exception as error:  # onnx raises what it pleases
        raise CheckpointError(
            f"cannot read {path} as the graph of an INT8 bundle ({error}): copy or quantize the bundle again"
        ) from error
    parameters = {}
    for name in expected_tensors(config):
        found = role(name)
        if found == Role(Kind.TYPE_EMBEDDINGS):
            parameters[name] = stored[embedding.input[3]].astype(np.float32)[None]
        elif name in stored:
            parameters[name] = stored[name].astype(np.float32)
        elif found == Role(Kind.WORD_EMBEDDINGS):
            parameters[name] = _word_embeddings(*(stored[i] for i in embedding.input[1:3]), op=embedding.op_type)
        elif found is not None:
            smooth = stored[smooth_name(_norm_before(found, config))] if found.kind in _SMOOTHED else None
            parameters[name] = _weights(found, stored, smooth)
    return parameters


def _word_embeddings(values: NDArray[Any], scales: NDArray[Any], *, op: str) -> Floats:
    if op == EMBEDDINGS[8]:
        return np.asarray(values * scales[:, None], np.float32)
    return dequantize_blocks(values, scales)


def _norm_before(weight: Role, config: NomicMoeConfig) -> Role:
    """Return the norm whose output a smoothed weight reads."""
    if weight.kind in (Kind.FC1, Kind.EXPERTS_W1):
        return Role(Kind.NORM1, weight.layer)
    layer = config.num_layers if weight.layer is None else weight.layer
    return Role(Kind.NORM2, layer - 1) if layer else Role(Kind.EMBEDDING_NORM)


def _weights(weight: Role, stored: dict[str, NDArray[Any]], smooth: Floats | None) -> Floats:
    def matrix(name: str, scales: Floats) -> Floats:
        values = unpack(stored[integers_name(name)]).astype(np.float32) * scales[:, None]
        return values if smooth is None else np.asarray(values * smooth)

    scales = stored[scale_name(weight.name)]
    if weight.kind not in (Kind.EXPERTS_W1, Kind.EXPERTS_W2):
        return matrix(weight.name, scales)
    experts = [matrix(Role(weight.kind, weight.layer, i).name, scale) for i, scale in enumerate(scales)]
    # An expert's second matrix is stored transposed: its outputs are the hidden channels.
    return np.concatenate(
        [np.ascontiguousarray(part.T) for part in experts] if weight.kind is Kind.EXPERTS_W2 else experts
    )
