"""How far a bundle may be from its checkpoint, and a certificate from what is found: every such number is written here."""

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
    "int8-wide": Tolerance(hidden_max_abs=None, embedding_min_cosine=0.99, router_max_abs=None, margin=None),
    "int8-table4": Tolerance(hidden_max_abs=None, embedding_min_cosine=0.98, router_max_abs=None, margin=None),
}


@dataclass(frozen=True)
class Allowance:
    """How far a certificate's figure may be from the one found on another machine, whose float32 rounds differently.

    Attributes:
        absolute: allowed whatever the figure is.
        relative: allowed as well, per unit of the loss that the certificate states.
        perfect: the figure's value where nothing is lost.
    """

    absolute: float
    relative: float = 0.0
    perfect: float = 0.0

    def of(self, stated: float) -> float:
        """The largest difference allowed from a stated figure."""
        return self.absolute + self.relative * abs(self.perfect - stated)


# Fields of a certificate that another machine may find a little different; all others must be equal. An emulated AVX2 processor
# was off by at most 0.1 times these in cosines and maxima; a few tokens and neighbours near a tie change sides.
CERTIFICATE = {
    "embedding_mean_cosine": Allowance(1e-6, 0.1, perfect=1.0),
    "embedding_min_cosine": Allowance(1e-6, 0.3, perfect=1.0),
    "embedding_max_abs": Allowance(1e-6, 0.3),
    "hidden_max_abs": Allowance(2e-5, 0.5),
    "neighbour_overlap": Allowance(0.01, 0.1, perfect=1.0),
    "same_experts": Allowance(0.005, 0.2, perfect=1.0),
}
# A certified figure of quality (0 to 1), its baseline, and their difference.
QUALITY = Allowance(0.002)
