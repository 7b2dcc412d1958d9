"""Number of parameters of a bundle's network."""

from dataclasses import dataclass
from math import prod

from moembed.bundle.bundle import Bundle
from moembed.errors import CheckpointError
from moembed.models.checkpoint import expected_tensors
from moembed.models.config import NomicMoeConfig
from moembed.models.roles import Kind, role

_OF_EXPERTS = (Kind.EXPERTS_W1, Kind.EXPERTS_W2)


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters.

    Attributes:
        total: of the network.
        active: of these, the number that a token is computed with: only the experts that its router chooses count.
    """

    total: int
    active: int


def parameters_of(bundle: Bundle) -> Parameters | None:
    """Count the parameters of the network that `config.json` describes; None if moembed cannot read it."""
    try:
        config = NomicMoeConfig.from_file(bundle.folder / "config.json")
    except CheckpointError:
        return None
    total = active = 0
    for name, shape in expected_tensors(config).items():
        found, size = role(name), prod(shape)
        is_chosen = found is not None and found.kind in _OF_EXPERTS
        total += size
        active += size * config.top_k // config.num_experts if is_chosen else size
    return Parameters(total, active)
