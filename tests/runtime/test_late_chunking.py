"""Late chunking: windows and spans of a text, averaged from the token states of whole passes (C45)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed import Chunk
from moembed.errors import InputError
from moembed.graphemes import is_boundary
from moembed.precision import normalized
from support.tolerances import UNIT_LENGTH

SENTENCES = [
    "Berlin is the capital of Germany. ",
    "It has 3.8 million inhabitants. ",
    "The café at the bridge is called ☕️ naïve. ",
    "骆驼很酷，嵌入也很酷。",
    "👨‍👩‍👧 and 👍🏽 are one character each. ",
]
TEXT = "".join(SENTENCES)
LONG = TEXT * 30  # more than two passes
PROMPT = "passage: "


def late(model, text, prompt=PROMPT, **options):
    return list(model.embed([text], prompt=prompt, overlong=Chunk(late=True, **options)))


def spans_of(sentences):
    ends = np.cumsum([len(one) for one in sentences]).tolist()
    return list(zip([0, *ends], ends, strict=False))


def body_tokens(model, text, prompt=PROMPT):
    ids, offsets = model.tokenizer.encode_with_offsets(text, prefix=prompt)
    return ids[np.searchsorted(offsets[:, 0], len(prompt)) :].tolist()


def test_a_span_is_the_mean_of_its_tokens_in_one_pass(model):
    """By hand: prompt and special tokens are in the pass, and in no span."""
    found = late(model, TEXT, spans=lambda text: spans_of(SENTENCES))
    assert [(one.start, one.end) for one in found] == spans_of(SENTENCES)
    states = model.token_embeddings(TEXT, prompt=PROMPT)
    pieces = model.tokens(TEXT, prompt=PROMPT)
    ids, offsets = model.tokenizer.encode_with_offsets(TEXT, prefix=PROMPT)
    assert len(pieces) == len(ids) + 2
    for one, (start, end) in zip(found, spans_of(SENTENCES), strict=True):
        starts = offsets[:, 0] - len(PROMPT)
        rows = 1 + np.flatnonzero((starts >= start) & (starts < end))
        assert one.tokens == len(rows)
        np.testing.assert_allclose(one.vector, normalized(states[rows].mean(axis=0)), rtol=0, atol=UNIT_LENGTH)
    assert not np.allclose(found[1].vector, model.encode(SENTENCES[1], prompt=PROMPT), atol=0.01), "context counts"


def test_one_span_over_all_of_a_text_is_close_to_its_vector(model):
    (found,) = late(model, TEXT, spans=lambda text: [(0, len(text))])
    assert found.vector @ model.encode(TEXT, prompt=PROMPT) > 0.9


@pytest.mark.parametrize("text", [TEXT, LONG, LONG.replace(" ", ""), "x" * 3000, "短" * 900])
@pytest.mark.parametrize("tokens", [1, 16, 128, 5000])
def test_windows_cover_the_text_and_count_each_token_once(model, text, tokens):
    found = late(model, text, tokens=tokens)
    assert [one.start for one in found] == [0, *(one.end for one in found[:-1])]
    assert found[-1].end == len(text)
    assert all(is_boundary(text, one.end) for one in found)
    assert sum(one.tokens for one in found) == len(body_tokens(model, text))
    assert not any(one.truncated for one in found)
    most = max(one.tokens for one in found)
    assert most <= max(tokens, 8), "only one character with many tokens is larger"
    sizes = [one.tokens for one in found[:-1]]
    assert not sizes or min(sizes) > min(tokens, most) / 4


def test_windows_begin_at_words(model):
    text = "several ordinary English words are written here again and again " * 20
    found = late(model, text, tokens=20)
    assert len(found) > 5
    assert all(text[one.start - 1] == " " for one in found[1:])


def test_a_text_longer_than_a_pass_is_averaged_over_passes(model):
    """Every token comes from the pass in which it stands further from the edge, and counts once."""
    body, offsets = model.tokenizer.encode_with_offsets(LONG, prefix=PROMPT)
    head = int(np.searchsorted(offsets[:, 0], len(PROMPT)))
    starts, body = offsets[head:, 0] - len(PROMPT), body[head:]
    room, overlap = model.max_tokens - 2 - head, 64
    assert len(body) > 2 * room - overlap
    states = np.empty((len(body), model.dim))
    end = 0
    for first in range(0, len(body) - overlap, room - overlap):
        part = body[first : first + room]
        ids = np.concatenate([[model.tokenizer.bos], offsets_head(model, head), part, [model.tokenizer.eos]])
        (output,) = model.session.run("token_embeddings", ids[None].astype(np.int64), np.ones((1, len(ids)), np.int64))
        begin, end = end, first + len(part) - (0 if first + room >= len(body) else overlap // 2)
        states[begin:end] = output[1 + head :][begin - first : end - first]
    assert end == len(body)
    spans = [(0, 700), (700, 3000), (3000, len(LONG))]
    for one in late(model, LONG, spans=lambda text: spans):
        rows = (starts >= one.start) & (starts < one.end)
        expected = normalized(states[rows].mean(axis=0).astype(np.float32))
        np.testing.assert_allclose(one.vector, expected, rtol=0, atol=UNIT_LENGTH)


def offsets_head(model, head):
    return model.tokenizer.encode_with_offsets("x", prefix=PROMPT)[0][:head]


def test_vectors_do_not_depend_on_the_batch(model):
    texts = [TEXT, "a", LONG, "", SENTENCES[3], "two words"]
    policy = Chunk(late=True, tokens=32)
    together = list(model.embed(texts, prompt=PROMPT, overlong=policy))
    for index, text in enumerate(texts):
        alone = late(model, text, tokens=32)
        own = [one for one in together if one.index == index]
        assert [one.vector.tobytes() for one in own] == [one.vector.tobytes() for one in alone]
        assert all(one.text == text for one in own)
    small = list(model.embed(texts, prompt=PROMPT, overlong=policy, batch_size=2))
    assert [one.vector.tobytes() for one in small] == [one.vector.tobytes() for one in together]


@pytest.mark.parametrize("text", ["", "  ", "\n"])
@pytest.mark.parametrize("spans", [None, lambda text: []])
def test_a_text_without_tokens_has_one_window(model, text, spans):
    (found,) = late(model, text, spans=spans)
    assert (found.start, found.end, found.tokens) == (0, len(text), 0)
    np.testing.assert_allclose(found.vector, model.encode(text, prompt=PROMPT), rtol=0, atol=UNIT_LENGTH)


def test_widths_and_precisions(model):
    full = np.stack([one.vector for one in late(model, TEXT, tokens=16)])
    options = {"prompt": PROMPT, "overlong": Chunk(late=True, tokens=16), "truncate_dim": 128}
    short = np.stack([one.vector for one in model.embed([TEXT], **options)])
    np.testing.assert_allclose(short, normalized(full[:, :128]), rtol=0, atol=UNIT_LENGTH)
    for one, vector in zip(model.embed([TEXT], **options, precision="int8"), short, strict=True):
        assert np.abs(one.vector * one.scale - vector).max() <= 0.51 * one.scale


@pytest.mark.parametrize("prompt", ["", PROMPT, "a longer prompt without an end"])
def test_offsets_are_characters_of_the_text(model, prompt):
    found = late(model, TEXT, prompt=prompt, spans=lambda text: [(34, 66), (66, len(text))])
    assert TEXT[found[0].start : found[0].end] == SENTENCES[1]
    assert found[0].tokens + found[1].tokens < len(body_tokens(model, TEXT, prompt))


def test_a_span_that_cuts_a_word_leaves_the_token_to_the_first(model):
    text = "unbelievable things"
    tokens = len(body_tokens(model, text))
    first, second = late(model, text, spans=lambda _: [(0, 4), (4, len(text))])
    assert first.tokens + second.tokens == tokens


@pytest.mark.parametrize(
    ("text", "spans", "said"),
    [
        ("ab cd", [(0, 2), (2, 2)], r"\(2, 2\) is empty or not inside"),
        ("ab cd", [(3, 1)], r"\(3, 1\) is empty or not inside"),
        ("ab cd", [(-1, 2)], "is empty or not inside"),
        ("ab cd", [(0, 6)], "not inside the text, which has 5 characters"),
        ("ab cd", [(0, 3), (2, 5)], r"\(2, 5\) begins before \(0, 3\) ends"),
        ("ab cd", [(3, 5), (0, 2)], "begins before"),
        ("ab cd", [], "there is none"),
        ("ab cd", [(0, 2), (2, 3)], r"no token begins in \(2, 3\)"),
        ("e\u0301 cd", [(0, 1), (1, 5)], r"divides a character at 1"),
        ("👍🏽 cd", [(0, 1)], "divides a character at 1"),
        ("👨‍👩‍👧 cd", [(0, 2)], "divides a character at 2"),
        ("🇩🇪🇫🇷 cd", [(0, 3)], "divides a character at 3"),
        ("ab cd", [(0, 2.5)], "expected .start, end. pairs"),
        ("ab cd", [3], "expected .start, end. pairs"),
        ("ab cd", None, "expected .start, end. pairs"),
        ("ab cd", [(0, 1, 2)], "expected a pair"),
        ("ab cd", ["ab"], "expected .start, end. pairs"),
    ],
)
def test_spans_that_are_none(model, text, spans, said):
    policy = Chunk(late=True, spans=lambda given: [(0, 4)] if given == "fine" else spans)
    results = model.embed(["fine", text], prompt="", overlong=policy)
    with pytest.raises(InputError, match="spans of text 1: .*" + said):
        list(results)


PIECES = ["a", " ", "é", "e\u0301", "👍🏽", "骆", "\n", "🇩🇪", "ing", "\u200d"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from(PIECES), max_size=60), st.integers(1, 9))
def test_any_text_is_covered(model, parts, tokens):
    text = "".join(parts)
    found = late(model, text, tokens=tokens)
    assert "".join(text[one.start : one.end] for one in found) == text
    assert sum(one.tokens for one in found) == len(body_tokens(model, text))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"late": 1}, "late = 1; expected True or False"),
        ({"late": True, "pooled": True}, "pass only one of them"),
        ({"late": True, "tokens": 0}, "tokens = 0; expected a positive integer"),
        ({"late": True, "spans": [(0, 1)]}, "expected a function from a text"),
        ({"tokens": 64}, "pass late=True with them"),
        ({"spans": len}, "pass late=True with them"),
    ],
)
def test_a_policy_that_is_none(options, said):
    with pytest.raises(InputError, match=said):
        Chunk(**options)


def test_a_text_that_is_no_unicode_is_named(model):
    results = model.embed(["a", "b", "x\ud800"], prompt="", batch_size=2, overlong=Chunk(late=True))
    with pytest.raises(InputError, match="text 2 has the lone surrogate"):
        list(results)


def test_encode_gives_one_vector_per_text(model):
    with pytest.raises(InputError, match="one vector per window from embed"):
        model.encode(["a"], prompt="", overlong=Chunk(late=True))


def test_a_prompt_without_room_and_an_overlap_that_does_not_fit(model):
    with pytest.raises(InputError, match="overlap of 600 does not fit"):
        late(model, "a", overlap=600)
    with pytest.raises(InputError, match="no room is"):
        late(model, "a", prompt="word " * 600)
