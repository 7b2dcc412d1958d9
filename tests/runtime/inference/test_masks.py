"""Batches of callers: masks are 0 or 1 and ids are valid, or there is an error and no vector."""

import numpy as np
import pytest

from moembed import Embedder
from moembed.errors import BundleError, InputError
from moembed.inference.kernels import PORTABLE, VARIABLE, usable_kernels
from support.graph_ops import run_graph

IDS = np.array([[0, 5, 2, 1], [0, 7, 9, 2]])
MASK = np.array([[1, 1, 1, 0], [1, 1, 1, 1]])
OUTPUTS = ("sentence_embedding", "token_embeddings")


@pytest.fixture(scope="module", params=usable_kernels())
def session(int8, request):
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(VARIABLE, request.param)
        return Embedder(int8, threads=2).session


@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2, -1, 2**32])
@pytest.mark.parametrize("output", OUTPUTS)
def test_a_mask_of_other_values(session, output, value):
    for place in ((0, 0), (1, 3), (0, 3)):
        mask = MASK.copy()
        mask[place] = value
        with pytest.raises(InputError, match=rf"the mask has values from .*{value}.*expected 1"):
            session.run(output, IDS, mask)
    with pytest.raises(InputError, match="the mask"):
        session.run(output, IDS, np.full_like(MASK, value))


@pytest.mark.parametrize(
    ("ids", "mask"),
    [
        (IDS, MASK[:, :3]),
        (IDS, MASK[:1]),
        (IDS[0], MASK[0]),
        (IDS[None], MASK[None]),
        (IDS.astype(np.int32), MASK),
        (IDS, MASK.astype(bool)),
        (IDS.astype(float), MASK),
        (IDS, MASK.astype(np.uint64)),
    ],
)
def test_other_shapes_and_types(session, ids, mask):
    for output in OUTPUTS:
        with pytest.raises(InputError, match=r"expected int64 \[batch, sequence\] for both"):
            session.run(output, ids, mask)


@pytest.mark.parametrize("value", [-1, -(2**63), -51200])
def test_ids_below_0(session, value):
    ids = IDS.copy()
    ids[1, 1] = value
    with pytest.raises(InputError, match=f"ids has the value {value}"):
        session.run("sentence_embedding", ids, MASK)


@pytest.mark.parametrize("value", [51200, 2**31, 2**32 + 5, 2**63 - 1])
def test_ids_beyond_the_table(session, value):
    ids = IDS.copy()
    ids[1, 1] = value
    with pytest.raises(BundleError, match=f"cannot run it.*{value}"):
        session.run("sentence_embedding", ids, MASK)
    ids = IDS.copy()
    ids[0, 3] = value  # padding is not looked at
    padded = session.run("sentence_embedding", ids, MASK)
    assert padded.tobytes() == session.run("sentence_embedding", IDS, MASK).tobytes()


@pytest.mark.parametrize("shape", [(0, 0), (0, 4), (3, 0), (2, 4)])
def test_a_batch_without_tokens_is_zeros(session, shape):
    nothing = np.zeros(shape, np.int64)
    assert session.run("sentence_embedding", nothing, nothing).tolist() == np.zeros((shape[0], 48)).tolist()
    assert session.run("token_embeddings", nothing, nothing).shape == (*shape, 48)


def test_a_row_without_tokens_is_zeros_and_changes_no_other(session):
    mask = np.array([[0, 0, 0, 0], [1, 1, 1, 1]])
    found = session.run("sentence_embedding", IDS, mask)
    assert not found[0].any()
    assert found[1].tobytes() == session.run("sentence_embedding", IDS, MASK)[1].tobytes()


@pytest.mark.skipif(usable_kernels() == (PORTABLE,), reason="the native library was not compiled")
@pytest.mark.parametrize("value", [2**63 - 1, -(2**63), 2, -1])
def test_the_operator_refuses_them_too(value):
    x, tokens = np.ones((3, 16), np.float32), np.arange(3)
    for name in usable_kernels()[:-1]:
        expected = run_graph("Pool", [x, tokens, np.array([[1, 1, 1, 0]])], {}, kernels=name)
        assert expected[0].tolist() == np.ones((1, 16)).tolist()
        for mask in ([[1, 1, 1, value]], [[value] * 4], [[1, 1, value, 0]]):
            with pytest.raises(Exception, match=f"moembed.Pool: attention_mask has {value}, expected 0 or 1"):
                run_graph("Pool", [x, tokens, np.array(mask)], {}, kernels=name)
