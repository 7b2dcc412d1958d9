"""First and last tokens of a long text are those of the whole text, without reading the rest."""

import random

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from moembed.native.loader import native_library
from moembed.pull.opening import open_bundle
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.truncation import Chunk, windows_of
from support.tiny_networks import write_tokenizer
from support.unicode_texts import ADVERSARIAL, random_texts

# More than the native tokenizer reads at a time, and more than it keeps of a word before it settles its beginning.
SIZE = 12_000


def repeated(unit: str) -> str:
    return unit * (SIZE // len(unit.encode()))


def joined(separator: str, seed: int = 1) -> str:
    rng, texts = random.Random(seed), [*ADVERSARIAL.values(), *random_texts(seed, 400)]
    return separator.join(text[:300] for text in rng.sample(texts, len(texts)))[:SIZE]


TEXTS = {
    "words": "the quick brown fox jumps over the lazy dog. " * 270,
    "one word": repeated("abcdefghij"),
    "one letter": repeated("a"),
    "one letter, odd": "b" + repeated("a") + "c",
    "equals signs": repeated("="),
    "digits": repeated("0123456789"),
    "ligatures": repeated("\ufdfa"),
    "squared words": repeated("\u3316"),
    "primes": repeated("\u2057"),
    "Chinese": repeated("\u4e2d\u6587\u5b57\u7b26\uff0c"),
    "unknown": repeated("\U00012000"),
    "unknown among words": "hello " + repeated("\U00012000") + "x world " * 10 + repeated("\U00012000"),
    "unknown in short runs": repeated("\U00012000" * 70 + "a"),
    "unknown in runs of a piece's length": repeated("\U00012000" * 63 + "a" + "\U00012000" * 64 + "b"),
    "marks on one letter": "e" + repeated("\u0301"),
    "marks on letters": repeated("e\u0301\u0302"),
    "half flags": repeated("\U0001f1e6"),
    "emoji joined": repeated("\U0001f468\u200d\U0001f469\u200d"),
    "prepended": repeated("\u0600a"),
    "what vanishes": repeated("a\u200b\u00ad"),
    "only what vanishes": repeated("\u200b"),
    "spaces": repeated("\u3000"),
    "special tokens": repeated("<s>"),
    "special tokens among words": repeated("a <mask>b </s>"),
    "word marks": repeated("\u2581a\u2581\u2581"),
    "Windows lines": repeated("a line\r\nof text\r\n"),
    "everything": joined(""),
    "everything, spaced": joined(" "),
    "everything, other seed": joined("", 2),
}


@pytest.fixture(scope="module", params=["native", "tokenizers"])
def tokenizer(request):
    if request.param == "native" and native_library().functions is None:
        pytest.skip("the native library was not compiled")
    return Tokenizer(open_bundle(None), backend=request.param)


@pytest.fixture(scope="module")
def reference():
    return Tokenizer(open_bundle(None), backend="tokenizers")


@pytest.fixture(scope="module")
def whole(reference):
    """Ids and spans of the texts as the library `tokenizers` reads them whole."""
    return {name: reference.encode_with_offsets(text) for name, text in TEXTS.items()}


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", TEXTS)
def test_the_first_and_the_last_tokens_are_those_of_the_whole(tokenizer, whole, name):
    text, (ids, spans) = TEXTS[name], whole[name]
    assert_same(tokenizer.encode_with_offsets(text), (ids, spans))
    for most in (0, 1, 512, max(len(ids) - 1, 0), len(ids) + 1):
        (framed,) = tokenizer.encode([text], max_tokens=most)
        assert framed.tolist() == [tokenizer.bos, *ids[:most], tokenizer.eos]
        assert_same(tokenizer.encode_with_offsets(text, max_tokens=most), (ids[:most], spans[:most]))
        start = max(len(ids) - most, 0)
        assert_same(tokenizer.encode_end(text, most), (ids[start:], spans[start:]))


def test_texts_of_a_batch_are_cut_each(tokenizer, whole):
    found = tokenizer.encode(list(TEXTS.values()), max_tokens=100)
    for ids, (expected, _) in zip(found, whole.values(), strict=True):
        assert ids.tolist() == [tokenizer.bos, *expected[:100], tokenizer.eos]


@pytest.mark.parametrize("policy", ["truncate", "truncate_start", "chunk"])
@pytest.mark.parametrize("name", TEXTS)
def test_pieces_are_cut_from_the_tokens_of_the_whole(tokenizer, reference, name, policy):
    """The policies give the same windows as if the whole text had been tokenized."""
    text, prompt, limit, overlap = TEXTS[name], "search_query: ", 64, 10
    head = len(tokenizer.encode_with_offsets(prompt)[0])
    ids, spans = reference.encode_with_offsets(text, prefix=prompt)
    body, where, room = ids[head:], spans[head:] - len(prompt), limit - 2 - head
    overlong = Chunk(overlap=overlap) if policy == "chunk" else policy
    found = list(windows_of(tokenizer, [text], prompt=prompt, limit=limit, overlong=overlong))
    if len(ids) + 2 <= limit:
        (piece,) = found
        assert (piece.ids[1:-1].tolist(), piece.start, piece.end) == (ids.tolist(), 0, len(text))
        return
    step = room - overlap
    starts = {
        "truncate": [0],
        "truncate_start": [len(body) - room],
        "chunk": list(range(0, max(len(body) - overlap, 1), step)),
    }[policy]
    assert len(found) == len(starts)
    for piece, start in zip(found, starts, strict=True):
        end = min(start + room, len(body))
        assert piece.ids[1:-1].tolist() == [*ids[:head], *body[start:end]]
        assert (piece.start, piece.end) == (max(where[start, 0], 0), where[end - 1, 1])
    if policy == "chunk":
        some = list(windows_of(tokenizer, [text], prompt=prompt, limit=limit, overlong=overlong, windows=3))
        assert [piece.ids.tolist() for piece in some] == [piece.ids.tolist() for piece in found[:3]]


@pytest.fixture(scope="module")
def wordpiece(tmp_path_factory):
    """A WordPiece tokenizer with BERT's normalizer, and the library's own reading of the same file."""
    path = tmp_path_factory.mktemp("wordpiece") / "tokenizer.json"
    write_tokenizer(path)
    library = Library.from_file(str(path))
    library.no_truncation()
    library.no_padding()
    return Tokenizer(path), library


def test_wordpiece_reads_every_text_as_the_library_does(wordpiece):
    """M19, M21: ids and offsets, of whole texts and of their beginnings and ends; a file may cut and pad."""
    tokenizer, library = wordpiece
    texts = [
        *ADVERSARIAL.values(),
        *random_texts(3, 500),
        "Caf\u00e9 na\u00efve",
        "\u0130 \ufffd " + "x" * 101,
        *TEXTS.values(),
    ]
    for text, framed in zip(texts, tokenizer.encode(texts), strict=True):
        expected = library.encode(text)
        assert framed.tolist() == expected.ids
        whole = np.array(expected.ids[1:-1], np.int32), np.array(expected.offsets[1:-1], np.int64).reshape(-1, 2)
        assert_same(tokenizer.encode_with_offsets(text), whole)
        for most in (0, 1, 30, 510):
            assert_same(tokenizer.encode_with_offsets(text, max_tokens=most), tuple(part[:most] for part in whole))
            start = max(len(whole[0]) - most, 0)
            assert_same(tokenizer.encode_end(text, most), tuple(part[start:] for part in whole))


@pytest.mark.long
def test_random_texts_of_every_kind_and_length(tokenizer, reference, count):
    rng = random.Random(0)
    units = [unit for text in TEXTS.values() for unit in (text[:1], text[:7], text[-5:])] + [" ", "\n", "<s>", "\u2581"]
    for _ in range(2 * count):
        text = "".join(rng.choice(units) * rng.choice((1, 3, 100, 4000)) for _ in range(rng.randrange(1, 12)))
        ids, spans = reference.encode_with_offsets(text)
        most = rng.randrange(1, 2 * len(ids) + 2)
        assert_same(tokenizer.encode_with_offsets(text), (ids, spans))
        assert_same(tokenizer.encode_with_offsets(text, max_tokens=most), (ids[:most], spans[:most]))
        assert_same(tokenizer.encode_end(text, most), (ids[-most:], spans[-most:]))
