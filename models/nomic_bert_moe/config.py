"""The `config.json` of the NomicBert-MoE family, read into a frozen dataclass.

Mirrors the fields of nomic-ai/nomic-embed-text-v2-moe at revision 1066b6599d099fbb93dfcb64f9c37a7c9e503e85. A field that
would change the network in a way this package does not implement is refused by name; nothing is guessed. The table of fields that
are read or checked is `moembed.models.nomic_bert_moe.fields`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from moembed.models.config import NetworkConfig, read_raw_config
from moembed.models.config_fields import IGNORED_NAMES, check_fields, invalid, read_fields
from moembed.models.nomic_bert.fields import DERIVED
from moembed.models.nomic_bert.repeated_fields import contradictions
from moembed.models.nomic_bert_moe.fields import IMPLEMENTED, READ, SAME_AS, ReadFields

_SAVE_AGAIN = (
    "transformers' own class for nomic_bert has no experts and writes such fields; load the model with "
    "trust_remote_code=True and save it again"
)


@dataclass(frozen=True, kw_only=True)
class NomicMoeConfig(NetworkConfig):
    """Sizes and constants of a network.

    Attributes:
        expert_ffn_size: inner width of one expert.
        top_k: experts that each token visits; their softmax weights are not renormalized.
        moe_every_n_layers: period of the MoE layers: layer `i` is one iff `i % moe_every_n_layers == 1`.
        rotary_base: base of the rotary frequencies.
        pad_token_id: id of `<pad>`.
        projection: True if a linear layer projects the last hidden states before pooling. The published model has none. It
            lets a model put what distinguishes texts into the leading components of its vectors.
    """

    not_in_graph: ClassVar[frozenset[str]] = frozenset({"dtype", "pad_token_id"})

    expert_ffn_size: int
    top_k: int
    moe_every_n_layers: int
    rotary_base: float
    pad_token_id: int
    projection: bool = False

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the MoE layers."""
        return tuple(i for i in range(self.num_layers) if i % self.moe_every_n_layers == 1)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> "NomicMoeConfig":
        """Read the fields of a `config.json`.

        Raises:
            CheckpointError: a field is missing, of the wrong type, or asks for something that is not implemented.
        """
        known = READ | SAME_AS.keys() | DERIVED | IGNORED_NAMES
        check_fields(raw, IMPLEMENTED, known, contradictions(raw, SAME_AS, _SAVE_AGAIN))
        read = read_fields(ReadFields, raw, READ)
        config = cls(
            **read.sizes,
            expert_ffn_size=read.n_inner // read.ffn_div,
            num_experts=read.num_experts,
            top_k=read.moe_top_k,
            moe_every_n_layers=read.moe_every_n_layers,
            pad_token_id=read.pad_token_id,
            projection=bool(read.projection),
        )
        config._check(read.ffn_div)
        return config

    @classmethod
    def from_file(cls, path: Path) -> "NomicMoeConfig":
        """Read a `config.json`.

        Raises:
            CheckpointError: the file is missing, is not JSON, or describes a network that is not implemented.
        """
        return cls.from_dict(read_raw_config(path))

    def _check(self, ffn_div: int) -> None:
        self.check_heads("n_embd", "n_head")
        found = None
        if self.expert_ffn_size * ffn_div != self.ffn_size:
            found = f"n_inner = {self.ffn_size} is not a multiple of ffn_div = {ffn_div}"
        elif self.top_k > self.num_experts:
            found = f"moe_top_k = {self.top_k} exceeds num_experts = {self.num_experts}"
        elif self.moe_every_n_layers < 2:
            found = "moe_every_n_layers = 1: upstream's rule (i % n == 1) then selects no layer"
        elif not self.moe_layers:
            found = f"moe_every_n_layers selects none of {self.num_layers} layers: a dense network"
        elif self.pad_token_id >= self.vocab_size:
            found = f"pad_token_id = {self.pad_token_id} is outside vocab_size = {self.vocab_size}"
        if found:
            raise invalid(found)
