"""GTE in PyTorch.

Mirrors `modeling.py` of Alibaba-NLP/new-impl at revision 40ced75c3017eb27626c9d4ea981bde21a2662f4: post-norm blocks, rotary
positions with a fixed NTK scaling, and a gated MLP `down(gelu(gate) * up)` whose first half of fused rows is `up`.
"""

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.gte.config import GteConfig
from moembed.models.rotary import rotary_table
from moembed.models.text_encoder import Embeddings, GatedMlp, TextEncoder


class Gte(TextEncoder):
    """The encoder with its two outputs."""

    config: GteConfig

    def __init__(self, config: GteConfig) -> None:
        mlps = [GatedMlp(config, F.gelu) for _ in range(config.num_layers)]
        super().__init__(config, Embeddings(config), mlps)

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and sines of every position, `[max_positions, head_dim / 2]`."""
        config = self.config
        return rotary_table(config.head_dim, config.scaled_base, config.max_positions, config.divisor)
