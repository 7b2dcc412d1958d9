"""The tokenizer's files beside a checkpoint: `tokenizer.json`, and others whose fields may overrule it in other libraries."""

import json
import re
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError, shown
from moembed.models.sentence_transformers import read_json

# Fields of tokenizer_config.json that transformers puts into the normalizer of tokenizer.json, whatever that says.
_OVERRULING = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# The library `tokenizers` writes both as null or as an object; a vocabulary has numbers behind its words.
_CUTS_OR_PADS = re.compile(r'"(?:truncation|padding)"\s*:\s*\{')
_CLASSES = {"Unigram": "XLMRobertaTokenizer", "WordPiece": "BertTokenizer"}


def without_limits(text: str) -> str:
    """Return a `tokenizer.json` that neither cuts texts nor pads them: moembed does both, by the model's limit and the batch."""
    if not _CUTS_OR_PADS.search(text):
        return text
    return json.dumps(json.loads(text) | {"truncation": None, "padding": None}, ensure_ascii=False)


def tokenizer_class(folder: Path) -> str:
    """Return the name of transformers' class for the `tokenizer.json` of a folder."""
    model = _read(folder).get("model")
    kind = model.get("type") if isinstance(model, dict) else None
    return _CLASSES.get(str(kind), "PreTrainedTokenizerFast")


def check_normalizer(folder: Path) -> None:
    """Make sure that all files agree on how texts are normalized: other libraries would give other ids, and so other vectors.

    Raises:
        CheckpointError: `tokenizer_config.json` or `sentence_bert_config.json` contradicts `tokenizer.json`.
    """
    normalizer = _read(folder).get("normalizer")
    if not isinstance(normalizer, dict) or normalizer.get("type") != "BertNormalizer":
        return
    config = read_json(folder / "tokenizer_config.json")
    for field, name in _OVERRULING.items():
        if field in config and config[field] != normalizer.get(name):
            raise CheckpointError(
                f"{folder}: tokenizer_config.json has {field} = {shown(config[field])}, but the normalizer of tokenizer.json has "
                f"{name} = {shown(normalizer.get(name))}, and vectors depend on it: correct the wrong one"
            )
    if read_json(folder / "sentence_bert_config.json").get("do_lower_case") and not normalizer.get("lowercase"):
        raise CheckpointError(
            f"{folder}: sentence_bert_config.json has do_lower_case = true, but the normalizer of tokenizer.json has "
            "lowercase = false, and vectors depend on it: correct the wrong one"
        )


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "tokenizer.json")
    return found
