"""Batch invariance: hundreds of random batches of real multilingual text, and thousands with `-m full`."""

import numpy as np
import pytest

from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.quantize.pipeline import quantize
from support.checkpoints import small_config, write_checkpoint
from support.random_batches import LARGEST, SENTENCES, THREADS, batches, compare, rows_of


def test_the_built_in_model(model):
    outcome = compare(model.bundle, pool=50, count=80, tokens=512)
    assert not outcome.differing, outcome


def test_a_small_int8_model(int8):
    outcome = compare(int8, pool=200, count=400, tokens=1024)
    assert not outcome.differing, outcome


@pytest.mark.full
@pytest.mark.parametrize("seed", range(1, 6))
def test_the_built_in_model_a_thousand_times(model, seed):
    outcome = compare(model.bundle, pool=500, count=1000, seed=seed)
    assert not outcome.differing, outcome


@pytest.mark.full
@pytest.mark.parametrize(
    "changes", [{}, {"num_experts": 8, "n_embd": 64, "n_inner": 96}, {"n_layer": 2, "n_inner": 16}]
)
def test_small_int8_models_thousands_of_times(tmp_path, changes):
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_config(**changes), seed=len(changes))
    int8 = quantize(export(locate(checkpoint), tmp_path / "fp32"), tmp_path / "int8")
    outcome = compare(int8, pool=1000, count=3000)
    assert not outcome.differing, outcome


def test_random_batches_are_repeatable_and_varied(model):
    rows = rows_of(model.tokenizer, model.max_tokens, SENTENCES, 100, 0)
    lengths = [len(row) for row in rows]
    assert (min(lengths), max(lengths)) == (1, model.max_tokens)
    assert len({row.tobytes() for row in rows}) > 90
    drawn = list(batches(lengths, 500, 0))
    assert drawn[7:] == list(batches(lengths, 500, 0))[7:]
    assert {batch.threads for batch in drawn} == set(THREADS)
    assert {len(batch.rows) for batch in drawn} == set(range(1, LARGEST + 1))
    assert {lengths[row] for batch in drawn for row in batch.rows} >= {1, model.max_tokens}


def test_a_difference_of_one_bit_is_found_and_named(int8, monkeypatch):
    """Simulate a runtime whose sums depend on the batch composition."""
    from moembed.inference.session import Session

    run = Session.run

    def drifting(self, output, ids, mask):
        vectors = run(self, output, ids, mask)
        if len(ids) == 3:
            vectors[1, 5] = np.nextafter(vectors[1, 5], np.float32(2))
        return vectors

    monkeypatch.setattr(Session, "run", drifting)
    outcome = compare(int8, pool=50, count=80, tokens=256)
    assert {len(batch.rows) for batch, _, _ in outcome.differing} == {3}
    assert str(outcome).startswith(
        f"{len(outcome.differing)} of {outcome.vectors} vectors in 80 batches differ\n  Batch(number="
    )
