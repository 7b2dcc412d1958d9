"""Tolerances of `moembed verify`: of a float32 bundle against its checkpoint, and of a certificate against a new measurement.

Each quantization recipe has the tolerance of its bundles in its own file; see `moembed.quantize.recipe`.
"""

import math
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Tolerance:
    """Bounds of `moembed verify --against`.

    Attributes:
        embedding_min_cosine: smallest cosine between the two vectors of a text.
        hidden_max_abs: largest absolute difference of any hidden state of any layer, or None for no bound.
        router_max_abs: largest difference of a router weight where the experts are the same, or None for no bound.
        margin: largest difference between the probabilities of the last expert chosen and the first not chosen that counts as a
            near tie. Elsewhere the experts must be the same. None for no bound.
    """

    embedding_min_cosine: float
    hidden_max_abs: float | None = None
    router_max_abs: float | None = None
    margin: float | None = None

    @property
    def exact(self) -> bool:
        """True for the tolerance of an fp32 bundle, which bounds single numbers."""
        return self.hidden_max_abs is not None

    @property
    def relative_error(self) -> float:
        """Relative error of a vector at the smallest cosine, of the same length as its reference."""
        return math.sqrt(2 - 2 * self.embedding_min_cosine)


FP32 = Tolerance(hidden_max_abs=2e-4, embedding_min_cosine=0.999999, router_max_abs=1e-4, margin=1e-5)


@dataclass(frozen=True)
class Allowance:
    """Allowed difference between a certificate's figure and the one measured on another machine, which rounds differently.

    Attributes:
        absolute: constant part.
        relative: additional part, per unit of the loss that the certificate states.
        perfect: value of the figure for a lossless bundle.
    """

    absolute: float
    relative: float = 0.0
    perfect: float = 0.0

    def of(self, stated: float) -> float:
        """Return the largest difference allowed from a stated figure."""
        return self.absolute + self.relative * abs(self.perfect - stated)


# Fields of a certificate that may differ on another machine; all others must be equal. On an emulated AVX2 CPU, cosines and
# maxima differed by at most 0.1 of these. A few tokens near a tie get other experts, and a few texts other neighbours.
CERTIFICATE = {
    "embedding_mean_cosine": Allowance(1e-6, 0.1, perfect=1.0),
    "embedding_min_cosine": Allowance(1e-6, 0.3, perfect=1.0),
    "embedding_max_abs": Allowance(1e-6, 0.3),
    "hidden_max_abs": Allowance(2e-5, 0.5),
    "neighbour_overlap": Allowance(0.01, 0.1, perfect=1.0),
    "same_experts": Allowance(0.005, 0.2, perfect=1.0),
}
# Allowance of a scale of int8 vectors, from one component of one text, and of the share of components that it clips.
INT8_SCALE = Allowance(0.0, 0.05)
INT8_CLIPPED = Allowance(1e-3, 0.5)
# Allowance of the error of a published example: its parts are single numbers, which vary as `hidden_max_abs` does.
EXAMPLE = Allowance(2e-5, 0.5)
# Allowance of a certified quality figure (0 to 1), of its baseline, and of their difference.
QUALITY = Allowance(0.002)
