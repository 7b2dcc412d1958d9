"""`vocabulary.bin`: the tokenizers that get one, its checks, and the safety of damaged content."""

import json
import os
import random
import shutil
import struct

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.errors import BundleError
from moembed.export.double_array import double_array
from moembed.export.vocabulary import vocabulary_of
from moembed.native.loader import native_library
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.tokenizer.native import VOCABULARY_FILE, NativeTokenizer
from moembed.tokenizer.tokenizer import Tokenizer
from support.bundles import edit, relist
from support.unicode_texts import ADVERSARIAL

DEFAULT = DEFAULT_FOLDER / VOCABULARY_FILE
FEW = 1200
PIECES = len(json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))["model"]["vocab"])
SEEDS = int(os.environ.get("MOEMBED_FUZZ_SEEDS", "60"))
needs_native = pytest.mark.skipif(native_library().functions is None, reason="the native library was not compiled")


@pytest.fixture
def copy(bundle, tmp_path):
    """A private copy of the small bundle."""
    return shutil.copytree(bundle.folder, tmp_path / "copy")


@pytest.fixture(scope="module")
def few_pieces():
    """The built-in model's tokenizer.json with its first pieces and <mask>, the last one."""
    read = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    read["model"]["vocab"] = [*read["model"]["vocab"][: FEW - 1], read["model"]["vocab"][-1]]
    read["added_tokens"][4]["id"] = FEW - 1
    return json.dumps(read)


def written(folder, read):
    path = folder / "tokenizer.json"
    path.write_text(json.dumps(read), "utf-8")
    return path


def test_equal_tokenizers_give_equal_bytes():
    assert vocabulary_of(DEFAULT_FOLDER / "tokenizer.json") == DEFAULT.read_bytes()


def test_it_is_small():
    assert DEFAULT.stat().st_size < 1_500_000


def test_export_writes_it_and_the_manifest_lists_it(bundle):
    assert bundle.manifest.files[VOCABULARY_FILE].size == DEFAULT.stat().st_size


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r["model"].update(byte_fallback=True),
        lambda r: r.update(normalizer=None),
        lambda r: r.update(normalizer={"type": "NFKC"}),
        lambda r: r.update(pre_tokenizer=r["pre_tokenizer"]["pretokenizers"][1]),
        lambda r: r["pre_tokenizer"]["pretokenizers"][1].update(prepend_scheme="first"),
        lambda r: r["pre_tokenizer"]["pretokenizers"][1].update(split=False),
        lambda r: r["pre_tokenizer"]["pretokenizers"][1].update(replacement="_"),
        lambda r: r.update(post_processor=None),
        lambda r: r["post_processor"].update(single=r["post_processor"]["single"][:2]),
        lambda r: r["post_processor"]["single"].insert(0, r["post_processor"]["single"][0]),
        lambda r: r["added_tokens"][4].update(rstrip=True),
        lambda r: r["added_tokens"][4].update(single_word=True),
        lambda r: r["added_tokens"][4].update(normalized=True),
        lambda r: r["added_tokens"].append(r["added_tokens"][4] | {"id": FEW, "content": "<more>"}),
        lambda r: r["model"]["vocab"].append(["a\0b", -1.0]),
        lambda r: r["model"]["vocab"].append(["x" * 300, -1.0]),
        lambda r: r["model"]["vocab"].append(r["model"]["vocab"][1000]),
    ],
)
def test_another_tokenizer_family_gets_no_file(few_pieces, tmp_path, change):
    read = json.loads(few_pieces)
    assert vocabulary_of(written(tmp_path, read)) is not None
    change(read)
    assert vocabulary_of(written(tmp_path, read)) is None


