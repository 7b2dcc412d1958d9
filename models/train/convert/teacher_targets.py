"""Distillation targets: the teacher's outputs in its own vocabulary, stored so that the student's tokens can be compared.

The two vocabularies split a text differently. Between two positions where both have a token boundary, the mean of the tokens'
states can be compared. Such a stretch is called a span; where the tokenizers agree, it is one token on either side.
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
from moembed.train.data.batching import length_batches
from moembed.train.precision import reduced_precision

_TEXTS_PER_FILE = 16384  # enough that many texts have the same length
_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class TeacherTarget:
    """Token ids of a text for the student, and the outputs it should produce.

    Attributes:
        ids: the student's token ids, `[length]` int64.
        spans: span of every token, counted from zero, `[length]` int64.
        states: mean of the teacher's last hidden states in every span, `[spans, hidden]` float16.
        embedding: the teacher's, `[hidden]` float32 of unit length.
    """

    ids: Tensor
    spans: Tensor
    states: Tensor
    embedding: Tensor

    def permuted(self, coordinates: Tensor) -> "TeacherTarget":
        """Return the target with hidden coordinates in another order."""
        return replace(self, states=self.states[:, coordinates], embedding=self.embedding[coordinates])


def aligned_spans(student: Encoding, teacher: Encoding) -> tuple[list[int], list[int]]:
    """Return the span of every token on either side.

    Special tokens and tokens without characters belong to the current span. The last token on either side, which closes the text,
    belongs to the last span.
    """
    ends = [[end for _, end in encoding.offsets[1:-1]] for encoding in (student, teacher)]
    common = sorted(set(ends[0]) & set(ends[1]) - {0})
    # Span 0 is the first special token, then there is a span up to each common boundary; the last one has the closing special
    # token and what only one side has before truncation.
    sides = []
    for boundaries in ends:
        places = np.searchsorted(np.array(common), np.array(boundaries), side="left") + 1
        sides.append([0, *places.tolist(), len(common) + 1])
    return sides[0], sides[1]


def compute_or_load(
    texts: Sequence[str],
    student_tokenizer: Tokenizer,
    teacher: Teacher,
    teacher_tokenizer: Tokenizer,
    folder: Path,
    advance: Callable[[int], object],
) -> list[TeacherTarget]:
    """Compute the targets of texts, or load those that are stored.

    Args:
        texts: prompts included.
        student_tokenizer: truncates texts.
        teacher: computes the targets.
        teacher_tokenizer: truncates texts.
        folder: folder of the stored targets; created if missing.
        advance: called with the number of texts done.
    """
    folder.mkdir(parents=True, exist_ok=True)
    targets: list[TeacherTarget] = []
    for start in range(0, len(texts), _TEXTS_PER_FILE):
        path = folder / f"{start:08}.safetensors"
        block = list(texts[start : start + _TEXTS_PER_FILE])
        if not path.is_file():
            _write(path, _compute(block, student_tokenizer, teacher, teacher_tokenizer))
        tensors = load_file(path)
        lengths, counts = tensors.pop("lengths").tolist(), tensors.pop("counts").tolist()
        rows = zip(
            torch.split(tensors["ids"], lengths),
            torch.split(tensors["spans"], lengths),
            torch.split(tensors["states"], counts),
            tensors["embeddings"],
            strict=True,
        )
        targets += [TeacherTarget(*row) for row in rows]
        advance(len(block))
    return targets


def _compute(
    texts: list[str], student_tokenizer: Tokenizer, teacher: Teacher, teacher_tokenizer: Tokenizer
) -> list[TeacherTarget]:
    encodings = list(zip(student_tokenizer.encode_batch(texts), teacher_tokenizer.encode_batch(texts), strict=True))
    targets: dict[int, TeacherTarget] = {}
    for indices in length_batches([len(theirs.ids) for _, theirs in encodings], _BATCH_TOKENS):
        with torch.no_grad(), reduced_precision():
            states = teacher.encode(torch.tensor([encodings[i][1].ids for i in indices])).float()
        embeddings = F.normalize(states.mean(1), dim=-1)
        for row, index in enumerate(indices):
            spans, teacher_spans = (torch.tensor(side) for side in aligned_spans(*encodings[index]))
            means = span_means(states[row], teacher_spans, int(teacher_spans[-1]) + 1)
            ids = torch.tensor(encodings[index][0].ids)
            targets[index] = TeacherTarget(ids, spans, means.half(), embeddings[row])
    return [targets[i] for i in range(len(texts))]


def span_means(states: Tensor, spans: Tensor, count: int) -> Tensor:
    """Return the means of rows `[n, hidden]` by span, `[count, hidden]`."""
    total = states.new_zeros(count, states.shape[1]).index_add(0, spans, states)
    return total / torch.bincount(spans, minlength=count).clamp(min=1)[:, None]


def _write(path: Path, targets: list[TeacherTarget]) -> None:
    tensors = {
        "ids": torch.cat([t.ids for t in targets]),
        "spans": torch.cat([t.spans for t in targets]),
        "states": torch.cat([t.states for t in targets]),
        "embeddings": torch.stack([t.embedding for t in targets]),
        "lengths": torch.tensor([len(t.ids) for t in targets]),
        "counts": torch.tensor([len(t.states) for t in targets]),
    }
    with replacing_file(path) as partial:
        save_file(tensors, partial)
