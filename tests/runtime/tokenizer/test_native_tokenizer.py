"""Native tokenizer: same ids and spans as `tokenizers`."""

import gzip
import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from moembed.errors import InputError
from moembed.export.vocabulary import vocabulary_of
from moembed.native.loader import native_library
from moembed.pull.opening import DEFAULT_FOLDER, open_bundle
from moembed.tokenizer.native import NativeTokenizer
from moembed.tokenizer.reference import ReferenceTokenizer
from moembed.tokenizer.tokenizer import Tokenizer
from support.folders import ROOT
from support.kept import kept, sources
from support.token_ids import PUBLISHED, VECTORS
from support.unicode_texts import ADVERSARIAL, random_texts

DATA = ROOT.parent / "shared" / "data"

pytestmark = pytest.mark.skipif(native_library().functions is None, reason="the native library was not compiled")


def pair_of(path: Path, vocabulary: Path):
    """The native tokenizer and the reference of a `tokenizer.json`, whose vocabulary is written if it is not there."""
    if not vocabulary.exists():
        vocabulary.write_bytes(vocabulary_of(path))
    return NativeTokenizer(native_library().functions, vocabulary), ReferenceTokenizer(path)


@pytest.fixture(scope="module", params=["default", "published"])
def pair(request, tmp_path_factory):
    path = PUBLISHED if request.param == "published" else DEFAULT_FOLDER / "tokenizer.json"
    if not path.exists():
        pytest.skip("the published tokenizer.json is not here; set MOEMBED_PUBLISHED_TOKENIZER to a copy")
    vocabulary = tmp_path_factory.mktemp(request.param) / "vocabulary.bin"
    decided_by = [path.read_bytes(), sources("export", "runtime/tokenizer")]
    kept(f"vocabulary-{request.param}", decided_by, lambda: vocabulary.write_bytes(vocabulary_of(path)), vocabulary)
    return pair_of(path, vocabulary)


@pytest.fixture(scope="module")
def default():
    bundle = open_bundle(None)
    return Tokenizer(bundle, backend="native"), Tokenizer(bundle, backend="tokenizers")


def assert_equal(pair, texts, *, spans=True):
    """Ids of all texts together, and ids and spans of each alone, agree."""
    native, reference = pair
    for text, found, expected in zip(texts, native.encode(texts), reference.encode(texts), strict=True):
        assert found.tolist() == expected.tolist(), text[:200]
        if spans:
            (ids, where), (wanted, places) = native.encode_with_spans(text), reference.encode_with_spans(text)
            assert ids.tolist() == wanted.tolist(), text[:200]
            assert where.tolist() == places.tolist(), text[:200]


def test_special_tokens(pair):
    native, reference = pair
    assert (native.bos, native.eos, native.pad) == (reference.bos, reference.eos, reference.pad)


def test_published_vectors(pair):
    assert_equal(pair, list(VECTORS))


# Composed, decomposed; whether both have the same ids. tokenizer.json normalizes a character of several code points as a whole
# if it has less than 6 bytes, where sentencepiece normalizes every one.
FORMS = {
    "kana with a voice mark": ("\u30d7", "\u30d5\u309a", False),
    "Hangul syllable": ("\ud55c", "\u1112\u1161\u11ab", False),
    "letter with an accent": ("Caf\u00e9", "Cafe\u0301", True),
    "ring above": ("\u00c5", "A\u030a", True),
    "nukta": ("\u095c", "\u0921\u093c", True),
}


@pytest.mark.parametrize(("composed", "decomposed", "same"), FORMS.values(), ids=FORMS)
def test_composed_and_decomposed_letters(pair, composed, decomposed, same):
    """M21: the ids are those of tokenizer.json, and docs/troubleshooting.md says where they differ from sentencepiece's."""
    assert_equal(pair, [composed, decomposed, f"a {decomposed}{composed} b"])
    native, _ = pair
    found, other = native.encode([composed, decomposed])
    assert (found.tolist() == other.tolist()) is same


def test_adversarial_texts(pair):
    assert_equal(pair, list(ADVERSARIAL.values()))


def test_adversarial_texts_joined(pair):
    texts = list(ADVERSARIAL.values())
    rng = random.Random(0)
    assert_equal(pair, ["".join(rng.sample(texts, 3)) for _ in range(60)])


@pytest.mark.parametrize("seed", range(2))
def test_random_texts(pair, seed):
    assert_equal(pair, list(random_texts(seed, 2000)))


@pytest.mark.exhaustive
@pytest.mark.parametrize("seed", range(10, 20))
def test_hundred_thousand_random_texts(pair, seed):
    assert_equal(pair, list(random_texts(seed, 10_000)))


