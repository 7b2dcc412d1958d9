"""The certificate of a bundle: what it lost, against what, and where that was measured.

It is the manifest's field `certificate`. `moembed export` and `moembed quantize` measure it over the probe texts
(`moembed.verify.probes`), `moembed evaluate --certify` adds quality, `moembed info` prints it, and `moembed verify`
measures again and compares. The source, the recipe and the versions that wrote the bundle are fields of the manifest itself.

| field | type | meaning |
|---|---|---|
| `reference.kind` | string | what the bundle was compared with: `checkpoint` (the torch network) or `bundle` (an fp32 bundle) |
| `reference.sha256` | string | of the checkpoint's weights, or of the fp32 bundle's graph, weights and tokenizer |
| `reference.size` | integer | bytes of the checkpoint's weight files, or of the fp32 bundle without its manifest |
| `texts` | integer | texts compared, each alone, cut to the model's limit |
| `tokens` | integer | their tokens in all |
| `embedding_mean_cosine` | number | mean over the texts of the cosine of the two embeddings |
| `embedding_min_cosine` | number | the least of these |
| `embedding_max_abs` | number | largest absolute difference of a component of an embedding |
| `hidden_max_abs` | number | largest absolute difference of a component of any layer's output at any token |
| `neighbour_overlap` | number | overlap@10: mean over the texts of the share of a text's 10 nearest that both agree on (below) |
| `same_experts` | object | MoE layer -> share of the tokens that go to the same experts in both |
| `stability.texts` | integer | texts embedded again in other company: padded, shuffled, in batches, on other numbers of threads |
| `stability.comparisons` | integer | vectors compared with the same text's vector alone |
| `stability.differing` | integer | of these, those with at least one different byte |
| `stability.max_abs` | number | largest difference of a component |
| `stability.threads` | list of integers | numbers of threads compared |
| `size` | integer | bytes of the bundle without its manifest |
| `machine.cpu` | string | processor that measured all of this except quality |
| `machine.instructions` | list of strings | its instruction sets, best first |
| `machine.threads` | integer | CPUs it could use |
| `machine.system` | string | operating system and architecture |
| `machine.onnxruntime` | string | version of ONNX Runtime |
| `machine.kernels` | string | what computed the bundle's own operators, see `moembed.inference.kernels` |
| `quality` | object | name of a set -> `figure`, `value`, `baseline`; empty until certified |

A text's 10 nearest are those of greatest cosine among the other texts that were compared, of equal ones the first. In
`quality`, `figure` is `nDCG@10` (retrieval), `Spearman` (similarity) or `accuracy@1` (bitext) at full width in float32,
`value` is this bundle's, 0 to 1 (Spearman: -1 to 1), and `baseline` the fp32 bundle's.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from moembed.files.records import Count, Rule


@dataclass(frozen=True, kw_only=True)
class Reference:
    """What a bundle was compared with."""

    kind: Literal["checkpoint", "bundle"]
    sha256: str
    size: Count


@dataclass(frozen=True)
class Stability:
    """What came of embedding the same texts in different company; the module's documentation says what each field means."""

    texts: Count
    comparisons: Annotated[int, Rule(lambda value: value >= 1, "at least 1")]
    differing: Count
    max_abs: float
    threads: tuple[Count, ...]

    @property
    def passed(self) -> bool:
        """Whether there were comparisons and every vector was the same to the byte."""
        return self.comparisons > 0 and self.differing == 0


UNCHECKED = Stability(0, 0, 0, 0.0, ())


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine that a bundle was measured on; the module's documentation says what each field means."""

    cpu: str
    instructions: tuple[str, ...]
    threads: Count
    system: str
    onnxruntime: str
    kernels: str


@dataclass(frozen=True)
class Quality:
    """A figure of one set of relevance judgements or pairs, with the fp32 bundle's."""

    figure: str
    value: float
    baseline: float


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """The fields of `certificate` in `moembed.json`; the module's documentation says what each means."""

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
