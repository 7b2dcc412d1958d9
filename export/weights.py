"""Weights of a checkpoint as the initializers of a graph that was made without them."""

import ml_dtypes  # noqa: F401  (adds bfloat16 to numpy)
import numpy as np
import onnx_ir as ir

from moembed.errors import CheckpointError
from moembed.models.checkpoint import listed
from moembed.models.config import NomicMoeConfig
from moembed.models.roles import Role, role
from moembed.models.rotary import rotary_table
from moembed.models.weights import Weights

WITHOUT_WEIGHTS = "weights"  # location of the content that a graph without weights lacks
_ROTARY = ("cos", "sin")
_DTYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
_SMALL = 1 << 16  # elements; smaller tensors are read at once


def is_weight(value: ir.Value) -> bool:
    """Return True for an initializer whose content depends on the checkpoint or follows from its configuration."""
    return role(value.name) is not None or value.name in _ROTARY


def fill(model: ir.Model, config: NomicMoeConfig, weights: Weights) -> ir.Model:
    """Give a graph the weights of a checkpoint, mapped from its files until they are read; changes and returns `model`.

    Args:
        model: the graph of the checkpoint's configuration, see `moembed.export.templates`.
        config: the configuration.
        weights: open weights, which must stay as they are while the model is used.

    Raises:
        CheckpointError: a weight holds NaN or infinity.
    """
    tables = dict(zip(_ROTARY, rotary_table(config), strict=True))
    broken = []
    for value in model.graph.initializers.values():
        name = str(value.name)
        if (found := role(name)) is not None:
            tensor = _tensor(found, value, weights)
            if not _is_finite(tensor.numpy()):
                broken.append(name)
            value.const_value = tensor
        elif name in tables:
            value.const_value = ir.Tensor(tables[name], name=name)
    if broken:
        raise CheckpointError(
            f"the weights hold NaN or infinity in {listed(broken)}: save them again with finite values"
        )
    return model


def _tensor(found: Role, value: ir.Value, weights: Weights) -> ir.TensorProtocol:
    """Return the content of an initializer: a mapped part of a file, or a tensor that is widened to float32 when it is read."""
    stored = weights.stored(Role(found.kind, found.layer).name)
    shape = value.shape
    if shape is None:
        raise ValueError(f"the template has no shape for {value.name}")
    offset, length = stored.offset, stored.size
    if found.expert is not None:
        # Experts are stacked: each has as many rows as the initializer.
        length = stored.size // stored.shape[0] * shape.numpy()[0]
        offset += found.expert * length
    mapped = ir.ExternalTensor(
        stored.path.name,
        offset,
        length,
        _DTYPES[stored.dtype],
        shape=shape,
        name=str(value.name),
        base_dir=stored.path.parent,
    )
    if stored.dtype == "F32" and mapped.size > _SMALL:
        return mapped

    def widened() -> ir.TensorProtocol:
        return ir.Tensor(np.array(mapped.numpy(), np.float32), name=value.name)

    return widened() if mapped.size <= _SMALL else ir.LazyTensor(widened, ir.DataType.FLOAT, shape, name=value.name)


def _is_finite(array: np.ndarray) -> bool:
    rows = array.reshape(len(array), -1)
    return all(np.isfinite(rows[start : start + 4096]).all() for start in range(0, len(rows), 4096))
