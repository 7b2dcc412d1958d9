"""From the PyTorch network to an ONNX model in memory, by `torch.export` and the dynamo-based exporter.

The custom ops of `moembed.models.ops` are one node each in the trace and become one node each in domain `moembed`; the
loop over experts is never traced.
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
from moembed.models.network import NomicMoe

INPUTS = ("input_ids", "attention_mask")
OUTPUTS = ("sentence_embedding", "token_embeddings")


def trace(network: NomicMoe) -> ir.Model:
    """Trace a network with dynamic batch and sequence.

    Args:
        network: in evaluation mode; its parameters become the model's initializers without a copy.

    Returns:
        The model, inputs `INPUTS` int64 `[batch, sequence]`, outputs `OUTPUTS`, without function bodies.
    """
    # Any example does, as long as no dimension is 0 or 1 (which torch.export takes for constants) and the two differ.
    # The two are distinct tensors: one tensor given twice is traced as one input.
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
    if exported is None:  # pragma: no cover  (the exporter's type says so; it raises instead)
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
    """Keep the exporter's progress chatter and its notes on torchvision out of the user's terminal."""
    level = logging.getLogger("torch.onnx").level
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger("torch.onnx").setLevel(level)
