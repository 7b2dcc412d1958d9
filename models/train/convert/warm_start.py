"""A network to begin with instead of a conversion: a checkpoint, or what an INT8 bundle's codes stand for."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from moembed.errors import CheckpointError, InputError
from moembed.models.checkpoint import load_network
from moembed.models.network import NomicMoe
from moembed.models.roles import Kind, Role
from moembed.models.weights import WEIGHTS_FILE, find_weights
from moembed.quantize.dequantize import dequantize
from moembed.quantize.pipeline import GRAPH
from moembed.train.convert.student import PROJECTION
from moembed.train.convert.teacher import Teacher

TABLE = Role(Kind.WORD_EMBEDDINGS).name
_ALIKE = 0.5  # correlation of a coordinate over the pieces, with the teacher's


class Start(NamedTuple):
    """What training begins with: parameters by name, and the pieces that the rows of the table stand for."""

    parameters: dict[str, Tensor]
    pieces: list[str]


def files(folder: Path) -> list[Path]:
    """The files that a start is read from."""
    weights = find_weights(folder)
    paths = (folder / "tokenizer.json", *(weights.paths if weights else ()), folder / GRAPH, folder / f"{GRAPH}_data")
    return [path for path in paths if path.is_file()]


def read(folder: Path) -> Start:
    """Read a checkpoint or an INT8 bundle.

    Raises:
        CheckpointError: the folder holds neither, or one that is damaged.
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
    return Start(parameters, [piece for piece, _ in vocabulary])


def begin(network: NomicMoe, start: Start, teacher: Teacher, kept: Tensor) -> Tensor:
    """Give a network the start's parameters but the projection; rows of pieces that it does not have are the teacher's.

    Args:
        network: with the recipe's sizes, changed in place.
        start: of the same sizes, but for the vocabulary.
        teacher: of the missing rows.
        kept: the teacher's id of every id of the network's vocabulary.

    Returns:
        The order of the coordinates: the teacher's place of each of the start's, `[hidden]` int64.

    Raises:
        InputError: the start is of other sizes, or was not made from this teacher.
    """
    own = {
        name: value for name, value in network.state_dict().items() if name != TABLE and not name.startswith(PROJECTION)
    }
    shapes = {name: value[:0].shape if name == TABLE else value.shape for name, value in start.parameters.items()}
    wanted = {TABLE: (0, network.config.hidden_size)} | {name: value.shape for name, value in own.items()}
    if wrong := [name for name, shape in wanted.items() if shapes.get(name) != shape]:
        raise InputError(
            f"the start is not of the recipe's sizes: {', '.join(wrong[:3])} differ; use the recipe it was made by"
        )
    place = {piece: row for row, piece in enumerate(start.pieces)}
    names = [teacher.pieces[i][0] for i in kept.tolist()]
    old = torch.tensor([place.get(name, -1) for name in names])
    known = old >= 0
    words = teacher.words(kept)
    coordinates = _coordinates(start.parameters[TABLE][old[known]], words[known])
    with torch.no_grad():
        for name, value in own.items():
            value.copy_(start.parameters[name])
        table = network.embeddings.word_embeddings.weight
        table.zero_()
        table[: len(kept)] = words[:, coordinates]
        table[: len(kept)][known] = start.parameters[TABLE][old[known]]
    return coordinates


def _coordinates(rows: Tensor, words: Tensor) -> Tensor:
    """The teacher's coordinate of each of the start's, by how alike they are over the pieces that both have."""
    mine, theirs = ((x - x.mean(0)) / x.std(0).clamp(min=1e-9) for x in (rows.double(), words.double()))
    alike, found = (mine.T @ theirs / max(len(rows), 1)).max(1)
    if len(rows) == 0 or float(alike.min()) < _ALIKE or len(set(found.tolist())) < len(found):
        raise InputError("the start was not made from this teacher: its rows of the table are not like the teacher's")
    return found
