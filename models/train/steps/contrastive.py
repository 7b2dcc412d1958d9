"""Contrastive steps: each query is to find its own document in a large batch, at every width, and the teacher is not forgotten.

A batch is larger than what fits in memory with gradients. Its embeddings are computed without, then the loss and its gradient
with respect to them, then every part of the batch once more with gradients, which take up from there: the gradient is exact.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.network import NomicMoe
from moembed.train.convert import student
from moembed.train.convert.targets import Targets
from moembed.train.data import pairs
from moembed.train.precision import reduced
from moembed.train.recipe import Recipe
from moembed.train.steps.descent import Descent
from moembed.train.steps.distil import agreement, read
from moembed.train.steps.losses import balance, info_nce, neighbours

Encode = Callable[[Tensor], tuple[Tensor, Tensor]]


def groups(texts: Sequence[Targets], tokens: int, multiple: int) -> list[tuple[list[int], Tensor]]:
    """Numbers of texts and their ids `[texts, length]`, of one length and at most `tokens` tokens each.

    Lengths are cut to multiples of `multiple`, the last special token kept, so that groups are fuller.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, text in enumerate(texts):
        count = len(text.ids)
        by_length[max(count // multiple * multiple, min(count, multiple))].append(index)
    made = []
    for length, own in sorted(by_length.items()):
        size = max(1, tokens // length)
        for start in range(0, len(own), size):
            rows = own[start : start + size]
            ids = [torch.cat([texts[i].ids[: length - 1], texts[i].ids[-1:]]) for i in rows]
            made.append((rows, torch.stack(ids)))
    return made


def backward(
    parts: Sequence[tuple[list[int], Tensor]], encode: Encode, loss: Callable[[Tensor], tuple[Tensor, dict[str, float]]]
) -> dict[str, float]:
    """Add the gradient of a batch's loss to the parameters, with no more than one part of it in memory.

    Args:
        parts: numbers of texts, and what is read of them.
        encode: what is read to embeddings `[texts, hidden]`, not normalized, and a loss of their own, averaged over the texts.
        loss: of all embeddings `[texts, hidden]`, and its parts.

    Returns:
        The parts of the loss, and `balance`, the mean of the parts' own losses.
    """
    count = sum(len(rows) for rows, _ in parts)
    with torch.no_grad():
        once = [encode(inputs)[0] for _, inputs in parts]
    pooled = torch.empty(count, once[0].shape[1])
    for (rows, _), own in zip(parts, once, strict=True):
        pooled[rows] = own
    pooled.requires_grad_(True)
    total, described = loss(pooled)
    (gradient,) = torch.autograd.grad(total, pooled)
    spread = 0.0
    for rows, inputs in parts:
        again, extra = encode(inputs)
        share = len(rows) / count
        ((again * gradient[rows]).sum() + extra * share).backward()  # type: ignore[no-untyped-call]
        spread += float(extra.detach()) * share
    return described | {"balance": spread}


class Contrast(Descent):
    """Pairs, filtered by the teacher, with hard negatives.

    Args:
        network: trained in place, its last layers.
        recipe: the choices.
        learned: queries and documents to learn from, as many of each.
        held: the same, to judge by.
        log: told what was found at every checkpoint.
    """

    def __init__(
        self,
        network: NomicMoe,
        recipe: Recipe,
        learned: tuple[Sequence[Targets], Sequence[Targets]],
        held: tuple[Sequence[Targets], Sequence[Targets]],
        log: Callable[[str], None],
    ) -> None:
        self._recipe, self._held = recipe, held
        choices = recipe.contrast
        wanted = [torch.stack([text.vector for text in side]) for side in learned]
        kept = torch.nonzero(pairs.consistent(wanted[0], wanted[1], choices.rank)).squeeze(1)
        log(f"the teacher believes {len(kept)} of {len(wanted[0])} pairs")
        self._queries, self._documents = ([side[i] for i in kept.tolist()] for side in learned)
        negatives = pairs.hard_negatives(wanted[0][kept], wanted[1][kept], choices.negatives, choices.margin)
        self._negatives: list[list[int]] = negatives.tolist()
        generator = torch.Generator().manual_seed(recipe.seed)
        self._batches: list[list[int]] = []
        for _ in range(choices.passes):
            order = torch.randperm(len(kept), generator=generator).tolist()
            # What is left over would be a batch with few wrong answers.
            whole = range(0, max(len(order) - choices.pairs, 0) + 1, choices.pairs)
            self._batches += [order[start : start + choices.pairs] for start in whole]
        layers = student.blocks(network)
        first = max(len(layers) - choices.layers, 0)
        self._below, self._moved = layers[:first], layers[first:]
        super().__init__(network, choices, len(self._batches), log, layers=self._moved)

    def _gradient(self, step: int) -> dict[str, float]:
        own = self._batches[step]
        extra = dict.fromkeys(i for pair in own for i in self._negatives[pair] if i >= 0)
        documents = [*own, *(i for i in extra if i not in set(own))]
        texts = [*(self._queries[i] for i in own), *(self._documents[i] for i in documents)]
        wanted = torch.stack([text.vector for text in texts])
        choices, count = self._recipe.contrast, len(own)

        def loss(pooled: Tensor) -> tuple[Tensor, dict[str, float]]:
            found: dict[str, list[Tensor]] = defaultdict(list)
            turned = student.project(self._network, pooled)
            for dim in self._recipe.student.dims:
                cut = turned[:, :dim]
                for one, other in ((slice(count), slice(count, None)), (slice(count, 2 * count), slice(count))):
                    sides = (cut[one], cut[other]), (wanted[one], wanted[other])
                    found["pairs"].append(info_nce(*sides, choices.temperature, choices.margin))
                found["neighbours"].append(neighbours(cut, wanted, choices.temperature))
            found["vectors"] = [1 - (F.normalize(pooled, dim=-1) * wanted).sum(-1).mean()]
            parts = {name: torch.stack(values).mean() for name, values in found.items()}
            weights = {"pairs": 1.0, "neighbours": choices.neighbours, "vectors": choices.vectors}
            total = torch.stack([weights[name] * part for name, part in parts.items()]).sum()
            return total, {name: float(part.detach()) for name, part in parts.items()}

        parts = groups(texts, choices.batch, self._recipe.data.multiple)
        return backward([(rows, self._read(ids)) for rows, ids in parts], self._encode, loss)

    @torch.no_grad()
    def _read(self, ids: Tensor) -> Tensor:
        """What the layers that are trained read of texts."""
        with reduced():
            x = student.embed(self._network, ids)
            states, _ = student.through(self._network, x, self._below)
        return states[-1] if states else x

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        with reduced():
            states, routings = student.through(self._network, x, self._moved)
        spreads = [balance(routing) for routing in routings] or [x.new_zeros(())]
        return states[-1].float().mean(1), self._recipe.contrast.balance * torch.stack(spreads).mean()

    def _judge(self) -> dict[str, float]:
        sides = [read(self._network, [text.ids for text in side]) for side in self._held]
        wanted = torch.cat([torch.stack([text.vector for text in side]) for side in self._held])
        turned = [student.project(self._network, side) for side in sides]
        return agreement(torch.cat(sides), wanted) | pairs.found(turned[0], turned[1], self._recipe.student.dims)
