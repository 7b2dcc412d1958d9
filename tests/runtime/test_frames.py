"""What the model reads of a text that is cut: every piece has the special tokens around it, for Unigram and WordPiece (M22)."""

import json

import numpy as np
import pytest

from moembed import Chunk, Embedder
from moembed.bundle.bundle import Bundle
from moembed.convert.conversion import convert
from moembed.errors import TextTooLongError, TruncationWarning
from moembed.models.locate import locate
from support.tiny_networks import write_tiny

TEXT = "the quick brown fox jumps over the lazy dog and runs away"
POLICIES = {
    "truncate": "truncate",
    "truncate_start": "truncate_start",
    "mean": Chunk(overlap=4, pooled=True),
    "chunk": Chunk(overlap=4),
}


@pytest.fixture(scope="module", params=[32, 3], ids=["limit 32", "limit 3"])
def wordpiece(request, tmp_path_factory):
    """A BERT network whose tokenizer has a token for each character."""
    checkpoint = write_tiny(tmp_path_factory.mktemp("frames") / "c", "bert")
    (checkpoint / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": request.param}))
    bundle = convert(locate(checkpoint), tmp_path_factory.mktemp("frames") / "b")
    return Embedder(Bundle.open(bundle.folder), spin=False)


@pytest.fixture
def read(wordpiece, monkeypatch):
    """The ids of every text that the session gets."""
    found, run = [], type(wordpiece.session).run

    def spied(self, output, ids, mask):
        found.extend(row[kept.astype(bool)].tolist() for row, kept in zip(ids, mask, strict=True))
        return run(self, output, ids, mask)

    monkeypatch.setattr(type(wordpiece.session), "run", spied)
    return found


def _whole(embedder, text):
    (ids,) = embedder.tokenizer.encode([text])
    return ids.tolist()


@pytest.mark.filterwarnings(f"ignore::{TruncationWarning.__module__}.{TruncationWarning.__name__}")
@pytest.mark.parametrize("policy", POLICIES)
def test_every_piece_keeps_its_frame(wordpiece, read, policy):
    first, *inner, last = _whole(wordpiece, TEXT)
    if policy in ("mean", "chunk") and wordpiece.max_tokens == 3:
        pytest.skip("windows of one token cannot overlap")
    results = list(wordpiece.embed([TEXT], overlong=POLICIES[policy]))
    assert read
    room = wordpiece.max_tokens - 2
    for piece in read:
        assert (piece[0], piece[-1]) == (first, last)
        assert first not in piece[1:]
        assert last not in piece[:-1]
        assert 1 <= len(piece) - 2 <= room
    pieces = [piece[1:-1] for piece in sorted(read, key=lambda piece: _place(inner, piece[1:-1]))]
    if policy == "truncate":
        assert pieces == [inner[:room]]
    elif policy == "truncate_start":
        assert pieces == [inner[-room:]]
    else:
        covered = 0
        for piece in pieces:
            at = _place(inner, piece)
            assert at <= covered, "nothing between two windows is left out"
            covered = at + len(piece)
        assert covered == len(inner)
    assert len(results) == (len(read) if policy == "chunk" else 1), "windows never count as texts unless asked for"


def _place(inner, piece):
    """Return where a piece begins."""
    return next(at for at in range(len(inner)) if inner[at : at + len(piece)] == piece)


def test_nothing_is_cut_unasked(wordpiece, read):
    with pytest.raises(TextTooLongError, match=f"{wordpiece.max_tokens}"):
        wordpiece.encode(TEXT)
    assert not read


def test_a_text_that_just_fits_is_whole(wordpiece, read):
    text = "a" * (wordpiece.max_tokens - 2)
    vector = wordpiece.encode(text)
    assert read == [_whole(wordpiece, text)]
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
