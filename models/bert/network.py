"""BERT and XLM-RoBERTa in PyTorch.

Mirrors `modeling_bert.py` and `modeling_xlm_roberta.py` of transformers 5.24: post-norm blocks with erf GELU and biases
everywhere, learned positions, and row 0 of the token types for every token. The table of positions here begins with the row of
the first token, and the row of the token type is added to each of its rows.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from moembed.models.bert.config import BertConfig
from moembed.models.rotary import no_rotation
from moembed.models.text_encoder import DenseMlp, TextEncoder


class Embeddings(nn.Module):
    """Word embedding plus that of the position."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_positions, config.hidden_size)

    def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
        """Map ids and positions, `[T]` int64 each, to `[T, hidden]`."""
        return self.word_embeddings(ids) + self.position_embeddings(positions)


class Bert(TextEncoder):
    """The encoder with its two outputs."""

    config: BertConfig

    def __init__(self, config: BertConfig) -> None:
        super().__init__(config, Embeddings(config), [DenseMlp(config) for _ in range(config.num_layers)])

    def rotary_tables(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return tables that rotate nothing, `[max_positions, head_dim / 2]` each."""
        return no_rotation(self.config.head_dim, self.config.max_positions)

    def embed(self, ids: Tensor, tokens: Tensor, attention_mask: Tensor) -> Tensor:
        """Map packed ids `[T]` to `[T, hidden]`: the position of a token is its column."""
        del tokens
        return self.embeddings(ids, torch.nonzero(attention_mask)[:, 1])
