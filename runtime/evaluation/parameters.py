"""Number of parameters of a bundle's network."""

from dataclasses import dataclass
from math import prod

from moembed.bundle.bundle import Bundle
from moembed.errors import CheckpointError
from moembed.models.checkpoint import parameter_count
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
    experts = sum(
        prod(parameter.shape)
        for parameter in family_of(config).parameters(config)
        if parameter.role.kind in _OF_EXPERTS
    )
    total = parameter_count(config)
    idle = experts // config.num_experts * (config.num_experts - config.top_k) if experts else 0
    return Parameters(total, total - idle)
