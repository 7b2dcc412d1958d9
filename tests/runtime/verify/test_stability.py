"""Batch invariance: random texts of many scripts have the same bytes alone and in random batches."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moembed.inference.batching import TOKENS_PER_CALL, plan
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify import stability as stability_module
from moembed.verify.probes import probe_ids, probe_texts
from moembed.verify.stability import check_stability

_SCRIPTS = st.sampled_from(
    [
        "abcdefgh xyz",
        "äöüß ÉÈ",
        "абвгд ежз",
        "αβγδ εζ",
        "你好世界嵌入",
        "こんにちは カナ",
        "한국어 문장",
        "العربية لغة",
        "हिन्दी भाषा",
        "ภาษาไทย",
    ]
)
_TEXTS = st.lists(
    _SCRIPTS.flatmap(lambda letters: st.text(letters, max_size=120))
    | st.text(st.characters(codec="utf-8"), max_size=40),
    min_size=1,
    max_size=10,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=_TEXTS, order=st.randoms(use_true_random=False), batch_size=st.integers(1, 8))
def test_batch_composition_order_and_size_do_not_matter(small, texts, order, batch_size):
    alone = np.stack([small.encode_query(text) for text in texts])
    positions = list(range(len(texts)))
    order.shuffle(positions)
    shuffled = small.encode_query([texts[i] for i in positions], batch_size=batch_size)
    assert shuffled.tobytes() == alone[positions].tobytes()


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=_TEXTS)
def test_the_built_in_model_is_batch_invariant(model, texts):
    alone = np.stack([model.encode_document(text) for text in texts])
    assert model.encode_document(texts[::-1]).tobytes() == alone[::-1].tobytes()


@given(
    lengths=st.lists(st.integers(2, 512), max_size=60),
    batch_size=st.integers(1, 32),
    budget=st.integers(1, 3 * TOKENS_PER_CALL),
)
def test_a_plan_takes_every_text_once_and_keeps_its_budget(lengths, batch_size, budget):
    batches = list(plan(lengths, batch_size=batch_size, tokens_per_call=budget))
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        widest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or len(batch) * widest <= budget
        assert len(batch) <= batch_size
    flat = [lengths[i] for batch in batches for i in batch]
    assert flat == sorted(flat, reverse=True)


@pytest.mark.parametrize("extra", [0, 1, 7, 63])
def test_pad_columns_do_not_matter(small, extra):
    ids = np.arange(10, 40)[None]
    run = small.session.run
    expected = run("sentence_embedding", ids, np.ones_like(ids))
    wide, mask = (np.pad(a, ((0, 0), (0, extra)), constant_values=c) for a, c in ((ids, 4711), (np.ones_like(ids), 0)))
    assert run("sentence_embedding", wide, mask).tobytes() == expected.tobytes(), "for any pad id"


def test_probe_ids_are_the_texts_cut_to_the_limit(bundle):
    tokenizer = Tokenizer(bundle)
    whole = [ids.tolist() for ids in tokenizer.encode(probe_texts())]
    assert probe_ids(tokenizer, 512) == whole
    assert len(whole) == 40
    assert probe_ids(tokenizer, 7) == [ids[:7] for ids in whole]


def test_a_quick_check_uses_a_third_of_the_texts(bundle):
    report = check_stability(bundle, quick=True)
    assert report.passed
    assert (report.texts, report.threads[0], len(report.threads)) == (14, 1, 2)
    assert report.comparisons == 14 * (3 + 2 * 4) * 2


def test_differing_vectors_are_counted(bundle, monkeypatch):
    right = stability_module._vectors

    def wrong(session, rows, extra=0):
        return right(session, rows, extra) + np.float32(len(rows) == 3) * np.float32(0.5)

    monkeypatch.setattr(stability_module, "_vectors", wrong)
    report = check_stability(bundle, quick=True)
    assert not report.passed
    assert 0 < report.differing < report.comparisons
    assert report.max_abs == pytest.approx(0.5, abs=1e-6)
