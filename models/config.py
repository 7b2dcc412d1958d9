"""Configuration of a network, as far as every family has it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

from moembed.errors import CheckpointError
from moembed.models.config_fields import invalid
from moembed.models.pooling import Pooling

CONFIG_FILE = "config.json"


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes and constants of a network; a family adds its own.

    Attributes:
        vocab_size: rows of the embedding table (may exceed the tokenizer's pieces).
        hidden_size: width of the residual stream.
        num_layers: encoder layers.
        num_heads: attention heads; `hidden_size / num_heads` is even.
        ffn_size: inner width of a dense MLP.
        layer_norm_eps: epsilon of every LayerNorm.
        max_positions: the longest sequence that the network computes, in tokens.
        dtype: dtype of the tensors by the file, `float32`, `float16` or `bfloat16`; each tensor states its own.
        pooling: how the states of a text's tokens become one vector.
        pooled_layer_norm: True if that vector is normalized by a LayerNorm without weights before it is cut to fewer dimensions
            and scaled to unit length.
        num_experts: experts of an MoE layer; 0 in a network without MoE layers.
        top_k: experts that each token visits.
    """

    # Fields that the graph does not depend on.
    not_in_graph: ClassVar[frozenset[str]] = frozenset({"dtype"})

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    layer_norm_eps: float
    max_positions: int
    dtype: str
    pooling: Pooling = Pooling.MEAN
    pooled_layer_norm: bool = False
    num_experts: int = 0
    top_k: int = 0

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens of a text that vectors are right for."""
        return self.max_positions

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the MoE layers."""
        return ()

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Self:
        """Return the configuration of the fields that `dataclasses.asdict` gave, also after a way through JSON."""
        return cls(**fields | {"pooling": Pooling(fields["pooling"])})

    def check_heads(self, hidden: str = "hidden_size", heads: str = "num_attention_heads") -> None:
        """Check that attention can divide the hidden size among its heads.

        Args:
            hidden: name of the field of the hidden size.
            heads: name of the field of the number of heads.

        Raises:
            CheckpointError: the size is no multiple of the number, or a head has an odd width.
        """
        if self.hidden_size % self.num_heads:
            raise invalid(f"{hidden} = {self.hidden_size} is not a multiple of {heads} = {self.num_heads}")
        if self.head_dim % 2:
            raise invalid(
                f"{hidden} / {heads} = {self.head_dim} is odd, and the attention operator takes heads of even width"
            )


def read_raw_config(path: Path) -> dict[str, Any]:
    """Read the fields of a `config.json`.

    Raises:
        CheckpointError: the file is missing, or is not a JSON object.
    """
    try:
        raw = json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"no config.json at {path}: a checkpoint folder holds one beside its weights") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: expected a JSON object, found {type(raw).__name__}")
    return raw
