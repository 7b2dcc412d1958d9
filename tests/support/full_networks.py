"""Checkpoints of the published sizes of the families beside the MoE's, with random weights."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from moembed.models.checkpoint import expected_tensors
from moembed.models.families import read_config
from moembed.models.pooling import Pooling
from support.tiny_networks import NETWORKS, POOLINGS, scaled, write_modules, write_tokenizer

_XLM_R = {"vocab_size": 250_002, "max_position_embeddings": 514}
_BASE = {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072}
_SMALL = {"hidden_size": 384, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 1536}
_NOMIC = {
    "vocab_size": 30_528,
    "n_positions": 8192,
    "max_trained_positions": 2048,
    "n_embd": 768,
    "n_layer": 12,
    "n_head": 12,
}
_LARGE = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
# Name of a known model -> the tiny network of its layout, and the fields of config.json that are its sizes.
SIZES: dict[str, tuple[str, dict[str, Any]]] = {
    "multilingual-e5-small": ("bert", _SMALL | {"vocab_size": 250_037, "max_position_embeddings": 512}),
    "multilingual-e5-base": ("xlm_roberta", _BASE | _XLM_R),
    "multilingual-e5-large": ("xlm_roberta", _LARGE | _XLM_R),
    "gte-multilingual-base": ("new", _BASE | {"vocab_size": 250_048, "max_position_embeddings": 8192}),
    "snowflake-arctic-embed-m-v2.0": ("gte", _BASE | {"vocab_size": 250_048, "max_position_embeddings": 8192}),
    "nomic-embed-text-v1.5": (
        "nomic_dense",
        _NOMIC | {"n_inner": 3072, "type_vocab_size": 2, "pooled_layer_norm": True},
    ),
    "snowflake-arctic-embed-l-v2.0": ("xlm_roberta", _LARGE | {"vocab_size": 250_002, "max_position_embeddings": 8194}),
}


# Models whose layout is that of a tiny network with another pooling.
_POOLINGS = {"snowflake-arctic-embed-l-v2.0": Pooling.FIRST}


def write_full(folder: Path, name: str, **changes: Any) -> Path:
    """Write the checkpoint of a known model with random weights in float32, and a tokenizer of single characters.

    Args:
        folder: the folder, which must not exist.
        name: one of `SIZES`.
        changes: other values of fields of `config.json`.
    """
    layout, sizes = SIZES[name]
    network = NETWORKS[layout]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(network["config"] | sizes | changes))
    write_tokenizer(folder / "tokenizer.json")
    write_modules(folder, _POOLINGS.get(name, POOLINGS[network["pooling"]]))
    rng = np.random.default_rng(0)
    shapes = expected_tensors(read_config(folder))
    tensors = {tensor: scaled(rng.standard_normal(shape, np.float32), tensor) for tensor, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
