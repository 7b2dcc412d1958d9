"""Texts beyond the limit: an error, a cut that is reported, windows, or the mean of windows."""

from itertools import pairwise

import numpy as np
import pytest

from moembed import Chunk
from moembed.errors import InputError, TextTooLongError, TruncationWarning
from support.tolerances import UNIT_LENGTH

TEXTS = ["Hello!", "¡Hola!", "跟我讲讲嵌入", "How do I run it on a GPU?", "", "a much longer text " * 20]
LONG = "the bridge was built of sandstone in 1902 and carries two lanes over the river. " * 60


def test_overlong_is_an_error_by_default(model):
    tokens = model.count_tokens(LONG, prompt_name="query")
    assert tokens > 512
    with pytest.raises(TextTooLongError, match=f"text 1 has {tokens} tokens.*truncate.*mean") as caught:
        model.encode_query(["fine", LONG])
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (1, tokens, 512)


def test_exactly_the_limit_is_not_too_long(model):
    words = "a " * 600
    room = 512 - model.count_tokens("", prompt_name="query")
    fits = words[: 2 * room]
    assert model.count_tokens(fits, prompt_name="query") == 512
    assert model.encode_query(fits).shape == (384,)
    with pytest.raises(TextTooLongError):
        model.encode_query(fits + "a")


def test_truncate_tells_which(model):
    with pytest.warns(TruncationWarning, match=r"2 of 3 texts \(index 0, 2\)") as caught:
        vectors = model.encode_query([LONG, "fine", LONG + "more"], overlong="truncate")
    assert caught[0].message.indices == (0, 2)
    assert np.array_equal(vectors[0], vectors[2]), "both are cut to the same tokens"
    result = next(model.embed([LONG], prompt="query: ", overlong="truncate"))
    assert result.truncated
    assert result.tokens == 512
    assert 0 < result.end < len(LONG)
    assert np.array_equal(result.vector, vectors[0])
    # What was read is what `end` says.
    assert np.array_equal(model.encode_query(LONG[: result.end]), vectors[0])


def test_truncate_start_leaves_out_the_start(model):
    with pytest.warns(TruncationWarning, match=r"1 of 2 texts \(index 1\)"):
        vectors = model.encode_query(["fine", "more" + LONG], overlong="truncate_start")
    (result,) = model.embed([LONG], prompt="query: ", overlong="truncate_start")
    assert (result.truncated, result.tokens, result.end) == (True, 512, len(LONG.rstrip()))
    assert 0 < result.start < result.end
    assert np.array_equal(result.vector, vectors[1]), "both are cut to the same tokens"
    # Words of one token each: a cut within a word would be read otherwise as the beginning of a text.
    words = "the river " * 600
    (result,) = model.embed([words], prompt="query: ", overlong="truncate_start")
    assert np.array_equal(model.encode_query(words[result.start :]), result.vector), (
        "what was read is what `start` says"
    )


def test_chunks_cover_the_text_and_overlap(model):
    windows = list(model.embed(["short", LONG], prompt="passage: ", overlong=Chunk(overlap=32)))
    assert [w.index for w in windows].count(0) == 1
    own = [w for w in windows if w.index == 1]
    assert len(own) > 1
    assert (own[0].start, own[-1].end) == (0, len(LONG.rstrip()))
    assert all(a.end > b.start > a.start for a, b in pairwise(own)), "each begins inside the one before"
    assert all(w.tokens <= 512 and not w.truncated for w in own)
    first = model.encode_document(LONG[: own[0].end])
    assert np.array_equal(first, own[0].vector), "a window is an ordinary text with the prompt in front"


def test_the_mean_of_windows_is_one_vector(model):
    pooled = model.encode_document(["short", LONG], overlong="mean")
    windows = list(model.embed([LONG], prompt="passage: ", overlong="chunk"))
    mean = sum(w.vector.astype(np.float64) * w.tokens for w in windows)
    assert np.allclose(pooled[1], mean / np.linalg.norm(mean), atol=UNIT_LENGTH)
    assert np.array_equal(pooled[0], model.encode_document("short"))
    (record,) = model.embed([LONG], prompt="passage: ", overlong="mean")
    assert (record.start, record.end) == (0, len(LONG.rstrip()))
    assert np.array_equal(record.vector, pooled[1])
    assert np.array_equal(model.encode_document(LONG, overlong=Chunk(pooled=True)), pooled[1])
    for overlong in ("chunk", Chunk()):
        with pytest.raises(InputError, match="encode returns one vector per text: pass overlong='mean'"):
            model.encode_document(LONG, overlong=overlong)


def test_windows_need_room(model):
    with pytest.raises(InputError, match="does not fit"):
        model.encode_query(LONG, overlong=Chunk(overlap=600, pooled=True))
    with pytest.raises(InputError, match="overlap = -1; expected an integer of at least 0"):
        Chunk(overlap=-1)
