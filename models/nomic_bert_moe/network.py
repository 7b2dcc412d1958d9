"""NomicBert-MoE in PyTorch.

Mirrors `modeling_hf_nomic_bert.py` of nomic-ai/nomic-bert-2048 at revision 7710840340a098cfb869c4f65e87cf2b1b70caca
(post-norm blocks, three-major Wqkv, NeoX rotary halves, erf GELU, masked mean pooling) and megablocks' dMoE at
78eea65fda01e638af36ae38853bc51efb04a4b4 (softmax before top-k, no renormalization, one shared bias after the sum).
Parameter names are the checkpoint's.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.ops import experts, router
from moembed.models.rotary import rotary_table
from moembed.models.text_encoder import DenseMlp, Embeddings, TextEncoder


class Router(nn.Module):
    """Token-choice router without bias."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.top_k = config.top_k
        self.layer = nn.Linear(config.hidden_size, config.num_experts, bias=False)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map `[T, hidden]` to weights `[T, top_k]` and experts `[T, top_k]` int64."""
        return router(x, self.layer.weight, self.top_k)


class ExpertMlp(nn.Module):
    """Stacked weights of all experts, in the checkpoint's `[experts * ffn, hidden]` layout."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        rows = config.num_experts * config.expert_ffn_size
        self.w1 = nn.Parameter(torch.empty(rows, config.hidden_size))
        self.w2 = nn.Parameter(torch.empty(rows, config.hidden_size))


class Experts(nn.Module):
    """All experts of a layer and the bias they share."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.num_experts = config.num_experts
        self.mlp = ExpertMlp(config)
        self.bias = nn.Parameter(torch.empty(config.hidden_size))

    def forward(self, x: Tensor, weights: Tensor, expert_indices: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]` given the router's two outputs."""
        return experts(x, weights, expert_indices, self.mlp.w1, self.mlp.w2, self.bias, self.num_experts)


class MoeMlp(nn.Module):
    """Router and experts, in place of a dense MLP."""

    def __init__(self, config: NomicMoeConfig) -> None:
        super().__init__()
        self.router = Router(config)
        self.experts = Experts(config)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[T, hidden]` to `[T, hidden]`."""
        weights, expert_indices = self.router(x)
        return self.experts(x, weights, expert_indices)


class NomicMoe(TextEncoder):
    """The encoder with its two outputs."""

    config: NomicMoeConfig
    embeddings: Embeddings

    def __init__(self, config: NomicMoeConfig) -> None:
        mlps = [MoeMlp(config) if i in config.moe_layers else DenseMlp(config) for i in range(config.num_layers)]
        super().__init__(config, Embeddings(config), mlps, projection=config.projection)

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and sines of every position, `[max_positions, head_dim / 2]` each."""
        return rotary_table(self.config.head_dim, self.config.rotary_base, self.config.max_positions)
