"""Initialization from an existing model instead of a conversion: a checkpoint, or a dequantized INT8 bundle."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from moembed.errors import CheckpointError, InputError
from moembed.models.checkpoint import load_network
from moembed.models.nomic_bert_moe.network import NomicMoe
from moembed.models.roles import Kind, Role
from moembed.models.weights import WEIGHTS_FILE, find_weights
from moembed.quantize.dequantize import dequantize
from moembed.quantize.pipeline import GRAPH
from moembed.train.convert.student import PROJECTION_PREFIX
from moembed.train.convert.teacher import Teacher

TABLE = Role(Kind.WORD_EMBEDDINGS).name
_MIN_CORRELATION = 0.5  # of a hidden coordinate with the teacher's, over the common pieces


class InitialModel(NamedTuple):
    """Parameters by name, and the piece of every row of the embedding table."""

    parameters: dict[str, Tensor]
    pieces: list[str]


def model_files(folder: Path) -> list[Path]:
    """Return the files that `read_model` reads."""
    weights = find_weights(folder)
    paths = (folder / "tokenizer.json", *(weights.paths if weights else ()), folder / GRAPH, folder / f"{GRAPH}_data")
    return [path for path in paths if path.is_file()]


def read_model(folder: Path) -> InitialModel:
    """Read a checkpoint or an INT8 bundle.

    Raises:
        CheckpointError: the folder has neither, or it is damaged.
    """
    try:
        vocabulary = json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]["vocab"]
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} has no readable tokenizer.json: {error!r}") from error
    if find_weights(folder) is None:
        if not (folder / GRAPH).is_file():
            raise CheckpointError(
                f"{folder} holds neither {WEIGHTS_FILE} nor {GRAPH}: name a checkpoint or an INT8 bundle"
            )
        parameters = {name: torch.from_numpy(array) for name, array in dequantize(folder).items()}
    else:
        parameters = dict(load_network(folder).state_dict())
    return InitialModel(parameters, [piece for piece, _ in vocabulary])


def init_from(network: NomicMoe, model: InitialModel, teacher: Teacher, kept_ids: Tensor) -> Tensor:
    """Copy all parameters except the projection into a network; rows of pieces that the model lacks come from the teacher.

    Args:
        network: of the recipe's sizes, changed in place.
        model: of the same sizes; the vocabulary may differ.
        teacher: source of the missing rows.
        kept_ids: the teacher's token id of each of the network's.

    Returns:
        The teacher's hidden coordinate for each of the model's, `[hidden]` int64.

    Raises:
        InputError: the model has other sizes, or was not made from this teacher.
    """
    copied = {
        name: value
        for name, value in network.state_dict().items()
        if name != TABLE and not name.startswith(PROJECTION_PREFIX)
    }
    shapes = {name: value[:0].shape if name == TABLE else value.shape for name, value in model.parameters.items()}
    expected = {TABLE: (0, network.config.hidden_size)} | {name: value.shape for name, value in copied.items()}
    if wrong := [name for name, shape in expected.items() if shapes.get(name) != shape]:
        raise InputError(
            f"the initial model does not have the recipe's sizes: {', '.join(wrong[:3])} differ; use the recipe it was made with"
        )
    row_of = {piece: row for row, piece in enumerate(model.pieces)}
    names = [teacher.pieces[i][0] for i in kept_ids.tolist()]
    rows = torch.tensor([row_of.get(name, -1) for name in names])
    known = rows >= 0
    words = teacher.words(kept_ids)
    coordinates = _match_coordinates(model.parameters[TABLE][rows[known]], words[known])
    with torch.no_grad():
        for name, value in copied.items():
            value.copy_(model.parameters[name])
        table = network.embeddings.word_embeddings.weight
        table.zero_()
        table[: len(kept_ids)] = words[:, coordinates]
        table[: len(kept_ids)][known] = model.parameters[TABLE][rows[known]]
    return coordinates


def _match_coordinates(rows: Tensor, words: Tensor) -> Tensor:
    """Match each hidden coordinate of the model with the teacher's most correlated one, over the rows that both have."""
    mine, theirs = ((x - x.mean(0)) / x.std(0).clamp(min=1e-9) for x in (rows.double(), words.double()))
    correlation, matches = (mine.T @ theirs / max(len(rows), 1)).max(1)
    if len(rows) == 0 or float(correlation.min()) < _MIN_CORRELATION or len(set(matches.tolist())) < len(matches):
        raise InputError(
            "the initial model was not made from this teacher: the rows of their embedding tables do not match"
        )
    return matches
