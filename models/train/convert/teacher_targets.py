"""What the teacher says of texts in its own vocabulary, kept on disk in terms that the student's vocabulary can meet.

The two cut a text differently. Between two places where both cut, the mean of the tokens' states is comparable: such a stretch is
called a unit, and is one token on either side where they agree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Encoding, Tokenizer
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.files.paths import replacing_file
from moembed.train.convert.teacher import Teacher
from moembed.train.precision import reduced

_TEXTS = 16384  # in a file: of so many, many are of one length
_TOKENS = 4096  # in a batch


@dataclass(frozen=True)
class Targets:
    """A text for the student, and what it should give.

    Attributes:
        ids: the student's, `[length]` int64.
        unit: of every id, counted from zero, `[length]` int64.
        states: mean of the teacher's last hidden states in every unit, `[units, hidden]` float16.
        vector: the teacher's embedding, `[hidden]` float32 of unit length.
    """

    ids: Tensor
    unit: Tensor
    states: Tensor
    vector: Tensor

    def permuted(self, coordinates: Tensor) -> "Targets":
        """The same with coordinates in another order."""
        return replace(self, states=self.states[:, coordinates], vector=self.vector[coordinates])


def units(student: Encoding, teacher: Encoding) -> tuple[list[int], list[int]]:
    """The unit of every token on either side.

    Special tokens and tokens of no characters belong to the unit that is open when they come; the last token on either side,
    which closes the text, to the last unit.
    """
    ends = [[end for _, end in encoding.offsets[1:-1]] for encoding in (student, teacher)]
    shared = sorted(set(ends[0]) & set(ends[1]) - {0})
    # Unit 0 is the first special token; then a unit up to each shared end; then the last special token, and what is cut off.
    sides = []
    for own in ends:
        places = np.searchsorted(np.array(shared), np.array(own), side="left") + 1
        sides.append([0, *places.tolist(), len(shared) + 1])
    return sides[0], sides[1]


def make(
    texts: Sequence[str],
    student: Tokenizer,
    teacher: Teacher,
    whole: Tokenizer,
    folder: Path,
    advance: Callable[[int], object],
) -> list[Targets]:
    """Compute the targets of texts, or read those that are there.

    Args:
        texts: prompts included.
        student: the student's tokenizer, which cuts texts.
        teacher: it speaks.
        whole: its tokenizer.
        folder: where files of targets are kept, made if missing.
        advance: told of every text done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    made: list[Targets] = []
    for start in range(0, len(texts), _TEXTS):
        path = folder / f"{start:08}.safetensors"
        block = list(texts[start : start + _TEXTS])
        if not path.is_file():
            _write(path, _compute(block, student, teacher, whole))
        tensors = load_file(path)
        lengths, counts = tensors.pop("lengths").tolist(), tensors.pop("counts").tolist()
        rows = zip(
            torch.split(tensors["ids"], lengths),
            torch.split(tensors["unit"], lengths),
            torch.split(tensors["states"], counts),
            tensors["vectors"],
            strict=True,
        )
        made += [Targets(*row) for row in rows]
        advance(len(block))
    return made


def _compute(texts: list[str], student: Tokenizer, teacher: Teacher, whole: Tokenizer) -> list[Targets]:
    pairs = list(zip(student.encode_batch(texts), whole.encode_batch(texts), strict=True))
    order = sorted(range(len(texts)), key=lambda i: len(pairs[i][1].ids))
    found: dict[int, Targets] = {}
    start = 0
    while start < len(order):
        length = len(pairs[order[start]][1].ids)
        own = [i for i in order[start : start + max(1, _TOKENS // length)] if len(pairs[i][1].ids) == length]
        start += len(own)
        with torch.no_grad(), reduced():
            states = teacher.encode(torch.tensor([pairs[i][1].ids for i in own])).float()
        vectors = F.normalize(states.mean(1), dim=-1)
        for row, index in enumerate(own):
            mine, theirs = (torch.tensor(side) for side in units(*pairs[index]))
            means = unit_means(states[row], theirs, int(theirs[-1]) + 1)
            found[index] = Targets(torch.tensor(pairs[index][0].ids), mine, means.half(), vectors[row])
    return [found[i] for i in range(len(texts))]


def unit_means(states: Tensor, unit: Tensor, count: int) -> Tensor:
    """Means of rows `[n, hidden]` by unit, `[count, hidden]`."""
    total = states.new_zeros(count, states.shape[1]).index_add(0, unit, states)
    return total / torch.bincount(unit, minlength=count).clamp(min=1)[:, None]


def _write(path: Path, made: list[Targets]) -> None:
    tensors = {
        "ids": torch.cat([t.ids for t in made]),
        "unit": torch.cat([t.unit for t in made]),
        "states": torch.cat([t.states for t in made]),
        "vectors": torch.stack([t.vector for t in made]),
        "lengths": torch.tensor([len(t.ids) for t in made]),
        "counts": torch.tensor([len(t.states) for t in made]),
    }
    with replacing_file(path) as partial:
        save_file(tensors, partial)
