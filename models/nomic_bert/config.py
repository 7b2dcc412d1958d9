"""The `config.json` of NomicBert without experts, read into a frozen dataclass.

Mirrors the fields of nomic-ai/nomic-embed-text-v1.5 at revision e9b6763023c676ca8431644204f50c2b100d9aab and of
nomic-ai/nomic-bert-2048 at 7710840340a098cfb869c4f65e87cf2b1b70caca. A field that would change the network in a way this package
does not implement is refused by name; nothing is guessed. `moembed.models.nomic_bert.fields` has the tables of fields.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from moembed.errors import shown
from moembed.models.config import NetworkConfig
from moembed.models.config_fields import IGNORED_NAMES, check_fields, foreign_heads, is_one_of, read_fields
from moembed.models.nomic_bert.fields import (
    DERIVED,
    ENCODERS,
    IGNORED,
    IMPLEMENTED,
    LAYER_NORM_SHA256,
    POSITIONS,
    READ,
    SAME_AS,
    ReadFields,
)
from moembed.models.nomic_bert.repeated_fields import contradictions
from moembed.models.pooling import Pooling

_REMEDY = "Correct the wrong one"


@dataclass(frozen=True, kw_only=True)
class NomicBertConfig(NetworkConfig):
    """Sizes and constants of a network.

    Attributes:
        rotary_base: base of the rotary frequencies.
        type_vocab_size: rows of the table of token types, of which every token gets row 0.
        trained_positions: the longest sequence of the training, in tokens.
    """

    not_in_graph: ClassVar[frozenset[str]] = frozenset({"dtype", "type_vocab_size", "trained_positions"})

    rotary_base: float
    type_vocab_size: int
    trained_positions: int

    @property
    def most_tokens(self) -> int:
        """Largest number of tokens of a text that vectors are right for: more needs a scaling that is not implemented."""
        return min(self.trained_positions, self.max_positions)

    @classmethod
    def from_dict(cls, raw: dict[str, Any], pooling: Pooling = Pooling.MEAN, sha256: str = "") -> "NomicBertConfig":
        """Read the fields of a `config.json`.

        Args:
            raw: the fields.
            pooling: how the states of a text's tokens become one vector.
            sha256: digest of the file; that of a published file of v1.5 says that there is a LayerNorm behind the pooling, if no
                field does.

        Raises:
            CheckpointError: a field is missing, of the wrong type, or asks for something that is not implemented.
        """
        known = READ | SAME_AS.keys() | DERIVED | IGNORED | IGNORED_NAMES | {POSITIONS, "model_type"}
        found = [*foreign_heads(raw, ENCODERS), *contradictions(raw, SAME_AS, _REMEDY), *_foreign_positions(raw)]
        check_fields(raw, IMPLEMENTED, known, found)
        read = read_fields(ReadFields, raw, READ)
        layer_norm = read.pooled_layer_norm
        config = cls(
            **read.sizes,
            pooling=pooling,
            pooled_layer_norm=sha256 in LAYER_NORM_SHA256 if layer_norm is None else layer_norm,
            type_vocab_size=read.type_vocab_size,
            trained_positions=read.max_trained_positions or read.n_positions,
        )
        config.check_heads("n_embd", "n_head")
        return config


def _foreign_positions(raw: dict[str, Any]) -> list[str]:
    limits = tuple(raw.get(name) for name in ("max_trained_positions", "n_positions"))
    if raw.get(POSITIONS) is None or is_one_of(raw[POSITIONS], limits):
        return []
    return [
        f"  {POSITIONS} = {shown(raw[POSITIONS])}: max_trained_positions is {limits[0]!r} and n_positions {limits[1]!r}. "
        f"{_REMEDY}"
    ]
