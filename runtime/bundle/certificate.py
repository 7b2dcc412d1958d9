"""Certificate of a bundle: what it lost in conversion or quantization, compared with what, measured on which machine.

It is the field `certificate` of the manifest. `moembed export` and `moembed quantize` measure it over the probe texts
(`moembed.verify.probes`), `moembed evaluate --certify` adds quality, `moembed info` prints it, and `moembed verify`
measures again and compares. Source, recipe and versions are fields of the manifest itself.

| field | type | meaning |
|---|---|---|
| `reference.kind` | string | the reference: `checkpoint` (its torch network) or `bundle` (an fp32 bundle) |
| `reference.sha256` | string | digest of the checkpoint's weights, or of the fp32 bundle's graph, weights and tokenizer |
| `reference.size` | integer | bytes of the checkpoint's weight files, or of the fp32 bundle without its manifest |
| `texts` | integer | texts compared, each alone, truncated to the model's limit |
| `tokens` | integer | total number of their tokens |
| `embedding_mean_cosine` | number | cosine of the two embeddings of a text, mean over the texts |
| `embedding_min_cosine` | number | minimum of these |
| `embedding_max_abs` | number | largest absolute difference of a component of an embedding |
| `hidden_max_abs` | number | largest absolute difference of a component of a layer's output, over all layers and tokens |
| `neighbour_overlap` | number | overlap@10: share of a text's 10 nearest neighbours that both have, mean over the texts (below) |
| `same_experts` | object | MoE layer -> share of the tokens routed to the same experts in both |
| `stability.texts` | integer | texts embedded again with other batch compositions, order, padding and thread counts |
| `stability.comparisons` | integer | vectors compared with the vector of the same text embedded alone |
| `stability.differing` | integer | number of these with at least one different byte |
| `stability.max_abs` | number | largest difference of a component |
| `stability.threads` | list of integers | thread counts compared |
| `size` | integer | bytes of the bundle without its manifest |
| `machine.cpu` | string | processor of all measurements except quality |
| `machine.instructions` | list of strings | its instruction sets, best first |
| `machine.threads` | integer | number of available CPUs |
| `machine.system` | string | operating system and architecture |
| `machine.onnxruntime` | string | version of ONNX Runtime |
| `machine.kernels` | string | kernels of the bundle's custom operators, see `moembed.inference.kernels` |
| `quality` | object | name of a dataset -> `figure`, `value`, `baseline`; empty until certified |
| `examples` | object | name of a published example -> `source`, `error`, `allowed`, `near_tie`; absent for other models |

The 10 nearest neighbours of a text are the compared texts with the highest cosine, the earlier ones in case of ties. In
`quality`, `figure` is `nDCG@10` (retrieval), `Spearman` (similarity) or `accuracy@1` (bitext) at full width in float32;
`value` is the figure of this bundle, 0 to 1 (Spearman: -1 to 1), and `baseline` that of the fp32 bundle.

A bundle with `examples` has the weights of a known model and reproduces the published examples: numbers that others published
for these weights (`moembed.models.examples`). Where no digest of a known model's weights is known, the bundle was made from its
name at its commit. `error` is the largest absolute difference for an fp32 bundle and the relative error for a quantized one. It
is at most `allowed`, unless `near_tie` is true: then a token's choice of experts is so close that the source may have made
another, and the example was not judged. Unresolved examples, which are never judged, are not listed.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from moembed.files.records import OPTIONAL, Count, Rule


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Reference that a bundle was compared with."""

    kind: Literal["checkpoint", "bundle"]
    sha256: str
    size: Count


@dataclass(frozen=True)
class Stability:
    """Result of the check for batch invariance; the module's docstring describes the fields."""

    texts: Count
    comparisons: Annotated[int, Rule(lambda value: value >= 1, "at least 1")]
    differing: Count
    max_abs: float
    threads: tuple[Count, ...]

    @property
    def passed(self) -> bool:
        """True if there were comparisons and all vectors had equal bytes."""
        return self.comparisons > 0 and self.differing == 0


UNCHECKED = Stability(0, 0, 0, 0.0, ())


@dataclass(frozen=True, kw_only=True)
class Machine:
    """Machine that a bundle was measured on; the module's docstring describes the fields."""

    cpu: str
    instructions: tuple[str, ...]
    threads: Count
    system: str
    onnxruntime: str
    kernels: str


@dataclass(frozen=True)
class Quality:
    """Figure of a dataset, with that of the fp32 bundle."""

    figure: str
    value: float
    baseline: float


@dataclass(frozen=True)
class ReproducedExample:
    """Result of a published example; the module's docstring describes the fields."""

    source: str
    error: float
    allowed: float
    near_tie: bool


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """Fields of `certificate` in `moembed.json`; the module's docstring describes them."""

    reference: Reference
    texts: Count
    tokens: Count
    embedding_mean_cosine: float
    embedding_min_cosine: float
    embedding_max_abs: float
    hidden_max_abs: float
    neighbour_overlap: float
    same_experts: dict[int, float]
    size: Count
    machine: Machine
    stability: Stability = UNCHECKED
    quality: dict[str, Quality] = field(default_factory=dict)
    examples: dict[str, ReproducedExample] | None = field(default=None, metadata=OPTIONAL)

    @property
    def near_ties(self) -> tuple[str, ...]:
        """Names of the published examples that were not judged."""
        return tuple(name for name, example in (self.examples or {}).items() if example.near_tie)