def test_another_kind_of_model_gets_no_file(tmp_path):
    from tokenizers import Tokenizer as Raw
    from tokenizers.models import WordLevel

    Raw(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    assert vocabulary_of(tmp_path / "tokenizer.json") is None


def test_the_trie_contains_every_string():
    rng = random.Random(0)
    strings = sorted(
        {bytes(rng.choices(range(1, 256), k=rng.randrange(1, 6))) for _ in range(3000)} | {b"a", b"ab", b"abc"}
    )
    rng.shuffle(strings)
    units = double_array(strings).tolist()

    def find(text):
        node = units[0]
        for depth in range(len(text) + 1):
            if node >> 22 & 1:
                return node & 0x3FFFFF
            if depth == len(text):
                return units[node & 0x3FFFFF] if node >> 23 & 1 else None
            place = (node & 0x3FFFFF) + text[depth]
            node = units[place] if place < len(units) else 0
            if node >> 24 != text[depth]:
                return None
        return None

    for number, string in enumerate(strings):
        assert find(string) == number
    assert double_array([b"alone"]).tolist() == [1 << 22]


@needs_native
@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (0, b"X", "MOEVOCAB"),
        (8, struct.pack("<I", 2), "version"),
        (12, struct.pack("<I", 0), "contradict"),
        (12, struct.pack("<I", PIECES - 1), "contradict"),
        (16, struct.pack("<Q", 5), "size"),
        (56, struct.pack("<i", PIECES), "special token"),
        (60, struct.pack("<i", -1), "special token"),
        (80, struct.pack("<Q", 1 << 63), "section"),
        (88, struct.pack("<Q", (1 << 64) - 1), "section"),
        (80 + 4 * 16, struct.pack("<Q", 8), "section"),
        (88 + 5 * 16, struct.pack("<Q", 3), "normalizer"),
    ],
)
def test_a_wrong_header_is_refused(tmp_path, offset, value, message):
    content = bytearray(DEFAULT.read_bytes())
    content[offset : offset + len(value)] = value
    path = tmp_path / VOCABULARY_FILE
    path.write_bytes(content)
    with pytest.raises(BundleError, match=message):
        NativeTokenizer(native_library().functions, path)


@needs_native
@pytest.mark.parametrize("size", [0, 1, 79, 191, 4096, -1])
def test_a_truncated_file_is_refused(tmp_path, size):
    path = tmp_path / VOCABULARY_FILE
    path.write_bytes(DEFAULT.read_bytes()[:size])
    with pytest.raises(BundleError, match="copy or export the bundle again"):
        NativeTokenizer(native_library().functions, path)


@needs_native
def test_damaged_content_never_crashes(tmp_path):
    """A damaged file that the manifest lists gives an error or ids of the vocabulary, never a crash."""
    content = np.frombuffer(DEFAULT.read_bytes(), np.uint8)
    path = tmp_path / VOCABULARY_FILE
    texts = list(ADVERSARIAL.values())
    opened = 0
    for seed in range(SEEDS):
        rng = np.random.default_rng(seed)
        damaged = content.copy()
        reach = (200, 4096, content.size)[seed % 3]
        places = rng.integers(0 if reach == 200 else 200, reach, size=int(rng.integers(1, 200)) if reach > 200 else 2)
        damaged[places] = rng.integers(0, 256, size=places.size)
        if seed % 5 == 0:
            first = int(rng.integers(200, content.size - 5000))
            damaged[first : first + 5000] = rng.integers(0, 256, size=5000)
        if seed % 7 == 0:
            damaged[1_000_000:] = 255
        path.write_bytes(damaged.tobytes())
        try:
            native = NativeTokenizer(native_library().functions, path)
        except BundleError:
            continue
        opened += 1
        for ids in native.encode(texts):
            assert ((ids >= 0) & (ids < PIECES)).all()
        for text in texts:
            native.encode_with_spans(text)
        native.token_string(int(rng.integers(PIECES)))
    assert opened > SEEDS / 4


@needs_native
def test_a_file_of_another_tokenizer_is_refused(copy):
    read = json.loads((copy / "tokenizer.json").read_text("utf-8"))
    read["model"]["vocab"][9][1] -= 1
    (copy / "tokenizer.json").write_text(json.dumps(read), "utf-8")
    relist(copy, "tokenizer.json")
    with pytest.raises(BundleError, match="made from another tokenizer.json"):
        Embedder.from_pretrained(copy)


def test_a_bundle_with_a_damaged_file_is_refused(copy):
    content = bytearray((copy / VOCABULARY_FILE).read_bytes())
    content[-1] ^= 1
    (copy / VOCABULARY_FILE).write_bytes(content)
    with pytest.raises(BundleError, match=f"{VOCABULARY_FILE}.*altered"):
        Embedder.from_pretrained(copy)


def test_a_bundle_without_the_file_uses_tokenizers(copy):
    edit(copy, lambda raw: raw["files"].pop(VOCABULARY_FILE))
    with pytest.raises(BundleError, match="does not list"):
        Bundle.open(copy)
    unlisted = Bundle.open(copy, exclusive=False)
    assert Tokenizer(unlisted).backend == "tokenizers", (
        "a file that the manifest does not list is not checked, so it is not used"
    )
    (copy / VOCABULARY_FILE).unlink()
    without = Bundle.open(copy)
    assert Tokenizer(without).backend == "tokenizers"
    with pytest.raises(BundleError, match="cannot be used: "):
        Tokenizer(without, backend="native")
