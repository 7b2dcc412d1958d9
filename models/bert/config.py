"""The `config.json` of BERT and XLM-RoBERTa, read into a frozen dataclass.

The two differ in one thing: XLM-RoBERTa numbers positions from `pad_token_id + 1`, BERT from 0. A field that would change the
network in a way this package does not implement is refused by name; nothing is guessed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from moembed.models.bert.fields import ENCODERS, IGNORED, IMPLEMENTED, READ, ReadFields
from moembed.models.config import NetworkConfig
from moembed.models.config_fields import IGNORED_NAMES, check_fields, foreign_heads, invalid, read_fields
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
        check_fields(raw, IMPLEMENTED, READ | IGNORED | IGNORED_NAMES, foreign_heads(raw, ENCODERS))
        read = read_fields(ReadFields, raw, READ)
        first = 0
        if read.model_type == XLM_ROBERTA:
            if read.pad_token_id is None:
                raise invalid(f"pad_token_id is missing; positions of {XLM_ROBERTA} start at pad_token_id + 1")
            first = read.pad_token_id + 1
        config = cls(
            **read.sizes | {"max_positions": read.max_position_embeddings - first},
            pooling=pooling,
            first_position=first,
            type_vocab_size=read.type_vocab_size,
        )
        config.check_heads()
        if config.max_positions < _LEAST_POSITIONS:
            raise invalid(
                f"max_position_embeddings = {read.max_position_embeddings} leaves {config.max_positions} positions from row "
                f"{first}; a text needs {_LEAST_POSITIONS}"
            )
        return config
