"""Training of the projection: the order of components, and what truncated embeddings keep."""

import pytest
import torch
from torch.nn import functional as F  # noqa: N812

from moembed.train.data import pairs
from moembed.train.recipe import ProjectionRecipe
from moembed.train.steps import projection
from moembed.train.steps.distillation import agreement


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)


def _recipe(**values):
    return ProjectionRecipe(
        **{"temperature": 0.02, "neighbours_weight": 1.0, "train_pairs": 0, "pair_temperature": 0.05, "margin": 0.05}
        | values
    )


def test_the_leading_components_tell_texts_apart(generator):
    spread = torch.cat([torch.full((4,), 1.0), torch.full((20,), 0.05)])
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    # All texts share a large component, like a teacher's vectors, which does not tell them apart.
    vectors = F.normalize(torch.randn(600, 24, generator=generator) * spread @ rotation + 3 * rotation[5], dim=-1)
    train, validation = vectors[:400], vectors[400:]
    recipe = _recipe(learning_rate=2e-3, steps=60, batch_size=128)
    found = projection.fit_to_neighbours(train, [24, 8, 5], recipe, seed=1)
    torch.testing.assert_close(found @ found.T, torch.eye(24), rtol=0, atol=1e-5)
    for width in (8, 5):
        plain = agreement(validation[:, :width], validation)["neighbour_overlap"]
        best = agreement((validation @ found.T)[:, :width], validation @ found.T)["neighbour_overlap"]
        assert best > 0.9
        assert plain < 0.8
    again = projection.fit_to_neighbours(train, [24, 8, 5], recipe, seed=1)
    assert again.numpy().tobytes() == found.numpy().tobytes()


def test_without_a_smaller_width_the_directions_are_principal(generator):
    vectors = F.normalize(torch.randn(50, 8, generator=generator), dim=-1)
    recipe = _recipe(learning_rate=1.0, steps=9, batch_size=16)
    found = projection.fit_to_neighbours(vectors, [8], recipe, seed=1)
    torch.testing.assert_close(found @ found.T, torch.eye(8), rtol=0, atol=1e-5)
    spread = (vectors @ found.T).square().sum(0)
    assert spread.tolist() == sorted(spread.tolist(), reverse=True)
    assert torch.equal(projection.fit_to_pairs(vectors, vectors, found, [8], recipe, seed=1), found)


def test_components_that_pairs_do_not_share_come_last(generator):
    # Four components encode the meaning of a text, four equally large ones its language, no help to find a translation.
    meaning = torch.randn(600, 4, generator=generator)
    spoken = torch.randn(6, 4, generator=generator)
    rotation = torch.linalg.qr(torch.randn(24, 24, generator=generator))[0]
    sides = []
    for _ in range(2):
        language = spoken[torch.randint(6, (600,), generator=generator)]
        noise = 0.1 * torch.randn(600, 16, generator=generator)
        sides.append(F.normalize(torch.cat([meaning, language, noise], dim=1) @ rotation, dim=-1))
    train, validation = [side[:450] for side in sides], [side[450:] for side in sides]
    recipe = _recipe(learning_rate=5e-3, steps=120, batch_size=200, temperature=0.05, margin=0.01)
    initial = projection.fit_to_neighbours(torch.cat(train), [24, 4], recipe, seed=1)
    found = projection.fit_to_pairs(*train, initial, [24, 4], recipe, seed=1)
    torch.testing.assert_close(found @ found.T, torch.eye(24), rtol=0, atol=1e-5)
    before, after = (
        pairs.recall_at_1(validation[0] @ matrix.T, validation[1] @ matrix.T, [24, 4]) for matrix in (initial, found)
    )
    assert after["recall_at_1"] == before["recall_at_1"]
    assert after["recall_at_1_4"] > before["recall_at_1_4"] + 0.2
    for block in torch.cat(train).matmul(found.T).split([4, 20], dim=1):
        moments = block.T @ block
        assert moments.diagonal().tolist() == sorted(moments.diagonal().tolist(), reverse=True)
        torch.testing.assert_close(moments, moments.diagonal().diag(), rtol=0, atol=0.02)
    again = projection.fit_to_pairs(*train, initial, [24, 4], recipe, seed=1)
    assert again.numpy().tobytes() == found.numpy().tobytes()
