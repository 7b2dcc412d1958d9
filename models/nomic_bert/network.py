"""NomicBert without experts in PyTorch.

Mirrors `modeling_hf_nomic_bert.py` of nomic-ai/nomic-bert-2048 at revision 7710840340a098cfb869c4f65e87cf2b1b70caca: post-norm
blocks without biases, three-major Wqkv, NeoX rotary halves, and a gated MLP `fc2(fc11(x) * silu(fc12(x)))`.
"""

import numpy as np
from numpy.typing import NDArray
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.nomic_bert.config import NomicBertConfig
from moembed.models.rotary import rotary_table
from moembed.models.text_encoder import Embeddings, GatedMlp, TextEncoder


class NomicBert(TextEncoder):
    """The encoder with its two outputs."""

    config: NomicBertConfig

    def __init__(self, config: NomicBertConfig) -> None:
        mlps = [GatedMlp(config, F.silu) for _ in range(config.num_layers)]
        super().__init__(config, Embeddings(config), mlps)

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return cosines and sines of every position, `[max_positions, head_dim / 2]` each."""
        return rotary_table(self.config.head_dim, self.config.rotary_base, self.config.max_positions)
