"""Tracing of the PyTorch network to an ONNX model in memory, by `torch.export` and the dynamo-based exporter.

Each custom op of `moembed.models.ops` is one node in the trace and becomes one node in domain `moembed`; the loop over experts is
never traced.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import onnx_ir as ir
import torch
from onnxscript import values

from moembed.export.functions import DOMAIN, OPSET, SCHEMAS, VERSION
from moembed.models.text_encoder import TextEncoder

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("sentence_embedding", "token_embeddings")


def trace(network: TextEncoder) -> ir.Model:
    """Trace a network with dynamic batch and sequence.

    Args:
        network: in evaluation mode; its parameters become the model's initializers without a copy.

    Returns:
        The model, inputs `INPUTS` int64 `[batch, sequence]`, outputs `OUTPUTS`, without function bodies.
    """
    # Any example works in which no dimension is 0 or 1, which torch.export treats as constants, and the two differ.
    # The tensors are distinct: one tensor passed twice is traced as one input.
    ids, mask = torch.zeros(2, 7, dtype=torch.int64), torch.ones(2, 7, dtype=torch.int64)
    dims = {0: torch.export.Dim("batch"), 1: torch.export.Dim("sequence")}
    with _quiet():
        program = torch.export.export(
            network, (ids, mask), dynamic_shapes={"input_ids": dims, "attention_mask": dims}, strict=False
        )
        exported = torch.onnx.export(
            program,
            (),
            dynamo=True,
            opset_version=OPSET,
            input_names=INPUTS,
            output_names=OUTPUTS,
            custom_translation_table={getattr(torch.ops.moembed, name).default: _node(name) for name in SCHEMAS},
            optimize=True,
            verbose=False,
        )
    if exported is None:  # pragma: no cover  (allowed by the type; the exporter raises instead)
        raise RuntimeError("torch.onnx.export returned nothing")
    return exported.model


def _node(name: str) -> Callable[..., Any]:
    op = values.Op(values.Opset(DOMAIN, VERSION), SCHEMAS[name].name, SCHEMAS[name])
    attributes = list(SCHEMAS[name].attributes)
    inputs = len(SCHEMAS[name].inputs)

    def translate(*arguments: Any) -> Any:
        return op(*arguments[:inputs], **dict(zip(attributes, arguments[inputs:], strict=True)))

    return translate


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's progress messages and its notes on torchvision."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
