"""Sessions over a bundle's graph."""

import numpy as np

from moembed.inference.batching import TOKENS_PER_CALL
from moembed.inference.session import Output, Session


def test_a_large_batch_gives_the_bytes_of_its_rows_alone(int8):
    """It is divided into calls of `TOKENS_PER_CALL`; one row has no tokens."""
    session, longest = Session(int8), int8.manifest.max_tokens
    rng = np.random.default_rng(0)
    for width in (longest // 2 + 1, longest):
        rows = TOKENS_PER_CALL // width + 3
        ids = rng.integers(5, 300, (rows, width))
        mask = (np.arange(width) < rng.integers(1, width + 1, (rows, 1))).astype(np.int64)
        mask[1] = 0
        for output in Output:
            together = session.run(output, ids, mask)
            alone = [session.run(output, ids[i : i + 1], mask[i : i + 1]) for i in range(rows)]
            assert together.tobytes() == np.concatenate(alone).tobytes()
            assert not together[1].any()
