"""The tokenizer's files beside a checkpoint: `tokenizer.json`, and others whose fields may overrule it in other libraries."""

import json
import re
from pathlib import Path
from typing import Any

from moembed.errors import CheckpointError, shown
from moembed.models.sentence_transformers import read_json

# Field of tokenizer_config.json -> its name in a BertNormalizer, and what transformers' BertTokenizer takes where it is not
# stated. The class makes a normalizer of its own of them, whatever tokenizer.json says.
_OVERRULING: dict[str, tuple[str, bool | None]] = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}
# The library `tokenizers` writes both as null or as an object; a vocabulary has numbers behind its words.
_CUTS_OR_PADS = re.compile(r'"(?:truncation|padding)"\s*:\s*\{')
# Type of the model in tokenizer.json -> transformers' class for it.
_CLASSES = {"Unigram": "XLMRobertaTokenizer", "WordPiece": "BertTokenizer"}
# Classes that take everything from tokenizer.json.
_PLAIN_CLASSES = frozenset({"PreTrainedTokenizerFast", "TokenizersBackend"})


def without_limits(text: str) -> str:
    """Return a `tokenizer.json` that neither cuts texts nor pads them: moembed does both, by the model's limit and the batch."""
    if not _CUTS_OR_PADS.search(text):
        return text
    return json.dumps(json.loads(text) | {"truncation": None, "padding": None}, ensure_ascii=False)


def tokenizer_class(folder: Path) -> str:
    """Return the name of transformers' class for the `tokenizer.json` of a folder."""
    return _CLASSES.get(_kind(_read(folder)), "PreTrainedTokenizerFast")


def with_tokenizer_class(config: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return a `tokenizer_config.json` that names a class which gives the ids of `tokenizer.json`.

    Where none is named, transformers takes that of the network's `model_type`: multilingual-e5-small is a BERT with the tokenizer
    of XLM-RoBERTa.

    Args:
        config: the fields of the file.
        folder: the folder of `tokenizer.json`.
    """
    own = _CLASSES.get(_kind(_read(folder)))
    named = str(config.get("tokenizer_class")).removesuffix("Fast")
    if own is None or named == own or config.get("tokenizer_class") in _PLAIN_CLASSES:
        return config
    return config | {"tokenizer_class": own}


def check_normalizer(folder: Path) -> None:
    """Make sure that all files agree on how texts are normalized: other libraries would give other ids, and so other vectors.

    Raises:
        CheckpointError: `tokenizer_config.json` or `sentence_bert_config.json` contradicts `tokenizer.json`.
    """
    tokenizer, config = _read(folder), read_json(folder / "tokenizer_config.json")
    normalizer: Any = tokenizer.get("normalizer")
    own = isinstance(normalizer, dict) and normalizer.get("type") == "BertNormalizer"
    # transformers takes the class for a model_type of BERT too, and it is the one that a bundle names.
    decides = _kind(tokenizer) == "WordPiece" and config.get("tokenizer_class") not in _PLAIN_CLASSES
    if decides and not own:
        raise CheckpointError(
            f"{folder}: the normalizer of tokenizer.json is {shown(normalizer)}, but transformers' BertTokenizer, the class of "
            "tokenizer_config.json, has one of its own, and vectors depend on it: if tokenizer.json is right, state "
            '"tokenizer_class": "PreTrainedTokenizerFast"'
        )
    for field, (name, default) in _OVERRULING.items():
        value = config.get(field, default)
        if (decides or (own and field in config)) and value != normalizer.get(name):
            stated = f"has {field} = {shown(value)}"
            if field not in config:
                stated = f"has no {field}, which transformers' BertTokenizer takes for {shown(value)}"
            raise CheckpointError(
                f"{folder}: tokenizer_config.json {stated}, but the normalizer of tokenizer.json has "
                f"{name} = {shown(normalizer.get(name))}, and vectors depend on it: correct the wrong one"
            )
    if read_json(folder / "sentence_bert_config.json").get("do_lower_case") and not _lowercases(normalizer):
        raise CheckpointError(
            f"{folder}: sentence_bert_config.json has do_lower_case = true, but the normalizer of tokenizer.json does not change "
            "capitals, and vectors depend on it: correct the wrong one"
        )


def _lowercases(normalizer: Any) -> bool:
    """Return True for a normalizer of `tokenizer.json` that makes letters small."""
    if not isinstance(normalizer, dict):
        return False
    kind = normalizer.get("type")
    if kind == "Sequence":
        return any(map(_lowercases, normalizer.get("normalizers") or []))
    return kind == "Lowercase" or (kind == "BertNormalizer" and normalizer.get("lowercase") is True)


def _kind(tokenizer: dict[str, Any]) -> str:
    """Return the type of the model of a `tokenizer.json`."""
    model = tokenizer.get("model")
    return str(model.get("type")) if isinstance(model, dict) else ""


def _read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = read_json(folder / "tokenizer.json")
    return found
