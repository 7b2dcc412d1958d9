"""The shortest decimal digits that read back as the same float32.

A JSON encoder writes a float32 as the double that it is, with up to 17 digits; 9 are enough. The encoder writes the shortest
digits of a double. So each float32 is replaced by the double nearest to its own shortest decimal, which then has these digits.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

# In this range, the scales below are powers of ten that doubles hold exactly, so that one division gives the nearest double.
_SMALLEST, _LARGEST = 1e-13, 1e6
_POWERS = 10.0 ** np.arange(23)
_MANTISSA = np.int32(0x7FFFFF)


def shortest(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the doubles nearest to the shortest decimals of float32, in the same shape; they cast back to `values`.

    Args:
        values: finite float32.
    """
    values = np.ascontiguousarray(values)
    sizes = np.abs(values)
    # The numbers below a power of two are closer to it than those above: its nearest decimal need not be the shortest.
    common = (sizes >= _SMALLEST) & (sizes < _LARGEST) & ((values.view(np.int32) & _MANTISSA) != 0)
    if common.all():
        return _of_common(values, sizes)
    found = values.astype(np.float64)
    found[common] = _of_common(values[common], sizes[common])
    rare = ~common & (sizes > 0)
    found[rare] = [
        float(str(value)) for value in values[rare]
    ]  # NumPy writes the shortest digits, one number at a time
    return found


def _of_common(values: NDArray[np.float32], sizes: NDArray[np.float32]) -> NDArray[np.float64]:
    exact = values.astype(np.float64)
    # 9 digits tell all float32 apart.
    scales = _POWERS[8 - np.floor(np.log10(sizes.astype(np.float64))).astype(np.int64)]
    found = np.rint(exact * scales) / scales
    # All decimals of 6 digits survive the way through a float32, so that the shortest has 6 at least, if zeros at the end count.
    for _ in range(3):
        scales = scales / 10
        shorter = np.rint(exact * scales) / scales
        same = shorter.astype(np.float32) == values
        if not same.any():
            break
        np.copyto(found, shorter, where=same)
    return np.asarray(found)


def json_list(numbers: NDArray[Any]) -> list[Any]:
    """Return an array as the list that a JSON encoder writes with the fewest digits."""
    return (shortest(numbers) if numbers.dtype == np.float32 else numbers).tolist()  # type: ignore[no-any-return]
