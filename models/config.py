"""The `config.json` of the NomicBert-MoE family, read into a frozen dataclass.

Mirrors the fields of nomic-ai/nomic-embed-text-v2-moe at revision 1066b6599d099fbb93dfcb64f9c37a7c9e503e85. A field that
would change the network in a way this package does not implement is refused by name; nothing is guessed. The table of fields that
are read, checked or ignored is `moembed.models.config_fields`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError, shown
from moembed.files.records import read_record
from moembed.models.config_fields import DERIVED, IGNORED_NAMES, IMPLEMENTED, READ, SAME_AS, ReadFields

_SAVE_AGAIN = (
    "transformers' own class for nomic_bert has no experts and writes such fields; load the model with "
    "trust_remote_code=True and save it again"
)
_REMEDY = "correct the file, or download or save the checkpoint again"


@dataclass(frozen=True, kw_only=True)
class NomicMoeConfig:
    """Sizes and constants of a network.

    Attributes:
        vocab_size: rows of the embedding table (padded; may exceed the tokenizer's pieces).
        hidden_size: width of the residual stream.
        num_layers: encoder layers; layer `i` is an MoE layer iff `i % moe_every_n_layers == 1`.
        num_heads: attention heads; `hidden_size / num_heads` is even.
        ffn_size: inner width of a dense MLP.
        expert_ffn_size: inner width of one expert.
        num_experts: experts of an MoE layer.
        top_k: experts that each token visits; their softmax weights are not renormalized.
        moe_every_n_layers: period of the MoE layers.
        layer_norm_eps: epsilon of every LayerNorm.
        rotary_base: base of the rotary frequencies.
        max_positions: rows of the rotary table, hence the longest sequence the network computes.
        pad_token_id: id of `<pad>`.
        dtype: dtype of the tensors by the file, `float32`, `float16` or `bfloat16`; each tensor states its own.
        projection: True if a linear layer projects the last hidden states before pooling. The published model has none. It
            lets a model put what distinguishes texts into the leading components of its vectors.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    ffn_size: int
    expert_ffn_size: int
    num_experts: int
    top_k: int
    moe_every_n_layers: int
    layer_norm_eps: float
    rotary_base: float
    max_positions: int
    pad_token_id: int
    dtype: str
    projection: bool = False

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

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
        if not raw.get("num_experts") and raw.get("model_type") == "nomic_bert":
            raise CheckpointError(
                "config.json: num_experts is missing or 0, so this is a dense nomic_bert (v1 or v1.5), which has "
                "the same model_type; moembed implements the mixture-of-experts network of nomic-embed-text-v2-moe"
            )
        refused = [
            f"  {name} = {shown(raw[name])}: {meaning}; implemented: {' or '.join(map(repr, allowed))}"
            for name, (allowed, meaning) in IMPLEMENTED.items()
            if name in raw and not _is_one_of(raw[name], allowed)
        ]
        refused += [
            f"  {name} is missing; it must be {allowed[0]!r}"
            for name, (allowed, _) in IMPLEMENTED.items()
            if name not in raw and None not in allowed
        ]
        refused += _contradictions(raw)
        known = READ | IMPLEMENTED.keys() | SAME_AS.keys() | DERIVED | IGNORED_NAMES
        refused += [
            f"  {name} = {shown(value)}: an unknown field, which may change the network; remove it if it does not"
            for name, value in raw.items()
            if name not in known and value is not None and value is not False
        ]
        if refused:
            raise CheckpointError("config.json asks for a network that is not implemented:\n" + "\n".join(refused))
        read = read_record(
            ReadFields,
            {name: value for name, value in raw.items() if name in READ},
            "config.json",
            error=CheckpointError,
            remedy=_REMEDY,
            use_defaults=True,
        )
        config = cls(
            vocab_size=_padded(read.vocab_size, read.pad_vocab_size_multiple),
            hidden_size=read.n_embd,
            num_layers=read.n_layer,
            num_heads=read.n_head,
            ffn_size=read.n_inner,
            expert_ffn_size=read.n_inner // read.ffn_div,
            num_experts=read.num_experts,
            top_k=read.moe_top_k,
            moe_every_n_layers=read.moe_every_n_layers,
            layer_norm_eps=read.layer_norm_epsilon,
            rotary_base=read.rotary_emb_base,
            max_positions=read.n_positions,
            pad_token_id=read.pad_token_id,
            dtype=read.torch_dtype or read.dtype or "float32",
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
        try:
            raw = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise CheckpointError(
                f"no config.json at {path}: a checkpoint folder holds one beside its weights"
            ) from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
        if not isinstance(raw, dict):
            raise CheckpointError(f"{path}: expected a JSON object, found {type(raw).__name__}")
        return cls.from_dict(raw)

    def _check(self, ffn_div: int) -> None:
        found = None
        if self.hidden_size % self.num_heads:
            found = f"n_embd = {self.hidden_size} is not a multiple of n_head = {self.num_heads}"
        elif self.head_dim % 2:
            found = f"n_embd / n_head = {self.head_dim} is odd: rotary positions rotate pairs"
        elif self.expert_ffn_size * ffn_div != self.ffn_size:
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
            raise CheckpointError(f"config.json: {found}: {_REMEDY}")


def _contradictions(raw: dict[str, Any]) -> list[str]:
    """Describe the fields that repeat another field with a different value."""
    repeated = {name: raw.get(field) for name, field in SAME_AS.items()}
    width, heads, base = (raw.get(name) for name in ("n_embd", "n_head", "rotary_emb_base"))
    if isinstance(width, int) and isinstance(heads, int) and heads > 0:
        repeated["head_dim"] = width // heads
    found = [
        f"  {name} = {shown(raw[name])}: {SAME_AS.get(name, 'n_embd / n_head')} is {expected!r}. {_SAVE_AGAIN}"
        for name, expected in repeated.items()
        if raw.get(name) is not None and not _is_one_of(raw[name], (expected,))
    ]
    plain = {"rope_type": "default", "type": "default", "rope_theta": base, "partial_rotary_factor": 1}
    rope = raw.get("rope_parameters") or {}
    if not isinstance(rope, dict) or any(
        value is not None and not (name in plain and _is_one_of(value, (plain[name],))) for name, value in rope.items()
    ):
        found.append(
            f"  rope_parameters = {shown(rope)}: implemented: default, of rotary_emb_base = {base!r}. {_SAVE_AGAIN}"
        )
    return found


def _is_one_of(value: Any, allowed: tuple[Any, ...]) -> bool:
    # 0 == False and 1 == True in Python; in a config they are different answers.
    return any(value == a and isinstance(value, bool) == isinstance(a, bool) for a in allowed)


def _padded(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple
