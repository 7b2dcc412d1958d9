"""Tokenizers that load and then fail: a `BundleError`, also if the Rust code of `tokenizers` panics."""

import json
import random
import threading

import pytest
import tokenizers

from moembed import Embedder
from moembed.errors import BundleError
from moembed.export.vocabulary import VOCABULARY_FILE
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.tokenizer.reference import ReferenceTokenizer

TEXTS = ["hello ☃ zz \u0301", "x" * 100, ""]
PANICS = {
    "a charsmap cut short": lambda raw: raw["normalizer"]["normalizers"][0].update(precompiled_charsmap="AAAA"),
    "an empty charsmap": lambda raw: raw["normalizer"]["normalizers"][0].update(precompiled_charsmap=""),
    "a template without its tokens": lambda raw: raw["post_processor"].update(special_tokens={}),
    "pieces of no length": lambda raw: raw.update(pre_tokenizer={"type": "FixedLength", "length": 0}),
}
FAILURES = {
    "no unknown piece": lambda raw: raw["model"].update(unk_id=None),
    "an unknown piece beyond the vocabulary": lambda raw: raw["model"].update(unk_id=10**6),
    "an empty vocabulary": lambda raw: raw["model"].update(vocab=[]),
    "a score of NaN": lambda raw: raw["model"]["vocab"].__setitem__(5, ["a", float("nan")]),
    "an open parenthesis": lambda raw: raw.update(
        pre_tokenizer={"type": "Split", "pattern": {"Regex": "("}, "behavior": "Removed", "invert": False}
    ),
    "no special tokens": lambda raw: raw.update(post_processor=None),
    "words without an unknown piece": lambda raw: raw.update(
        model={
            "type": "WordPiece",
            "unk_token": "-",
            "continuing_subword_prefix": "#",
            "max_input_chars_per_word": 9,
            "vocab": {"a": 0},
        }
    ),
    "nested": lambda raw: raw.update(normalizer=json.loads("[" * 300 + "]" * 300)),
}


@pytest.fixture(scope="module")
def text():
    raw = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))
    raw["model"]["vocab"] = raw["model"]["vocab"][:400]
    raw["added_tokens"] = [token for token in raw["added_tokens"] if token["id"] < 400]
    if "normalizers" not in raw["normalizer"]:
        raw["normalizer"] = {"type": "Sequence", "normalizers": [raw["normalizer"]]}
    return json.dumps(raw)


def written(text, change, path):
    raw = json.loads(text)
    change(raw)
    path.write_text(json.dumps(raw), "utf-8")
    return path


def used(path):
    tokenizer = ReferenceTokenizer(path)
    tokenizer.encode(TEXTS)
    for one in TEXTS:
        tokenizer.encode_with_spans(one)
    return tokenizer


def test_the_small_tokenizer_is_usable(text, tmp_path):
    assert used(written(text, lambda raw: None, tmp_path / "tokenizer.json")).size == 400


@pytest.mark.parametrize("case", PANICS | FAILURES)
def test_a_tokenizer_that_fails(case, text, tmp_path):
    path = written(text, (PANICS | FAILURES)[case], tmp_path / "tokenizer.json")
    with pytest.raises(BundleError) as caught:
        used(path)
    assert str(path) in str(caught.value)
    if case in PANICS and tokenizers.__version__ >= "0.22":  # older releases refuse some of these themselves
        assert type(caught.value.__cause__).__name__ == "PanicException", "the panic is what was tried"
        assert not isinstance(caught.value.__cause__, Exception)


def test_a_panic_in_a_bundle_and_in_another_thread(copy, text, tmp_path):
    manifest = json.loads((copy / "moembed.json").read_text("utf-8"))
    from moembed.bundle.bundle import sha256_of

    written(text, PANICS["a template without its tokens"], copy / "tokenizer.json")
    del manifest["files"][VOCABULARY_FILE]
    (copy / VOCABULARY_FILE).unlink()
    size, digest = (copy / "tokenizer.json").stat().st_size, sha256_of(copy / "tokenizer.json")
    manifest["files"]["tokenizer.json"] = {"size": size, "sha256": digest}
    (copy / "moembed.json").write_text(json.dumps(manifest), "utf-8")
    raised = []

    def work():
        try:
            Embedder.from_pretrained(copy)
        except Exception as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert [type(error) for error in raised] == [BundleError]


def test_interrupts_pass(text, tmp_path, monkeypatch):
    tokenizer = used(written(text, lambda raw: None, tmp_path / "tokenizer.json"))

    class Interrupted:
        def encode_batch_fast(self, texts):
            raise KeyboardInterrupt

    tokenizer._tokenizer = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        tokenizer.encode(["x"])


@pytest.mark.long
def test_random_edits(text, tmp_path, count):
    """Replacing any value gives a tokenizer that works, or a `BundleError`."""
    rng, path, outcomes = random.Random(0), tmp_path / "tokenizer.json", {"works": 0, "refused": 0, "panicked": 0}
    values = [None, True, 0, -1, 1.5, 4294967295, 10**30, "", "\0", "▁", [], {}, [[]], {"type": "Sequence"}]
    for _ in range(count):
        raw = json.loads(text)
        places = list(_places(raw))
        holder, key = rng.choice(places)
        if rng.random() < 0.2:
            del holder[key]
        else:
            holder[key] = rng.choice(values)
        path.write_text(json.dumps(raw), "utf-8")
        try:
            used(path)
            outcomes["works"] += 1
        except BundleError as error:
            outcomes["panicked" if type(error.__cause__).__name__ == "PanicException" else "refused"] += 1
    print(outcomes)
    assert sum(outcomes.values()) == count


def _places(value):
    """Every place of a JSON value; of long lists the first three."""
    items = value.items() if isinstance(value, dict) else enumerate(value[:3])
    for key, item in list(items):
        yield value, key
        if isinstance(item, dict | list):
            yield from _places(item)
