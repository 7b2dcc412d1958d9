"""Contrastive training with large batches, at every width.

Each query should find its own document in the batch, while embeddings stay near the teacher's. A batch is larger than what fits
in memory with gradients. Its embeddings are computed without gradients, then the loss and its gradient with respect to the
embeddings, then each part of the batch again with gradients (GradCache). The result is exact.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.nomic_bert_moe.network import NomicMoe
from moembed.train.convert import student
from moembed.train.convert.teacher_targets import TeacherTarget
from moembed.train.data import pairs
from moembed.train.data.batching import length_batches, truncated_length
from moembed.train.precision import reduced_precision
from moembed.train.recipe import Recipe
from moembed.train.steps.distillation import agreement, embed
from moembed.train.steps.losses import info_nce, load_balancing_loss, neighbour_loss
from moembed.train.steps.trainer import Trainer

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def split_batch(texts: Sequence[TeacherTarget], max_tokens: int, multiple: int) -> list[tuple[list[int], Tensor]]:
    """Split a batch into parts of texts of equal length: their indices, and their ids `[texts, length]`.

    Lengths are rounded down to multiples of `multiple`, and the last special token is kept, so that the parts are larger.
    """
    lengths = [truncated_length(len(text.ids), multiple) for text in texts]
    return [
        (indices, torch.stack([torch.cat([texts[i].ids[: lengths[i] - 1], texts[i].ids[-1:]]) for i in indices]))
        for indices in length_batches(lengths, max_tokens)
    ]


def backward_in_parts(
    parts: Sequence[tuple[list[int], Tensor]], encode: Encode, loss: Callable[[Tensor], tuple[Tensor, dict[str, float]]]
) -> dict[str, float]:
    """Add the gradient of a batch's loss to the parameters, with one part of the batch in memory at a time.

    Args:
        parts: indices of texts, and their inputs.
        encode: maps inputs to embeddings `[texts, hidden]`, not normalized, and an auxiliary loss averaged over these texts.
        loss: maps all embeddings `[texts, hidden]` to the loss, and its parts.

    Returns:
        The parts of the loss, and `balance`, the mean auxiliary loss.
    """
    count = sum(len(indices) for indices, _ in parts)
    with torch.no_grad():
        embeddings = [encode(inputs)[0] for _, inputs in parts]
    pooled = torch.empty(count, embeddings[0].shape[1])
    for (indices, _), own in zip(parts, embeddings, strict=True):
        pooled[indices] = own
    pooled.requires_grad_(True)
    total, described = loss(pooled)
    (gradient,) = torch.autograd.grad(total, pooled)
    balance = 0.0
    for indices, inputs in parts:
        own, auxiliary = encode(inputs)
        share = len(indices) / count
        ((own * gradient[indices]).sum() + auxiliary * share).backward()  # type: ignore[no-untyped-call]
        balance += float(auxiliary.detach()) * share
    return described | {"balance": balance}


class ContrastiveTraining(Trainer):
    """Contrastive training of the last layers on pairs that the teacher finds consistent, with hard negatives.

    Args:
        network: its last layers are trained in place.
        recipe: the hyperparameters.
        train: queries and documents of the training pairs.
        validation: queries and documents of the validation pairs.
        log: called with the results of every checkpoint.
    """

    def __init__(
        self,
        network: NomicMoe,
        recipe: Recipe,
        train: tuple[Sequence[TeacherTarget], Sequence[TeacherTarget]],
        validation: tuple[Sequence[TeacherTarget], Sequence[TeacherTarget]],
        log: Callable[[str], None],
    ) -> None:
        self._recipe, self._validation = recipe, validation
        contrastive = recipe.contrastive
        teacher = [torch.stack([text.embedding for text in side]) for side in train]
        selected = torch.nonzero(pairs.consistent(teacher[0], teacher[1], contrastive.consistency_rank)).squeeze(1)
        log(f"{len(selected)} of {len(teacher[0])} pairs are consistent by the teacher's embeddings")
        self._queries, self._documents = ([side[i] for i in selected.tolist()] for side in train)
        negatives = pairs.hard_negatives(
            teacher[0][selected], teacher[1][selected], contrastive.hard_negatives, contrastive.margin
        )
        self._negatives: list[list[int]] = negatives.tolist()
        generator = torch.Generator().manual_seed(recipe.seed)
        self._batches: list[list[int]] = []
        size = contrastive.batch_pairs
        for _ in range(contrastive.epochs):
            order = torch.randperm(len(selected), generator=generator).tolist()
            # The remainder is dropped: in a small batch there are few negatives.
            starts = range(0, max(len(order) - size, 0) + 1, size)
            self._batches += [order[start : start + size] for start in starts]
        layers = student.blocks(network)
        first = max(len(layers) - contrastive.trained_layers, 0)
        self._frozen, self._trained = layers[:first], layers[first:]
        super().__init__(network, contrastive, len(self._batches), log, layers=self._trained)

    def _backward(self, step: int) -> dict[str, float]:
        batch = self._batches[step]
        positives = set(batch)
        negatives = dict.fromkeys(i for pair in batch for i in self._negatives[pair] if i >= 0)
        documents = [*batch, *(i for i in negatives if i not in positives)]
        texts = [*(self._queries[i] for i in batch), *(self._documents[i] for i in documents)]
        teacher = torch.stack([text.embedding for text in texts])
        recipe, count = self._recipe.contrastive, len(batch)

        def loss(pooled: Tensor) -> tuple[Tensor, dict[str, float]]:
            losses: dict[str, list[Tensor]] = defaultdict(list)
            projected = student.project(self._network, pooled)
            for dim in self._recipe.student.dims:
                truncated = projected[:, :dim]
                for one, other in ((slice(count), slice(count, None)), (slice(count, 2 * count), slice(count))):
                    sides = (truncated[one], truncated[other]), (teacher[one], teacher[other])
                    losses["pairs"].append(info_nce(*sides, recipe.temperature, recipe.margin))
                losses["neighbours"].append(neighbour_loss(truncated, teacher, recipe.temperature))
            losses["embeddings"] = [1 - (F.normalize(pooled, dim=-1) * teacher).sum(-1).mean()]
            parts = {name: torch.stack(values).mean() for name, values in losses.items()}
            weights = {
                "pairs": 1.0,
                "neighbours": recipe.neighbours_weight,
                "embeddings": recipe.embeddings_weight,
            }
            total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
            return total, {name: float(part.detach()) for name, part in parts.items()}

        parts = split_batch(texts, recipe.batch_tokens, self._recipe.data.length_multiple)
        return backward_in_parts([(rows, self._run_frozen(ids)) for rows, ids in parts], self._run_trained, loss)

    @torch.no_grad()
    def _run_frozen(self, ids: Tensor) -> Tensor:
        """Return the input of the first trained layer."""
        with reduced_precision():
            x = student.embed(self._network, ids)
            states, _ = student.run_layers(self._network, x, self._frozen)
        return states[-1] if states else x

    def _run_trained(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with reduced_precision():
            states, routings = student.run_layers(self._network, x, self._trained)
        balance = [load_balancing_loss(routing) for routing in routings] or [x.new_zeros(())]
        return states[-1].float().mean(1), self._recipe.contrastive.balance_weight * torch.stack(balance).mean()

    def _validate(self) -> dict[str, float]:
        queries, documents = (embed(self._network, [text.ids for text in side]) for side in self._validation)
        teacher = torch.cat([torch.stack([text.embedding for text in side]) for side in self._validation])
        projected = [student.project(self._network, side) for side in (queries, documents)]
        found = pairs.recall_at_1(projected[0], projected[1], self._recipe.student.dims)
        return agreement(torch.cat([queries, documents]), teacher) | found
