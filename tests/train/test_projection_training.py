"""The rotation of embeddings: what comes first, and what a cut vector keeps."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from moembed.train.data import pairs
from moembed.train.recipe import Rotate
from moembed.train.release import projection as rotation
from moembed.train.steps import distil


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def _rotate(**choices):
    return Rotate(
        **{"temperature": 0.02, "neighbours": 1.0, "pairs": 0, "pair_temperature": 0.05, "margin": 0.05} | choices
    )


def test_a_rotation_puts_first_what_tells_texts_apart(generator):
    spread = torch.cat([torch.full((4,), 1.0), torch.full((20,), 0.05)])
    turned = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    # What all texts share is large, as a teacher's vectors have it, and tells none from another.
    vectors = F.normalize(torch.randn(600, 24, generator=generator) * spread @ turned + 3 * turned[5], dim=-1)
    learned, held = vectors[:400], vectors[400:]
    choices = _rotate(rate=2e-3, steps=60, texts=128)
    found = rotation.learn(learned, [24, 8, 5], choices, seed=1)
    torch.testing.assert_close(found @ found.T, torch.eye(24), rtol=0, atol=1e-5)
    for width in (8, 5):
        plain = distil.agreement(held[:, :width], held)["nearest"]
        best = distil.agreement((held @ found.T)[:, :width], held @ found.T)["nearest"]
        assert best > 0.9
        assert plain < 0.8
    again = rotation.learn(learned, [24, 8, 5], choices, seed=1)
    assert again.numpy().tobytes() == found.numpy().tobytes()


def test_without_a_width_to_cut_to_nothing_is_descended(generator):
    vectors = F.normalize(torch.randn(50, 8, generator=generator), dim=-1)
    choices = _rotate(rate=1.0, steps=9, texts=16)
    found = rotation.learn(vectors, [8], choices, seed=1)
    torch.testing.assert_close(found @ found.T, torch.eye(8), rtol=0, atol=1e-5)
    spread = (vectors @ found.T).square().sum(0)
    assert spread.tolist() == sorted(spread.tolist(), reverse=True)
    assert torch.equal(rotation.refine(vectors, vectors, found, [8], choices, seed=1), found)


def test_a_rotation_by_pairs_puts_last_what_pairs_do_not_share(generator):
    # Four components say what a text means, four in which language it is said: as large, and no help to find a translation.
    meaning = torch.randn(600, 4, generator=generator)
    spoken = torch.randn(6, 4, generator=generator)
    turn = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    sides = []
    for _ in range(2):
        language = spoken[torch.randint(6, (600,), generator=generator)]
        noise = 0.1 * torch.randn(600, 16, generator=generator)
        sides.append(F.normalize(torch.cat([meaning, language, noise], dim=1) @ turn, dim=-1))
    learned, held = [side[:450] for side in sides], [side[450:] for side in sides]
    choices = _rotate(rate=5e-3, steps=120, texts=200, temperature=0.05, margin=0.01)
    begin = rotation.learn(torch.cat(learned), [24, 4], choices, seed=1)
    found = rotation.refine(*learned, begin, [24, 4], choices, seed=1)
    torch.testing.assert_close(found @ found.T, torch.eye(24), rtol=0, atol=1e-5)
    before, after = (pairs.found(held[0] @ turn.T, held[1] @ turn.T, [24, 4]) for turn in (begin, found))
    assert after["pairs_found"] == before["pairs_found"]
    assert after["pairs_found_4"] > before["pairs_found_4"] + 0.2
    for block in torch.cat(learned).matmul(found.T).split([4, 20], dim=1):
        moments = block.T @ block
        assert moments.diagonal().tolist() == sorted(moments.diagonal().tolist(), reverse=True)
        torch.testing.assert_close(moments, moments.diagonal().diag(), rtol=0, atol=0.02)
    again = rotation.refine(*learned, begin, [24, 4], choices, seed=1)
    assert again.numpy().tobytes() == found.numpy().tobytes()
