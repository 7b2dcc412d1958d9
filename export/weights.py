"""Weights of a checkpoint as the initializers of a graph that was made without them."""

import math
from collections.abc import Mapping

import ml_dtypes  # noqa: F401  (adds bfloat16 to numpy)
import numpy as np
import onnx_ir as ir

from moembed.errors import CheckpointError
from moembed.models.checkpoint import listed
from moembed.models.config import NetworkConfig
from moembed.models.families import family_of
from moembed.models.parameters import Parameter
from moembed.models.roles import Role, role
from moembed.models.weights import Weights

WITHOUT_WEIGHTS = "weights"  # location of the content that a graph without weights lacks
_ROTARY = ("cos", "sin")
_DTYPES = {"F32": ir.DataType.FLOAT, "F16": ir.DataType.FLOAT16, "BF16": ir.DataType.BFLOAT16}
_SMALL = 1 << 16  # elements; smaller tensors are read at once


def is_weight(value: ir.Value) -> bool:
    """Return True for an initializer whose content depends on the checkpoint or follows from its configuration."""
    return role(value.name) is not None or value.name in _ROTARY


def fill(model: ir.Model, config: NetworkConfig, weights: Weights) -> ir.Model:
    """Give a graph the weights of a checkpoint, mapped from its files until they are read; changes and returns `model`.

    Args:
        model: the graph of the checkpoint's configuration, see `moembed.export.templates`.
        config: the configuration.
        weights: open weights, which must stay as they are while the model is used.

    Raises:
        CheckpointError: a weight holds NaN or infinity.
    """
    family = family_of(config)
    tables, parameters = family.tables(config), {one.name: one for one in family.parameters(config)}
    broken = []
    for value in model.graph.initializers.values():
        name = str(value.name)
        if (found := role(name)) is not None:
            tensor = _tensor(found, value, parameters, weights)
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


def _tensor(found: Role, value: ir.Value, parameters: Mapping[str, Parameter], weights: Weights) -> ir.TensorProtocol:
    """Return the content of an initializer: a mapped part of a file, or a tensor that is made or widened when it is read."""
    parameter = parameters[Role(found.kind, found.layer).name]
    shape = value.shape
    if shape is None:
        raise ValueError(f"the template has no shape for {value.name}")
    if not parameter.parts:
        return ir.Tensor(np.zeros(shape.numpy(), np.float32), name=value.name)
    if not parameter.is_whole:
        return ir.LazyTensor(lambda: _assembled(parameter, weights), ir.DataType.FLOAT, shape, name=value.name)
    (part,) = parameter.parts
    stored = weights.stored(part.name)
    row = stored.size // stored.shape[0]
    # Experts are stacked: each has as many rows as the initializer.
    first = part.first + (0 if found.expert is None else found.expert * shape.numpy()[0])
    offset, length = stored.offset + first * row, int(math.prod(shape.numpy()) * _DTYPES[stored.dtype].itemsize)
    # Not an ir.ExternalTensor: that refuses files with several hard links, which caches and copies make.
    file = np.memmap(stored.path, np.uint8, "r", offset, (length,))
    mapped = np.asarray(file).view(_DTYPES[stored.dtype].numpy()).reshape(shape.numpy())
    if stored.dtype == "F32" and mapped.size > _SMALL:
        return ir.Tensor(mapped, name=value.name)

    def widened() -> ir.TensorProtocol:
        return ir.Tensor(np.array(mapped, np.float32), name=value.name)

    return widened() if mapped.size <= _SMALL else ir.LazyTensor(widened, ir.DataType.FLOAT, shape, name=value.name)


def _assembled(parameter: Parameter, weights: Weights) -> ir.TensorProtocol:
    def read(name: str) -> np.ndarray:
        return np.asarray(weights.get_tensor(name)).astype(np.float32, copy=False)

    return ir.Tensor(np.ascontiguousarray(parameter.assemble(read, np.concatenate)), name=parameter.name)


def _is_finite(array: np.ndarray) -> bool:
    rows = array.reshape(len(array), -1)
    return all(np.isfinite(rows[start : start + 4096]).all() for start in range(0, len(rows), 4096))
