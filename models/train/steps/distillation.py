"""Distillation: gradient steps towards the teacher's states, embeddings and similarities, at every width."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.nomic_bert_moe.network import NomicMoe
from moembed.train.convert import student
from moembed.train.convert.teacher_targets import TeacherTarget, span_means
from moembed.train.data.batching import length_batches
from moembed.train.precision import reduced_precision
from moembed.train.recipe import DistillationRecipe, Recipe
from moembed.train.steps.losses import bank_loss, load_balancing_loss, neighbour_loss
from moembed.train.steps.trainer import Trainer

_NEAREST = 10
_BATCH_TOKENS = 8192  # without gradients


def batches(targets: Sequence[TeacherTarget], max_tokens: int, seed: int) -> list[list[TeacherTarget]]:
    """Group texts of equal length into batches, in random order."""
    generator = torch.Generator().manual_seed(seed)
    shuffled = [targets[i] for i in torch.randperm(len(targets), generator=generator).tolist()]
    grouped = length_batches([len(target.ids) for target in shuffled], max_tokens)
    order = torch.randperm(len(grouped), generator=generator).tolist()
    return [[shuffled[i] for i in grouped[number]] for number in order]


def distillation_loss(
    network: NomicMoe, batch: list[TeacherTarget], bank: Tensor, recipe: DistillationRecipe, dims: Sequence[int]
) -> tuple[Tensor, dict[str, float]]:
    """Return the weighted loss of a batch, and its parts."""
    with reduced_precision():
        states, routings = student.encode(network, torch.stack([t.ids for t in batch]))
    last = states[-1].float()
    embeddings = torch.stack([t.embedding for t in batch])
    span_states = torch.cat([t.states for t in batch]).float()
    counts = torch.tensor([len(t.states) for t in batch])
    offsets = counts.cumsum(0) - counts
    spans = torch.cat([t.spans + offset for t, offset in zip(batch, offsets.tolist(), strict=True)])
    present = torch.bincount(spans, minlength=len(span_states)) > 0
    difference = (span_means(last.flatten(0, 1), spans, len(span_states)) - span_states)[present]
    variance = (span_states[present] - span_states[present].mean(0)).square().sum()
    pooled = last.mean(1)
    projected = student.project(network, pooled)
    neighbours = [neighbour_loss(projected[:, :dim], embeddings, recipe.temperature) for dim in dims]
    parts = {
        "states": difference.square().sum() / variance,
        "embeddings": 1 - (F.normalize(pooled, dim=-1) * embeddings).sum(-1).mean(),
        "neighbours": torch.stack(neighbours).mean(),
        "bank": bank_loss(pooled, embeddings, bank, recipe.bank_temperature),
        "balance": torch.stack([load_balancing_loss(routing) for routing in routings]).mean(),
    }
    total = torch.stack([getattr(recipe, f"{name}_weight") * part for name, part in parts.items()]).sum()
    return total, {name: float(part.detach()) for name, part in parts.items()}


def pooled_embeddings(encode: Callable[[Tensor], Tensor], texts: Sequence[Tensor]) -> Tensor:
    """Return mean-pooled embeddings `[texts, hidden]` of unit length.

    Args:
        encode: maps ids `[batch, length]` to last hidden states `[batch, length, hidden]`.
        texts: token ids of each text, `[length]` int64; at least one text.
    """
    order: list[int] = []
    embeddings = []
    with torch.no_grad(), reduced_precision():
        for indices in length_batches([len(ids) for ids in texts], _BATCH_TOKENS):
            states = encode(torch.stack([texts[i] for i in indices]))
            embeddings.append(F.normalize(states.float().mean(1), dim=-1))
            order += indices
    return torch.cat(embeddings)[torch.tensor(order).argsort()]


def embed(network: NomicMoe, texts: Sequence[Tensor]) -> Tensor:
    """Return the student's embeddings `[texts, hidden]` of unit length, before the projection, from token ids."""
    return pooled_embeddings(lambda ids: student.encode(network, ids)[0][-1], texts)


def agreement(student_embeddings: Tensor, teacher_embeddings: Tensor) -> dict[str, float]:
    """Compare embeddings with the teacher's: mean cosine, and the share of common nearest neighbours.

    Args:
        student_embeddings: `[texts, width]`; the cosine is to the teacher's first `width` dimensions.
        teacher_embeddings: `[texts, hidden]`, of unit length.
    """
    nearest = []
    for x in (F.normalize(student_embeddings, dim=-1), teacher_embeddings):
        similarity = x @ x.T
        similarity.fill_diagonal_(-2)
        nearest.append(similarity.topk(min(_NEAREST, len(x) - 1)).indices)
    overlap = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(2).float().mean()
    truncated = teacher_embeddings[:, : student_embeddings.shape[1]]
    cosine = F.cosine_similarity(student_embeddings, truncated, dim=-1).mean()
    return {"cosine": round(float(cosine), 5), "neighbour_overlap": round(float(overlap), 4)}


class Distillation(Trainer):
    """Distillation of the teacher into the whole network, one pass over the texts.

    Args:
        network: trained in place.
        recipe: the hyperparameters.
        train: training texts.
        validation: validation texts.
        log: called with the results of every checkpoint.
    """

    def __init__(
        self,
        network: NomicMoe,
        recipe: Recipe,
        train: Sequence[TeacherTarget],
        validation: Sequence[TeacherTarget],
        log: Callable[[str], None],
    ) -> None:
        self._recipe, self._validation = recipe, validation
        self._batches = batches(train, recipe.distillation.batch_tokens, recipe.seed)
        self._validation_embeddings = torch.stack([t.embedding for t in validation])
        self._bank = torch.stack([t.embedding for t in train])
        steps = -(-len(self._batches) // recipe.distillation.gradient_accumulation)
        super().__init__(network, recipe.distillation, steps, log)

    def _backward(self, step: int) -> dict[str, float]:
        recipe, size = self._recipe, self._recipe.distillation.gradient_accumulation
        accumulated = self._batches[step * size : (step + 1) * size]
        sums: dict[str, float] = defaultdict(float)
        for batch in accumulated:
            total, parts = distillation_loss(self._network, batch, self._bank, recipe.distillation, recipe.student.dims)
            (total / len(accumulated)).backward()  # type: ignore[no-untyped-call]
            for name, part in parts.items():
                sums[name] += part / len(accumulated)
        return dict(sums)

    def _validate(self) -> dict[str, float]:
        embeddings = embed(self._network, [t.ids for t in self._validation])
        smallest = min(self._recipe.student.dims)
        mine, theirs = (student.project(self._network, x) for x in (embeddings, self._validation_embeddings))
        truncated = agreement(mine[:, :smallest], theirs)
        return {
            **agreement(embeddings, self._validation_embeddings),
            f"neighbour_overlap_{smallest}": truncated["neighbour_overlap"],
        }
