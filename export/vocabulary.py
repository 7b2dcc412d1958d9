"""`vocabulary.bin`: the tokenizer of a bundle in a form that opens by memory-mapping, beside `tokenizer.json`.

A published `tokenizer.json` of 250,000 pieces takes over a second and 300 MB to parse; this file takes neither. It holds
what the native tokenizer needs of a tokenizer of one family, SentencePiece Unigram as XLM-R has it; for any other nothing
is written and `tokenizers` reads the JSON. Equal tokenizers give equal bytes.

Layout, version 1, little-endian. Sections begin at multiples of 64; a reader refuses a file whose header contradicts its
size, and reads past no section's end whatever the sections hold.

| bytes | type | meaning |
|---|---|---|
| 0 | 8 bytes | `MOEVOCAB` |
| 8 | u32, u32 | version 1; number of pieces, n |
| 16 | u64 | size of the file |
| 24 | 32 bytes | sha256 of the `tokenizer.json` it was made from |
| 56 | 4 x i32 | ids of `<s>`, `</s>`, padding and the unknown piece |
| 72 | f64 | score of an unknown character |
| 80 | 7 x (u64, u64) | offset and size of each section |

| section | type | meaning |
|---|---|---|
| scores | f64 `[n]` | of each piece, to the last bit as `tokenizers` reads it |
| starts | u32 `[ceil(n / 16)]` | where the text of every 16th piece begins in `texts` |
| lengths | u8 `[n]` | bytes of each piece |
| texts | UTF-8 | the pieces, in the order of their ids |
| trie | u32 `[m]` | the pieces as a double array |
| charsmap | bytes | the normalizer's `precompiled_charsmap` as it is |
| added | (i32, u32) `[k]` | id of each added token, and 1 if it takes white space before it |

A unit of the trie, whose root is unit 0: bits 24-31 the label, the byte that leads to it; bit 23, a piece ends here; bit 22,
only one piece goes on from here; bits 0-21 the payload. With bit 22 that is the piece's id and its remaining bytes are
compared with its text; otherwise the child for byte b is unit payload + b, if that has label b, and the unit at the payload
itself holds, if bit 23 is set, the id of the piece that ends.
"""

import base64
import json
import struct
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np

from moembed.export.double_array import double_array
from moembed.tokenizer.native import VOCABULARY_FILE

_MAGIC = b"MOEVOCAB"
_VERSION = 1
_ALIGNMENT = 64
_PIECES_PER_START = 16
_MAX_PIECES = 1 << 20
_MAX_PIECE_BYTES = 255
_UNKNOWN_PENALTY = 10.0  # `tokenizers` subtracts it from the lowest score for a character that no piece covers
_HEADER = struct.Struct("<8sIIQ32s4id14Q")

_METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
_PRE_TOKENIZER = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, _METASPACE]}


def write_vocabulary(folder: Path) -> bool:
    """Write `vocabulary.bin` beside the `tokenizer.json` of a folder.

    Args:
        folder: folder of a bundle that is being written.

    Returns:
        True if the tokenizer is of the family; if not, nothing is written.
    """
    path = folder / "tokenizer.json"
    content = vocabulary_of(path)
    if content is not None:
        (folder / VOCABULARY_FILE).write_bytes(content)
    return content is not None


def vocabulary_of(path: Path) -> bytes | None:
    """Return the content of `vocabulary.bin` for a `tokenizer.json`, or None if the tokenizer is not of the family."""
    from tokenizers import Tokenizer

    # As `tokenizers` reads the file: with defaults filled in, and scores as its parser rounds them.
    read = json.loads(Tokenizer.from_str(path.read_text("utf-8")).to_str())
    if not _is_of_family(read):
        return None
    pieces = [piece.encode() for piece, _ in read["model"]["vocab"]]
    scores = np.array([score for _, score in read["model"]["vocab"]], "<f8")
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    starts = np.concatenate([[0], np.cumsum(lengths)[:-1]])
    ids = {piece: number for number, piece in enumerate(pieces)}
    bos, eos = (read["post_processor"]["special_tokens"][name]["ids"][0] for name in _frame(read))
    added = [(token["id"], int(token["lstrip"])) for token in read["added_tokens"]]
    sections = [
        scores.tobytes(),
        starts[::_PIECES_PER_START].astype("<u4").tobytes(),
        lengths.astype("u1").tobytes(),
        b"".join(pieces),
        double_array(pieces).astype("<u4").tobytes(),
        base64.b64decode(read["normalizer"]["precompiled_charsmap"]),
        b"".join(struct.pack("<iI", *token) for token in added),
    ]
    special = (bos, eos, ids.get(b"<pad>", 0), read["model"]["unk_id"])
    return _file(sections, len(pieces), path.read_bytes(), special, scores.min() - _UNKNOWN_PENALTY)


def _file(sections: list[bytes], pieces: int, source: bytes, special: Iterable[int], unknown: float) -> bytes:
    places, body = [], bytearray()
    start = -(-_HEADER.size // _ALIGNMENT) * _ALIGNMENT
    for section in sections:
        body += bytes(-len(body) % _ALIGNMENT)
        places += [start + len(body), len(section)]
        body += section
    size = start + len(body)
    header = _HEADER.pack(_MAGIC, _VERSION, pieces, size, sha256(source).digest(), *special, unknown, *places)
    return header.ljust(start, b"\0") + body


def _frame(read: dict[str, Any]) -> list[str]:
    """Return the two special tokens around a text, or an empty list if the template has another form."""
    processor = read["post_processor"] or {}
    template = processor.get("single", []) if processor.get("type") == "TemplateProcessing" else []
    if [list(part) for part in template] != [["SpecialToken"], ["Sequence"], ["SpecialToken"]]:
        return []
    return [template[0]["SpecialToken"]["id"], template[2]["SpecialToken"]["id"]]


def _is_of_family(read: dict[str, Any]) -> bool:
    model, normalizer = read["model"], read["normalizer"] or {}
    if model["type"] != "Unigram" or model["byte_fallback"] or model["unk_id"] is None:
        return False
    pieces = [piece.encode() for piece, _ in model["vocab"]]
    frame = _frame(read)
    return (
        normalizer.get("type") == "Precompiled"
        and bool(normalizer["precompiled_charsmap"])
        and read["pre_tokenizer"] == _PRE_TOKENIZER
        and len(frame) == 2
        and all(len(read["post_processor"]["special_tokens"][name]["ids"]) == 1 for name in frame)
        and len(set(pieces)) == len(pieces) < _MAX_PIECES
        and all(0 < len(piece) <= _MAX_PIECE_BYTES and b"\0" not in piece for piece in pieces)
        and all(_is_plain(token, model["vocab"]) for token in read["added_tokens"])
        and bool(np.isfinite([score for _, score in model["vocab"]]).all())
    )


def _is_plain(token: dict[str, Any], vocab: list[tuple[str, float]]) -> bool:
    """Return True if an added token is a piece with the same id, matches unnormalized text, and strips no space after it."""
    if token["id"] >= len(vocab) or vocab[token["id"]][0] != token["content"]:
        return False
    return not (token["single_word"] or token["rstrip"] or token["normalized"])
