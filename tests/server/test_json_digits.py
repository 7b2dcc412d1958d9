"""Numbers in JSON responses: the shortest decimals that read back as the same float32."""

import json
import re
from decimal import Decimal

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from moembed.digits import shortest
from moembed.server.apis.encoding import json_numbers

NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
INFO = np.finfo(np.float32)
SPECIAL = {
    "zeros": [0.0, -0.0],
    "subnormals": [INFO.smallest_subnormal, -INFO.smallest_subnormal, 3 * INFO.smallest_subnormal, 1e-40],
    "limits": [INFO.tiny, INFO.max, INFO.min, np.nextafter(INFO.tiny, np.float32(0))],
    "powers of ten": 10.0 ** np.arange(-45, 39),
    "beside powers of ten": np.nextafter((10.0 ** np.arange(-37, 38)).astype(np.float32), np.float32(0)),
    "powers of two": 2.0 ** np.arange(-149, 128),
    "beside powers of two": np.nextafter((2.0 ** np.arange(-126, 127)).astype(np.float32), np.float32(np.inf)),
    "whole numbers": [1, -1, 16_777_215, 16_777_216, 999_999, 1_000_001],
    "short decimals": [0.1, 0.3, -2.5, 0.15625, 1e-13, 9.9999994e-14],
}


def written(values: np.ndarray) -> list[str]:
    """Return the numbers of a JSON array as they are written."""
    raw = bytes(json_numbers(values)).decode()
    assert raw.startswith("[")
    assert raw.endswith("]")
    return raw[1:-1].split(",") if len(values) else []


def digits(number: str) -> int:
    """Return the number of significant digits of a decimal, without zeros at either end."""
    return len("".join(map(str, Decimal(number).as_tuple().digits)).strip("0"))


def check(values: np.ndarray) -> None:
    numbers = written(values)
    assert all(NUMBER.fullmatch(number) for number in numbers)
    for read in (json.loads, msgspec.json.decode):
        found = np.array(read(bytes(json_numbers(values))), np.float32)
        assert found.tobytes() == values.tobytes()
    assert [digits(number) for number in numbers] == [digits(str(value)) for value in values]


@pytest.mark.parametrize("kind", SPECIAL)
def test_special_values(kind):
    check(np.array(SPECIAL[kind], np.float32))


@given(arrays(np.uint32, st.integers(0, 64), elements=st.integers(0, 2**32 - 1)))
def test_random_bit_patterns(bits):
    values = bits.view(np.float32)
    check(values[np.isfinite(values)])


def test_many_bit_patterns_of_every_exponent():
    rng = np.random.default_rng(20)
    patterns = rng.integers(0, 2**23, (255, 2000), np.uint32) | (np.arange(255, dtype=np.uint32)[:, None] << 23)
    values = patterns.ravel().view(np.float32) * rng.choice([-1, 1], patterns.size).astype(np.float32)
    assert shortest(values).astype(np.float32).tobytes() == values.tobytes()
    check(values[:: 2**6 - 1])


def test_vectors_of_a_batch_and_other_types():
    vectors = np.random.default_rng(1).normal(size=(3, 384)).astype(np.float32)
    assert np.array_equal(shortest(vectors), np.stack([shortest(vector) for vector in vectors]))
    assert shortest(vectors[:, ::2]).astype(np.float32).tobytes() == vectors[:, ::2].tobytes()
    assert written(np.array([-128, 127], np.int8)) == ["-128", "127"]
    assert max(map(digits, written(vectors[0]))) <= 9
