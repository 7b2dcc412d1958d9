"""Checkpoint folder of a student, in the layout of the published model."""

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from moembed.files.paths import replacing_folder
from moembed.models.families import family_of_raw
from moembed.models.nomic_bert_moe.config import NomicMoeConfig
from moembed.models.nomic_bert_moe.network import NomicMoe
from moembed.models.weights import WEIGHTS_FILE
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.train.convert.teacher import Teacher
from moembed.train.recipe import RECIPE_FILE, Recipe

_VOCABULARY_MULTIPLE = 64  # of the rows of the embedding table


def raw_config(recipe: Recipe, teacher: Teacher) -> dict[str, Any]:
    """Return the student's `config.json`: the built-in model's, with the sizes of the recipe and the teacher."""
    raw: dict[str, Any] = json.loads((DEFAULT_FOLDER / "config.json").read_text("utf-8"))
    rows = -(-recipe.student.vocabulary_size // _VOCABULARY_MULTIPLE) * _VOCABULARY_MULTIPLE
    sizes = {
        "_name_or_path": recipe.name,
        "n_embd": teacher.hidden,
        "n_head": teacher.heads,
        "n_layer": len(teacher.layers),
        "n_inner": teacher.ffn,
        "ffn_div": recipe.student.ffn_div,
        "num_experts": recipe.student.num_experts,
        "moe_top_k": recipe.student.top_k,
        "moe_every_n_layers": recipe.student.moe_every,
        "layer_norm_epsilon": teacher.eps,
        "rotary_emb_base": recipe.student.rotary_base,
        "vocab_size": rows,
        "n_positions": teacher.max_tokens,
        "max_trained_positions": teacher.max_tokens,
        "torch_dtype": "float16",
        "projection": True,
    }
    merged = raw | sizes
    return family_of_raw(merged).common_names(merged)


def write_checkpoint(
    folder: Path,
    network: NomicMoe,
    recipe: Recipe,
    teacher: Teacher,
    tokenizer: Mapping[str, Any],
    report: Mapping[str, Any],
) -> str:
    """Write a checkpoint, which replaces an older one; it appears complete or not at all.

    Args:
        folder: folder of the checkpoint.
        network: the student.
        recipe: its recipe.
        teacher: its teacher.
        tokenizer: content of its `tokenizer.json`.
        report: how it was made, written to `recipe.json`.

    Returns:
        The sha256 of the weights.
    """
    mask = len(tokenizer["model"]["vocab"]) - 1
    with replacing_folder(folder) as partial:
        tensors = {name: value.to(torch.float16).contiguous() for name, value in network.state_dict().items()}
        save_file(tensors, partial / WEIGHTS_FILE, metadata={"format": "pt"})
        digest = hashlib.sha256((partial / WEIGHTS_FILE).read_bytes()).hexdigest()
        raw = raw_config(recipe, teacher)
        NomicMoeConfig.from_dict(raw)
        files: dict[str, Any] = {
            "config.json": raw,
            "tokenizer.json": tokenizer,
            "config_sentence_transformers.json": {
                "prompts": dataclasses.asdict(recipe.prompts),
                "default_prompt_name": None,
                "similarity_fn_name": "cosine",
                "matryoshka_dims": recipe.student.dims,
            },
            "sentence_bert_config.json": {"max_seq_length": teacher.max_tokens, "do_lower_case": False},
            RECIPE_FILE: {**report, "sha256": digest},
        }
        for name, content in files.items():
            indent = None if name == "tokenizer.json" else 2  # indentation would almost double the vocabulary
            (partial / name).write_text(json.dumps(content, ensure_ascii=False, indent=indent), "utf-8")
        (partial / "1_Pooling").mkdir()
        pooling = json.loads((DEFAULT_FOLDER / "1_Pooling/config.json").read_text("utf-8"))
        pooling["word_embedding_dimension"] = teacher.hidden
        (partial / "1_Pooling/config.json").write_text(json.dumps(pooling))
        for name in ("modules.json", "tokenizer_config.json", "special_tokens_map.json"):
            shutil.copyfile(DEFAULT_FOLDER / name, partial / name)
        _renumber_mask(partial / "tokenizer_config.json", mask)
    return digest


def _renumber_mask(path: Path, mask: int) -> None:
    """Set the id of `<mask>` in `tokenizer_config.json`, which lists added tokens by id."""
    raw = json.loads(path.read_text("utf-8"))
    listed = raw["added_tokens_decoder"]
    raw["added_tokens_decoder"] = {
        str(mask) if token["content"] == "<mask>" else number: token for number, token in listed.items()
    }
    path.write_text(json.dumps(raw, ensure_ascii=False, indent=2), "utf-8")
