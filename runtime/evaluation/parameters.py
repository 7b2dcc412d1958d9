"""Number of parameters of a bundle's network."""

from dataclasses import dataclass
from math import prod

from moembed.bundle.bundle import Bundle
from moembed.errors import CheckpointError
from moembed.models.families import family_of, read_config
from moembed.models.roles import Kind

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
        config = read_config(bundle.folder)
    except CheckpointError:
        return None
    total = active = 0
    for parameter in family_of(config).parameters(config):
        size = prod(parameter.shape) if parameter.parts else 0  # zeros in place of a bias are no parameters
        total += size
        active += size * config.top_k // config.num_experts if parameter.role.kind in _OF_EXPERTS else size
    return Parameters(total, active)
