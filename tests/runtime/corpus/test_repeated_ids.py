"""Rows whose id an earlier row has: the same count in one pass and in many."""

import numpy as np
import pytest

from moembed.corpus.shards import count_repeated


class Target:
    """An output whose files of digests are arrays."""

    def __init__(self, parts):
        self.parts = {f"{number}": part for number, part in enumerate(parts)}

    def names(self, folder):
        return list(self.parts)

    def read(self, path):
        return self.parts[path.rpartition("/")[2]].tobytes()


@pytest.mark.parametrize("most", [1, 7, 100, 1 << 20])
def test_passes_count_the_same(most):
    rng = np.random.default_rng(0)
    parts = [rng.integers(0, 300, count).astype(np.uint64) for count in (100, 0, 57, 1)]
    everything = np.concatenate(parts)
    assert count_repeated(Target(parts), most) == len(everything) - len(set(everything.tolist()))


def test_no_ids():
    assert count_repeated(Target([])) == 0
    assert count_repeated(Target([np.array([], np.uint64)])) == 0
