"""BERT and XLM-RoBERTa in numpy and float64, by the names of the published files; it shares no code with the network."""

from collections.abc import Sequence

from moembed.models.bert.config import BertConfig
from moembed.models.oracle_encoder import EncoderOracle
from moembed.models.oracle_math import attention, gelu
from moembed.models.oracle_result import Array


class BertOracle(EncoderOracle):
    """The network over open weights."""

    config: BertConfig
    layer_norms = ("attention.output.LayerNorm", "output.LayerNorm")

    def embed(self, ids: Sequence[int], texts: Sequence[slice]) -> Array:
        """Return the embeddings of words and token type 0, and of the positions of every text."""
        x = super().embed(ids, texts)
        positions = self.tensor("embeddings.position_embeddings.weight")[self.config.first_position :]
        for text in texts:
            x[text] += positions[: text.stop - text.start]
        return x

    def attend(self, x: Array, texts: Sequence[slice], layer: str) -> Array:
        """Return what attention adds."""
        q, k, v = (self.linear(x, f"{layer}attention.self.{name}") for name in ("query", "key", "value"))
        return self.linear(attention(q, k, v, texts, self.config.num_heads), f"{layer}attention.output.dense")

    def mlp(self, h: Array, layer: str) -> Array:
        """Return what the MLP adds."""
        return self.linear(gelu(self.linear(h, f"{layer}intermediate.dense")), f"{layer}output.dense")
