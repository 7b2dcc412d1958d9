"""The `config.json` of BERT and XLM-RoBERTa, read into a frozen dataclass.

The two differ in one thing: XLM-RoBERTa numbers positions from `pad_token_id + 1`, BERT from 0. A field that would change the
network in a way this package does not implement is refused by name; nothing is guessed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from moembed.errors import CheckpointError, shown
from moembed.models.bert.fields import ENCODERS, HEADS, IGNORED, IMPLEMENTED, READ, ReadFields
from moembed.models.config import NetworkConfig
from moembed.models.config_fields import IGNORED_NAMES, REMEDY, check_fields, read_fields
from moembed.models.pooling import Pooling

BERT, XLM_ROBERTA = "bert", "xlm-roberta"
_LEAST_POSITIONS = 3  # two special tokens and one of the text


@dataclass(frozen=True, kw_only=True)
class BertConfig(NetworkConfig):
    """Sizes and constants of a network.

    Attributes:
        first_position: row of the table of positions that the first token gets.
        type_vocab_size: rows of the table of token types; every token gets row 0.
    """

    not_in_graph: ClassVar[frozenset[str]] = frozenset({"dtype", "first_position", "type_vocab_size"})

    first_position: int
    type_vocab_size: int

    @classmethod
    def from_dict(cls, raw: dict[str, Any], pooling: Pooling = Pooling.MEAN) -> "BertConfig":
        """Read the fields of a `config.json`.

        Raises:
            CheckpointError: a field is missing, of the wrong type, or asks for something that is not implemented.
        """
        check_fields(raw, IMPLEMENTED, READ | IGNORED | IGNORED_NAMES, _foreign_heads(raw))
        read = read_fields(ReadFields, raw, READ)
        first = 0
        if read.model_type == XLM_ROBERTA:
            if read.pad_token_id is None:
                raise CheckpointError(
                    f"config.json: pad_token_id is missing; positions of {XLM_ROBERTA} start at pad_token_id + 1: {REMEDY}"
                )
            first = read.pad_token_id + 1
        config = cls(
            vocab_size=read.vocab_size,
            hidden_size=read.hidden_size,
            num_layers=read.num_hidden_layers,
            num_heads=read.num_attention_heads,
            ffn_size=read.intermediate_size,
            layer_norm_eps=read.layer_norm_eps,
            max_positions=read.max_position_embeddings - first,
            dtype=read.torch_dtype or read.dtype or "float32",
            pooling=pooling,
            first_position=first,
            type_vocab_size=read.type_vocab_size,
        )
        config._check()
        return config

    def _check(self) -> None:
        found = None
        if self.hidden_size % self.num_heads:
            found = f"hidden_size = {self.hidden_size} is not a multiple of num_attention_heads = {self.num_heads}"
        elif self.head_dim % 2:
            found = f"hidden_size / num_attention_heads = {self.head_dim} is odd, which the attention operator does not take"
        elif self.max_positions < _LEAST_POSITIONS:
            found = (
                f"max_position_embeddings = {self.max_positions + self.first_position} leaves {self.max_positions} positions "
                f"from row {self.first_position}; a text needs {_LEAST_POSITIONS}"
            )
        if found:
            raise CheckpointError(f"config.json: {found}: {REMEDY}")


def _foreign_heads(raw: dict[str, Any]) -> list[str]:
    """Describe what else the class in `architectures` is than an encoder."""
    names = raw.get("architectures")
    if names is None or (isinstance(names, list) and len(names) == 1 and names[0] in ENCODERS):
        return []
    text = shown(names)
    meaning = next((meaning for head, meaning in HEADS.items() if head in text), "another network")
    return [f"  architectures = {text}: {meaning}; implemented: {' or '.join(repr([name]) for name in ENCODERS)}"]
