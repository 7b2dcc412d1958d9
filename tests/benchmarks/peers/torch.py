"""torch: the network of `moembed.models`, which visits the chosen experts one after the other on packed tokens.

Modes that were tried on an AMX Xeon, milliseconds at 1x128 and 8x128: bfloat16 70 and 332; compiled bfloat16 73 and 368 (with
`dynamic=True` 78 and 392); 8 bits by `quantize_dynamic` 82 and 496, with the engine fbgemm 82 and 2,822.
"""

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from moembed.models.checkpoint import load_network
from moembed.models.nomic_bert_moe.network import Experts, NomicMoe
from peers.padded import Embed, Texts, padded


def version() -> str:
    """What is installed."""
    return f"torch {torch.__version__}"


def load(source: Path, mode: str, threads: int) -> Embed:
    """Open the checkpoint `source`.

    Args:
        source: the checkpoint.
        mode: a dtype; a dtype and `,compile`; `int8`: linear layers and experts by `quantize_dynamic`, with a scale for the
            whole tensor of activations; or `no-expert-bias`: float32 without what llama.cpp drops.
        threads: threads of a call.
    """
    torch.set_num_threads(threads)
    network: nn.Module = load_network(source)
    dtype, _, compiled = mode.partition(",")
    if mode == "no-expert-bias":
        for layer in network.config.moe_layers:
            network.encoder.layers[layer].mlp.experts.bias.zero_()
    elif mode == "int8":
        network = _quantized(network)
    else:
        network.to(getattr(torch, dtype))
    if compiled:
        torch._dynamo.config.capture_dynamic_output_shape_ops = True
        network = torch.compile(network)

    def embed(texts: Texts) -> np.ndarray:
        with torch.inference_mode():
            vectors, _ = network(*(torch.from_numpy(part) for part in padded(texts)))
            return vectors.float().numpy()

    return embed


class _LinearExperts(nn.Module):
    """`Experts` with a linear layer for each matrix, as `quantize_dynamic` wants them."""

    def __init__(self, experts: Experts) -> None:
        super().__init__()
        hidden = len(experts.bias)
        w1, w2 = (w.detach().view(experts.num_experts, -1, hidden) for w in (experts.mlp.w1, experts.mlp.w2))
        self.up = nn.ModuleList(_linear(w) for w in w1)
        self.down = nn.ModuleList(_linear(w.t().contiguous()) for w in w2)
        self.bias = experts.bias

    def forward(self, x: Tensor, weights: Tensor, expert_indices: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        for expert, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            token, rank = torch.nonzero(expert_indices == expert, as_tuple=True)
            if len(token):
                y.index_add_(0, token, down(F.gelu(up(x[token]))) * weights[token, rank].unsqueeze(1))
        return y + self.bias


def _linear(weight: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
    layer.weight = nn.Parameter(weight.clone(), requires_grad=False)
    return layer


def _quantized(network: NomicMoe) -> nn.Module:
    for layer in network.config.moe_layers:
        mlp = network.encoder.layers[layer].mlp
        mlp.experts = _LinearExperts(mlp.experts)
    # Routers stay in float32: they are no `nn.Linear` in the recipes of other programs either.
    names = [name for name, part in network.named_modules() if isinstance(part, nn.Linear) and ".router." not in name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao is to move to torchao
        torch.backends.quantized.engine = "x86" if "x86" in torch.backends.quantized.supported_engines else "qnnpack"
        config = torch.ao.quantization.per_channel_dynamic_qconfig
        return torch.ao.quantization.quantize_dynamic(network, dict.fromkeys(names, config), dtype=torch.qint8)
