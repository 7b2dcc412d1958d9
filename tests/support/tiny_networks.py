"""Tiny checkpoints of every family, seeded, with published results of independent implementations.

`data/tiny_networks.json` has their configs, seeds and results. They have the names of published files, two layers, 128 tokens in
the vocabulary and 32 positions.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from moembed.models.oracle import Oracle
from moembed.models.oracle_result import OracleResult
from moembed.models.pooling import Pooling
from support.folders import DATA

_FILE = json.loads((DATA / "tiny_networks.json").read_text())
TEXTS: dict[str, list[int]] = _FILE["ids"]
BERT, GTE, NOMIC = ["bert", "xlm_roberta"], ["gte", "new"], ["nomic_dense", "nomic_layer_norm"]
NETWORKS: dict[str, Any] = {name: _FILE["families"][name] for name in [*BERT, *GTE, "nomic_dense"]}
# The same weights with the head of nomic-embed-text-v1.5, of which the vector of one text is published, and its first half.
NETWORKS["nomic_layer_norm"] = NETWORKS["nomic_dense"] | {
    "config": NETWORKS["nomic_dense"]["config"] | {"pooled_layer_norm": True},
    "sentence_embedding": {"A": NETWORKS["nomic_dense"]["layer_norm_then_unit_A"]["64"]},
}
POOLINGS = {"mean": Pooling.MEAN, "cls": Pooling.FIRST}
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tensors_of(name: str) -> dict[str, np.ndarray]:
    """Return the tensors of a network, float32, by the rule in the file."""
    network = NETWORKS[name]
    random = np.random.RandomState(network["seed"])
    return {
        tensor: scaled(random.standard_normal(shape), tensor) for tensor, shape in sorted(network["tensors"].items())
    }


def write_tiny(
    folder: Path,
    name: str,
    *,
    pooling: Pooling | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    **changes: Any,
) -> Path:
    """Write the checkpoint of a network.

    Args:
        folder: the folder.
        name: one of `NETWORKS`.
        pooling: pooling of its sentence-transformers files; None for that of the network.
        tensors: other tensors.
        changes: further fields of `config.json`.
    """
    network = NETWORKS[name]
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors or tensors_of(name), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(network["config"] | changes))
    write_tokenizer(folder / "tokenizer.json")
    write_modules(folder, pooling or POOLINGS[network["pooling"]])
    return folder


def results(folder: Path, *texts: list[int]) -> list[OracleResult]:
    """Return what the oracle of a checkpoint computes for texts given by their ids."""
    oracle = Oracle(folder)
    try:
        return oracle.run_all(texts)
    finally:
        oracle.close()


def write_modules(folder: Path, pooling: Pooling) -> None:
    """Write sentence-transformers' files about the pooling of a checkpoint."""
    kinds = ("Transformer", "Pooling", "Normalize")
    (folder / "modules.json").write_text(
        json.dumps([{"idx": i, "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)])
    )
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({mode.flag: mode is pooling for mode in Pooling}))


def write_tokenizer(path: Path) -> None:
    """Write a WordPiece tokenizer of single characters, which cuts at 16 tokens and pads to 16 as some published ones do."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    letters = [chr(code) for code in range(33, 127) if not chr(code).isupper()][: 128 - len(_SPECIAL) - 26]
    words = [*_SPECIAL, *letters, *(f"##{chr(code)}" for code in range(ord("a"), ord("z") + 1))]
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer.enable_truncation(16)
    tokenizer.enable_padding(length=16)
    tokenizer.save(str(path))


def scaled(values: np.ndarray, name: str) -> np.ndarray:
    """Scale standard normal values to those of a tensor of a published name, in float32; they may be changed."""
    if name.endswith(".bias"):
        values *= 0.1
    elif values.ndim == 1:
        values *= 0.1
        values += 1
    elif "_embeddings." in name:
        values *= 0.5
    else:
        values /= np.sqrt(values.shape[1])
    return values.astype(np.float32, copy=False)
