"""How far a bundle may be from its checkpoint, by recipe: the one place where such a number is written."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tolerance:
    """Bounds of `moembed verify --against`.

    Attributes:
        hidden_max_abs: largest absolute difference of any hidden state of any layer, or None for no bound.
        embedding_min_cosine: smallest cosine of a text's two embeddings.
        router_max_abs: largest difference of a router weight where the experts agree, or None.
        margin: experts must be the same where the last chosen and the first unchosen probability differ by more; None
            for no such demand.
    """

    hidden_max_abs: float | None
    embedding_min_cosine: float
    router_max_abs: float | None
    margin: float | None


TOLERANCES = {
    "fp32": Tolerance(hidden_max_abs=2e-4, embedding_min_cosine=0.999999, router_max_abs=1e-4, margin=1e-5),
    "int8": Tolerance(hidden_max_abs=None, embedding_min_cosine=0.99, router_max_abs=None, margin=None),
    "int8-storage": Tolerance(hidden_max_abs=None, embedding_min_cosine=0.99, router_max_abs=None, margin=None),
}
