"""Scale of int8 vectors: one number of the bundle for each width.

The field `int8` of the manifest has two objects, from a width (`hidden_size` and each of `dims`) to a number:

| field | type | meaning |
|---|---|---|
| `scales` | object | width -> scale: `component = scale * code`, with codes from -127 to 127 |
| `clipped` | object | width -> share of the components beyond 127 scales, of texts that the scale was not calibrated on |

The writer of a bundle calibrates them on the probe texts, behind each of the model's prompts and without one
(`moembed.verify.int8_calibration`): 127 scales are 1.1 times the largest absolute component of their unit vectors of that
width. A width between two of these has the larger one of their scales. Below the narrowest, w0, a width w has its scale times
sqrt(w0 / w), because the components of unit vectors grow so. No scale is larger than 1/127, which clips no unit vector. A bundle
without the field has 1/127 for every width.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from moembed.files.records import Rule

LARGEST_CODE = 127
# No component of a unit vector is larger than 1.
UNIT_SCALE = 1 / LARGEST_CODE
Scale = Annotated[float, Rule(lambda value: 0 < value <= UNIT_SCALE, "a number above 0 and at most 1/127")]
Share = Annotated[float, Rule(lambda value: 0 <= value <= 1, "a number from 0 to 1")]


@dataclass(frozen=True, kw_only=True)
class Int8:
    """Calibration of int8 vectors; the module's docstring describes the fields."""

    scales: dict[int, Scale]
    clipped: dict[int, Share]


def scale_for(int8: Int8 | None, width: int) -> float:
    """Return the scale of int8 codes of unit vectors `[width]`; `int8` is the manifest's field."""
    scales: Mapping[int, float] = {} if int8 is None else int8.scales
    if not scales:
        return UNIT_SCALE
    if width < (narrowest := min(scales)):
        return min(scales[narrowest] * math.sqrt(narrowest / width), UNIT_SCALE)
    below, above = [known for known in scales if known <= width], [known for known in scales if known >= width]
    return max(scales[max(below)], scales[min(above, default=max(scales))])
