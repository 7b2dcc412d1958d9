"""The `config.json` of GTE, read into a frozen dataclass.

Both kinds of `model_type`, `new` and `gte`, have the same fields. A field that would change the network in a way this package
does not implement is refused by name; nothing is guessed.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from moembed.errors import shown
from moembed.models.config import NetworkConfig
from moembed.models.config_fields import IGNORED_NAMES, check_fields, foreign_heads, read_fields
from moembed.models.gte.fields import ENCODERS, IGNORED, IMPLEMENTED, READ, ROPE_SCALING, ReadFields
from moembed.models.pooling import Pooling


@dataclass(frozen=True, kw_only=True)
class GteConfig(NetworkConfig):
    """Sizes and constants of a network.

    Attributes:
        rotary_base: base of the rotary frequencies, before scaling.
        rotary_factor: factor of the fixed NTK scaling: the base is multiplied by it, and each frequency divided by its power of
            `2 / head_dim`, at every length; 1 for none.
        type_vocab_size: rows of the table of token types, of which every token gets row 0; there may be none.
    """

    not_in_graph: ClassVar[frozenset[str]] = frozenset({"dtype", "type_vocab_size"})

    rotary_base: float
    rotary_factor: float
    type_vocab_size: int

    @property
    def scaled_base(self) -> float:
        """Base of the rotary frequencies."""
        return self.rotary_base * self.rotary_factor

    @property
    def divisor(self) -> float:
        """What each rotary frequency is divided by."""
        return float(self.rotary_factor ** (2 / self.head_dim))

    @classmethod
    def from_dict(cls, raw: dict[str, Any], pooling: Pooling = Pooling.FIRST) -> "GteConfig":
        """Read the fields of a `config.json`.

        Raises:
            CheckpointError: a field is missing, of the wrong type, or asks for something that is not implemented.
        """
        known = READ | IGNORED | IGNORED_NAMES | {ROPE_SCALING, "model_type"}
        check_fields(raw, IMPLEMENTED, known, [*foreign_heads(raw, ENCODERS), *_foreign_scaling(raw)])
        read = read_fields(ReadFields, raw, READ)
        scaling = raw.get(ROPE_SCALING) or {"factor": 1.0}
        config = cls(
            **read.sizes,
            pooling=pooling,
            rotary_base=float(read.rope_theta),
            rotary_factor=float(scaling["factor"]),
            type_vocab_size=read.type_vocab_size,
        )
        config.check_heads()
        return config


def _foreign_scaling(raw: dict[str, Any]) -> list[str]:
    found = raw.get(ROPE_SCALING)
    if found is None:
        return []
    if isinstance(found, dict) and found.keys() == {"type", "factor"} and found["type"] == "ntk":
        factor = found["factor"]
        if isinstance(factor, int | float) and not isinstance(factor, bool) and 1 <= factor < float("inf"):
            return []
    return [
        f"  {ROPE_SCALING} = {shown(found)}: another scaling of rotary positions; implemented: null or "
        "{'type': 'ntk', 'factor': a number of at least 1}"
    ]
