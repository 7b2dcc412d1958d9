"""A network to begin with instead of a conversion: a checkpoint, or what an INT8 bundle's codes stand for."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from moembed.bundle.external_data import read_graph
from moembed.errors import CheckpointError, InputError
from moembed.models.checkpoint import load_network
from moembed.models.config import NomicMoeConfig
from moembed.models.network import NomicMoe
from moembed.models.weights import WEIGHTS_FILE, find_weights
from moembed.quantize.functions import EMBEDDINGS
from moembed.quantize.layout import dequantize_blocks, unpack
from moembed.quantize.pipeline import GRAPH
from moembed.train.convert.student import PROJECTION
from moembed.train.convert.teacher import Teacher

TABLE = "embeddings.word_embeddings.weight"
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
    parameters = _decoded(folder) if find_weights(folder) is None else dict(load_network(folder).state_dict())
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


def _decoded(folder: Path) -> dict[str, Tensor]:
    """The parameters of an INT8 bundle, in float32."""
    import numpy as np
    import onnx
    from onnx.numpy_helper import to_array

    config = NomicMoeConfig.from_file(folder / "config.json")
    path = folder / GRAPH
    try:
        content, data = read_graph(path)
        model = onnx.ModelProto.FromString(content)
        onnx.load_external_data_for_model(model, str(data))
        graph = model.graph
        stored = {tensor.name: to_array(tensor) for tensor in graph.initializer}
        (embedding,) = (node for node in graph.node if node.op_type in EMBEDDINGS.values())
    except Exception as error:  # onnx raises what it pleases
        raise CheckpointError(f"{folder} holds neither {WEIGHTS_FILE} nor a readable {path.name}: {error}") from error

    def matrix(name: str, scale: "np.ndarray[tuple[int], np.dtype[np.float32]]", norm: str | None) -> Tensor:
        decoded = unpack(stored[f"{name}.int8"]).astype(np.float32) * scale[:, None]
        return torch.from_numpy(decoded * stored[f"{norm}.smooth"] if norm else decoded)

    found = {}
    with torch.device("meta"):
        expected = NomicMoe(config).state_dict()
    for name in expected:
        if name in stored:
            found[name] = torch.from_numpy(stored[name].astype(np.float32))
        elif name == TABLE:
            packed, scale = (stored[given] for given in embedding.input[1:3])
            eight = embedding.op_type == EMBEDDINGS[8]
            found[name] = torch.from_numpy(packed * scale[:, None] if eight else dequantize_blocks(packed, scale))
        elif name.endswith((".w1", ".w2")):
            norm = f"{name.split('.mlp.')[0]}.norm1" if name.endswith(".w1") else None
            scales = stored[f"{name}.scale"]
            own = [matrix(f"{name}.{expert}", scale, norm) for expert, scale in enumerate(scales)]
            found[name] = torch.cat(own if norm else [part.T for part in own])
        elif name.endswith((".out_proj.weight", ".fc2.weight")):
            found[name] = matrix(name, stored[f"{name}.scale"], None)
        elif name.endswith(".fc1.weight"):
            found[name] = matrix(name, stored[f"{name}.scale"], name.replace("mlp.fc1.weight", "norm1"))
        elif name.endswith((".Wqkv.weight", f"{PROJECTION}weight")):
            number = config.num_layers if name.startswith(PROJECTION) else int(name.split(".")[2])
            norm = f"encoder.layers.{number - 1}.norm2" if number else "emb_ln"
            found[name] = matrix(name, stored[f"{name}.scale"], norm)
        else:
            found[name] = torch.from_numpy(stored[embedding.input[3]].astype(np.float32)[None])
    return found
