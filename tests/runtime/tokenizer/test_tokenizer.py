"""Token ids: the published vectors, adversarial text, and spans."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moembed.bundle.bundle import sha256_of
from moembed.errors import BundleError, InputError
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.tokenizer.tokenizer import Tokenizer
from support.checkpoints import published_spec
from support.token_ids import PUBLISHED, VECTORS


@pytest.fixture(scope="module")
def tokenizer():
    return Tokenizer(DEFAULT_FOLDER / "tokenizer.json")


def ids(tokenizer, text, prefix=""):
    return next(iter(tokenizer.encode([text], prefix=prefix))).tolist()


@pytest.fixture(scope="module")
def published():
    if not PUBLISHED.exists():
        pytest.skip("the published tokenizer.json is not here; set MOEMBED_PUBLISHED_TOKENIZER to a copy")
    assert sha256_of(PUBLISHED) == published_spec().sha256["tokenizer.json"]
    return Tokenizer(PUBLISHED)


@pytest.mark.parametrize("text", VECTORS)
def test_published_vectors(published, text):
    assert ids(published, text) == VECTORS[text]


@pytest.mark.parametrize("text", [t for t in VECTORS if ": " in t])
def test_a_prompt_in_front_is_the_same_as_in_the_text(published, text):
    prompt, _, rest = text.partition(": ")
    assert ids(published, rest, prefix=prompt + ": ") == VECTORS[text]


def test_special_tokens_written_out_become_special(tokenizer):
    assert ids(tokenizer, "<s>")[1:-1] == [0]
    assert ids(tokenizer, "a </s> b")[2:-2] == [2]
    assert 1 in ids(tokenizer, "x <pad> y")
    added = json.loads((DEFAULT_FOLDER / "tokenizer.json").read_text("utf-8"))["added_tokens"]
    (mask,) = (token["id"] for token in added if token["content"] == "<mask>")
    assert ids(tokenizer, "<mask>")[1:-1] == [mask]


@pytest.mark.parametrize("text", ["", " ", "\n\t  \u3000"])
def test_nothing_to_say(tokenizer, text):
    assert ids(tokenizer, text) == [0, 2]


def test_whitespace_runs_and_edges_do_not_matter(tokenizer):
    assert ids(tokenizer, "  two\t\n words ") == ids(tokenizer, "two words")


def test_nul_bytes_are_text(tokenizer):
    out = ids(tokenizer, "nul\0byte")
    assert (out[0], out[-1]) == (0, 2)
    assert len(out) > 3


@pytest.mark.parametrize("text", ["\ud800", "ok \udfff", "a\ud83d"])
def test_lone_surrogates_are_refused_with_their_place(tokenizer, text):
    with pytest.raises(InputError, match="text 1 has the lone surrogate U\\+D"):
        list(tokenizer.encode(["fine", text]))


@pytest.mark.parametrize("thing", [None, 3, b"bytes", ["list"]])
def test_what_is_not_text_is_refused(tokenizer, thing):
    with pytest.raises(InputError, match=f"text 0 is {type(thing).__name__}"):
        list(tokenizer.encode([thing], prefix=""))
    with pytest.raises(InputError, match="expected str"):
        list(tokenizer.encode([thing], prefix="query: "))


def test_ten_megabytes_of_one_character(tokenizer):
    (out,) = tokenizer.encode(["\U00012000" * 2_500_000])
    assert out.tolist() == ids(tokenizer, "\U00012000"), "unknown characters in a run are one token"


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60))
def test_offsets_lie_in_the_text_and_ids_agree(text):
    tokenizer = _shared()
    found, spans = tokenizer.encode_with_offsets(text, prefix="query: ")
    assert found.tolist() == ids(tokenizer, text, prefix="query: ")[1:-1]
    assert spans.shape == (len(found), 2)
    assert (spans >= 0).all()
    assert (spans <= len("query: " + text)).all()
    assert (np.diff(spans[:, 0]) >= 0).all()


def _shared(cache=[]):  # noqa: B006  (loaded once for all examples)
    if not cache:
        cache.append(Tokenizer(DEFAULT_FOLDER / "tokenizer.json"))
    return cache[0]


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    from tokenizers import Tokenizer as Raw
    from tokenizers.models import WordLevel

    Raw(WordLevel({"a": 0}, unk_token="a")).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(BundleError, match="frames a text with 0"):
        Tokenizer(tmp_path / "tokenizer.json")
