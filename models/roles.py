"""Roles of a network's parameters: the one place that knows how they are named.

The names are those of the initializers of a graph in every family, and of nomic-embed-text-v2-moe's `model.safetensors`; other
files are mapped to them (`moembed.models.parameters`). In a graph, every expert's part of `EXPERTS_W1` and `EXPERTS_W2` is a
separate initializer, with the expert's index at the end of the name.
"""

import re
from dataclasses import dataclass
from enum import Enum

from moembed.bundle.graph_check import WORD_EMBEDDINGS
from moembed.bundle.manifest import RouterOutputs


class Kind(Enum):
    """Kind of a parameter; the value is its name, of a layer's parameter the part behind `encoder.layers.N.`."""

    WORD_EMBEDDINGS = WORD_EMBEDDINGS
    TYPE_EMBEDDINGS = "embeddings.token_type_embeddings.weight"
    POSITION_EMBEDDINGS = "embeddings.position_embeddings.weight"
    EMBEDDING_NORM = "emb_ln.weight"
    EMBEDDING_NORM_BIAS = "emb_ln.bias"
    QKV = "attn.Wqkv.weight"
    QKV_BIAS = "attn.Wqkv.bias"
    ATTENTION_OUT = "attn.out_proj.weight"
    ATTENTION_OUT_BIAS = "attn.out_proj.bias"
    NORM1 = "norm1.weight"
    NORM1_BIAS = "norm1.bias"
    NORM2 = "norm2.weight"
    NORM2_BIAS = "norm2.bias"
    FC1 = "mlp.fc1.weight"
    FC1_BIAS = "mlp.fc1.bias"
    FC2 = "mlp.fc2.weight"
    FC2_BIAS = "mlp.fc2.bias"
    FC11 = "mlp.fc11.weight"
    FC11_BIAS = "mlp.fc11.bias"
    FC12 = "mlp.fc12.weight"
    FC12_BIAS = "mlp.fc12.bias"
    ROUTER = "mlp.router.layer.weight"
    EXPERTS_W1 = "mlp.experts.mlp.w1"
    EXPERTS_W2 = "mlp.experts.mlp.w2"
    EXPERTS_BIAS = "mlp.experts.bias"
    PROJECTION = "projection.weight"
    PROJECTION_BIAS = "projection.bias"


EMBEDDINGS = (Kind.WORD_EMBEDDINGS, Kind.TYPE_EMBEDDINGS, Kind.EMBEDDING_NORM, Kind.EMBEDDING_NORM_BIAS)
ATTENTION = (Kind.QKV, Kind.QKV_BIAS, Kind.ATTENTION_OUT, Kind.ATTENTION_OUT_BIAS)
NORMS = (Kind.NORM1, Kind.NORM1_BIAS, Kind.NORM2, Kind.NORM2_BIAS)
DENSE = (Kind.FC1, Kind.FC1_BIAS, Kind.FC2, Kind.FC2_BIAS)
# `fc2(act(fc12 x) * fc11 x)`: FC11 is "up", FC12 is "gate".
GATED = (Kind.FC11, Kind.FC11_BIAS, Kind.FC12, Kind.FC12_BIAS)
MOE = (Kind.ROUTER, Kind.EXPERTS_W1, Kind.EXPERTS_W2, Kind.EXPERTS_BIAS)
PROJECTION = (Kind.PROJECTION, Kind.PROJECTION_BIAS)
_LAYER = re.compile(r"encoder\.layers\.(\d+)\.(.+?)(?:(?<=\.w[12])\.(\d+))?")
_IN_A_LAYER = {kind.value: kind for kind in (*ATTENTION, *NORMS, *DENSE, *GATED, *MOE)}
_OUTSIDE = {kind.value: kind for kind in (*EMBEDDINGS, Kind.POSITION_EMBEDDINGS, *PROJECTION)}


@dataclass(frozen=True)
class Role:
    """Role of one parameter.

    Attributes:
        kind: what it is.
        layer: index of its encoder layer, or None outside the layers.
        expert: index of its expert, or None for a tensor of all experts or of none.
    """

    kind: Kind
    layer: int | None = None
    expert: int | None = None

    @property
    def name(self) -> str:
        """The parameter's name; `role` is the inverse."""
        layer = "" if self.layer is None else f"encoder.layers.{self.layer}."
        return f"{layer}{self.kind.value}" + ("" if self.expert is None else f".{self.expert}")


def role(name: str | None) -> Role | None:
    """Return the role of a parameter by its name, or None for a name that no network has."""
    if name in _OUTSIDE:
        return Role(_OUTSIDE[name])
    match = _LAYER.fullmatch(name or "")
    if match is None or match[2] not in _IN_A_LAYER:
        return None
    return Role(_IN_A_LAYER[match[2]], int(match[1]), None if match[3] is None else int(match[3]))


def router_outputs(layer: int) -> RouterOutputs:
    """Return the names of the values that a layer's router computes, which follow the name of its weight."""
    router = Role(Kind.ROUTER, layer).name.removesuffix(".layer.weight")
    return RouterOutputs(weights=f"{router}.weights", expert_indices=f"{router}.expert_indices")
