"""The table of rotary positions has the same bytes with any maths library."""

import numpy as np
import torch

from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.rotary import rotary_table
from support.folders import DATA

LIBRARY_ERROR = 2.0**-50  # relative, of a float64 function: four times what maths libraries allow themselves


def published_table(config):
    return rotary_table(config.head_dim, config.rotary_base, config.max_positions)


def _gap(exact, rounded):
    """Relative distance of float64 values from the nearest point where their float32 rounding changes."""
    neighbours = [np.nextafter(rounded, np.float32(side)).astype(np.float64) for side in (-np.inf, np.inf)]
    gaps = [np.abs(exact - (rounded + neighbour) / 2) for neighbour in neighbours]
    return np.minimum(*gaps) / np.abs(np.where(exact == 0, 1, exact))


def test_no_entry_is_near_a_rounding_boundary():
    config = NomicMoeConfig.from_file(DATA / "published_config.json")
    exponent = np.arange(0, config.head_dim, 2) / config.head_dim
    powers = config.rotary_base**exponent
    assert (_gap(powers, powers.astype(np.float32))[1:] > LIBRARY_ERROR).all(), "of the first, the power is exactly 1"
    angles = np.arange(config.max_positions, dtype=np.float32)[:, None] * (np.float32(1) / powers.astype(np.float32))
    for function, table in zip((np.cos, np.sin), published_table(config), strict=True):
        exact = function(angles.astype(np.float64))
        assert np.array_equal(exact.astype(np.float32), table)
        assert (_gap(exact, table)[1:] > LIBRARY_ERROR).all(), "of position 0, the values are exactly 1 and 0"


def test_the_table_is_upstreams_to_the_last_bit():
    config = NomicMoeConfig.from_file(DATA / "published_config.json")
    exponent = torch.arange(0, config.head_dim, 2, dtype=torch.float32) / config.head_dim
    angle = torch.outer(torch.arange(config.max_positions, dtype=torch.float32), 1.0 / config.rotary_base**exponent)
    for function, table in zip((torch.cos, torch.sin), published_table(config), strict=True):
        assert np.abs(function(angle).numpy() - table).max() <= 2.0**-24
