"""Random checkpoints in the published layout: real names, shapes and files, seeded noise as weights.

`PYTHONPATH=tests python -m support.checkpoints FOLDER [--full]` writes one: a small one, or one of the published size
(475 M parameters).
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from moembed.models.checkpoint import expected_tensors
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.roles import EMBEDDINGS, Kind, role
from moembed.models.spec import ModelSpec, known_specs
from moembed.pull.opening import DEFAULT_FOLDER
from support.folders import DATA

PUBLISHED_CONFIG = json.loads((DATA / "published_config.json").read_text())
# Widths that are not multiples of convenient numbers, few weights, and the vocabulary of the built-in model.
SMALL = {
    "n_embd": 48,
    "n_head": 4,
    "n_inner": 80,
    "n_layer": 4,
    "num_experts": 5,
    "vocab_size": 51200,
    "n_positions": 512,
    "torch_dtype": "float32",
}
_DTYPES = {"float32": np.float32, "float16": np.float16}


def published_spec() -> ModelSpec:
    """The known model whose layout the checkpoints here have."""
    return next(spec for spec in known_specs() if spec.name == "nomic-embed-text-v2-moe")


def small_config(**changes: Any) -> dict[str, Any]:
    """The published `config.json` with small sizes, and further changes."""
    return PUBLISHED_CONFIG | SMALL | changes


def write_checkpoint(folder: Path, raw: dict[str, Any], seed: int = 0) -> Path:
    """Write a checkpoint of random weights for a `config.json`."""
    config = NomicMoeConfig.from_dict(raw)
    rng = np.random.default_rng(seed)
    tensors = {name: _noise(rng, name, shape, config) for name, shape in expected_tensors(config).items()}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(raw))
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copyfile(DEFAULT_FOLDER / name, folder / name)
    prompts = {"query": "search_query: ", "passage": "search_document: "}
    st = {"prompts": prompts, "default_prompt_name": None, "similarity_fn_name": "cosine"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(st))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 512, "do_lower_case": False}))
    return folder


def _noise(rng: np.random.Generator, name: str, shape: tuple[int, ...], config: NomicMoeConfig) -> np.ndarray:
    values = rng.standard_normal(shape, dtype=np.float32)
    kind = role(name).kind
    if kind in (Kind.NORM1, Kind.NORM2, Kind.EMBEDDING_NORM):
        values = 1 + 0.1 * values
    elif kind.value.endswith("bias"):
        values *= 0.1  # large enough that a bias that is lost or added twice is detected
    elif kind is Kind.ROUTER:
        values *= np.float32(1.5 / np.sqrt(config.hidden_size))  # numpy 1 and 2 would convert differently
    elif kind not in EMBEDDINGS:
        values /= np.float32(np.sqrt(config.expert_ffn_size if kind is Kind.EXPERTS_W2 else shape[-1]))
    return values.astype(_DTYPES[config.dtype])


def main() -> None:
    """Write a checkpoint from the command line."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--full", action="store_true", help="the published size")
    arguments.add_argument("--seed", type=int, default=0)
    chosen = arguments.parse_args()
    write_checkpoint(chosen.folder, PUBLISHED_CONFIG if chosen.full else small_config(), chosen.seed)


if __name__ == "__main__":
    main()
