"""Largest number of tokens of a text: stated in up to three files beside a checkpoint, which may disagree."""

from pathlib import Path
from typing import Any, NamedTuple

from moembed.errors import CheckpointError, shown
from moembed.models.sentence_transformers import read_json

_LEAST = 3  # two special tokens and one of the text
_NO_LIMIT = 10**9  # transformers writes 1e30 where a tokenizer has none


class Limit(NamedTuple):
    """Largest number of tokens of a text, special tokens included, and what states it."""

    tokens: int
    source: str


def token_limit(folder: Path, most: int, known: int | None = None) -> Limit:
    """Return the first limit that is stated, at most what the network is right for.

    `max_seq_length` in `sentence_bert_config.json` comes first, then `known`, then `model_max_length` in `tokenizer_config.json`.
    Limits in `tokenizer.json` do not count: sentence-transformers replaces them.

    Args:
        folder: the checkpoint.
        most: largest number of tokens that the network is right for.
        known: limit of a known model.

    Raises:
        CheckpointError: a limit is no integer, or leaves no room for a text.
    """
    name = "max_seq_length in sentence_bert_config.json"
    limit = _stated(folder, "sentence_bert_config.json", "max_seq_length")
    if limit is None and known is not None:
        name, limit = "the limit of the known model", known
    if limit is None:
        name, limit = (
            "model_max_length in tokenizer_config.json",
            _stated(folder, "tokenizer_config.json", "model_max_length"),
        )
    if limit is None or limit > most:
        return Limit(most, "the positions of config.json")
    if limit < _LEAST:
        raise CheckpointError(f"{folder}: {name} is {limit}; expected at least {_LEAST}: correct it")
    return Limit(limit, name)


def _stated(folder: Path, file: str, field: str) -> int | None:
    """Return the limit in a file, or None if it has none."""
    found: Any = read_json(folder / file).get(field)
    if found is None:
        return None
    if isinstance(found, bool) or not isinstance(found, int | float) or (found < _NO_LIMIT and found != int(found)):
        raise CheckpointError(f"{folder / file}: {field} = {shown(found)}; expected a number of tokens: correct it")
    return None if found >= _NO_LIMIT else int(found)