@pytest.mark.exhaustive
@pytest.mark.skipif(not DATA.exists(), reason="no real text beside the project")
def test_real_text(pair):
    texts = 0
    for path in sorted(path for kind in ("eval", "text") for path in (DATA / kind).rglob("*") if path.is_file()):
        content = path.read_bytes()
        lines = (gzip.decompress(content) if path.suffix == ".gz" else content).decode().splitlines()
        if ".jsonl" in path.suffixes:
            lines = [value for line in lines for value in json.loads(line).values() if isinstance(value, str)]
        for start in range(0, len(lines), 1000):
            assert_equal(pair, lines[start : start + 1000], spans=False)
            assert_equal(pair, lines[start : start + 100])
        texts += len(lines)
    print(f"{texts} texts")
    assert texts > 100_000


def assert_equal_between_letters(pair, codes):
    codes = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    assert_equal(pair, [f"a{code}b" for code in codes], spans=False)
    assert_equal(pair, ["ﬁ".join(codes[start : start + 64]) for start in range(0, len(codes), 64)])


def test_many_code_points_between_letters(pair):
    assert_equal_between_letters(pair, (code for code in range(0x110000) if code < 0x3000 or code % 17 == 0))


@pytest.mark.exhaustive
def test_every_code_point_between_letters(pair):
    assert_equal_between_letters(pair, range(0x110000))


def test_every_piece_is_found_and_told(pair):
    native, reference = pair
    size = next(token for token in range(1 << 20) if not reference.token_string(token))
    step = max(1, size // 4000)
    for token in range(0, size, step):
        assert native.token_string(token) == reference.token_string(token)
    assert [native.token_string(token) for token in (-1, size, 1 << 40)] == ["", "", ""]


def test_ten_megabytes_without_a_space_take_linear_time(default):
    native, _ = default
    for unit in ("a", "\U00012000", "x\u0301"):
        (found,) = native.encode([unit * (10_000_000 // len(unit.encode()))])
        assert found[0] == native.bos


@pytest.fixture(scope="module")
def without_pieces():
    """The built-in model's tokenizer.json with an empty vocabulary."""
    read = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    read["model"]["vocab"] = []
    return json.dumps(read)


@pytest.mark.parametrize("seed", range(40))
def test_small_vocabularies_with_ties(without_pieces, tmp_path, seed):
    """Scores from a few values, pieces from a few letters: every choice between equals is met."""
    rng, read = random.Random(seed), json.loads(without_pieces)
    letters = ["a", "b", "▁", "é", "<unk>", "\U00012000"][: rng.randrange(2, 7)]
    pieces = {"".join(rng.choices(letters, k=rng.randrange(1, 5))) for _ in range(rng.randrange(1, 60))} - {"<unk>"}
    scores = rng.choice([[-1.0], [-1.0, -2.0], [-0.1, -0.2, -0.3, -0.7], [5.0, -3.0, 0.0]])
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    read["model"]["vocab"] = [[s, 0.0] for s in special] + [[p, rng.choice(scores)] for p in sorted(pieces)]
    read["added_tokens"][-1]["id"] = 4
    path = tmp_path / "tokenizer.json"
    path.write_text(json.dumps(read), "utf-8")
    letters += [" ", "c", "<s>", "＜unk＞"]
    assert_equal(
        pair_of(path, tmp_path / "vocabulary.bin"),
        ["".join(rng.choices(letters, k=rng.randrange(30))) for _ in range(100)],
    )


def test_threads_share_one(pair):
    native, _ = pair
    texts = [*ADVERSARIAL.values(), *random_texts(7, 300)]
    expected = [ids.tolist() for ids in native.encode(texts)]
    with ThreadPoolExecutor(8) as pool:
        for found in pool.map(lambda _: [ids.tolist() for ids in native.encode(texts)], range(24)):
            assert found == expected


def test_the_class_gives_the_same_either_way(default):
    native, reference = default
    assert (native.backend, reference.backend) == ("native", "tokenizers")
    assert (native.bos, native.eos, native.pad) == (reference.bos, reference.eos, reference.pad)
    texts = [*VECTORS, *ADVERSARIAL.values()]
    for prefix in ("", "search_query: "):
        for a, b in zip(native.encode(texts, prefix=prefix), reference.encode(texts, prefix=prefix), strict=True):
            assert a.dtype == b.dtype
            assert a.tolist() == b.tolist()
        for text in texts:
            found, expected = (t.encode_with_offsets(text, prefix=prefix) for t in default)
            for a, b in zip(found, expected, strict=True):
                assert (a.dtype, a.shape, a.tolist()) == (b.dtype, b.shape, b.tolist())
    ids = range(native.bos, 48_010, 97)
    assert native.token_strings(ids) == reference.token_strings(ids)


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize("bad", ["\ud800", "a\udfffb", None, 3, b"bytes", ["list"]])
def test_both_refuse_the_same(default, way, bad):
    tokenizer = default[way]
    for prefix in ("", "query: "):
        with pytest.raises(InputError, match="text 6 "):
            list(tokenizer.encode(["fine", bad], prefix=prefix, first=5))
        with pytest.raises(InputError, match="text 0 "):
            tokenizer.encode_with_offsets(bad, prefix=prefix)
