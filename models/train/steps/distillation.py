"""Gradient steps towards the teacher: its states, its embeddings, and the similarities it sees, at every width."""

from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.network import NomicMoe
from moembed.train.convert import student
from moembed.train.convert.targets import Targets, unit_means
from moembed.train.precision import reduced
from moembed.train.recipe import Distil, Recipe
from moembed.train.steps.descent import Descent
from moembed.train.steps.losses import balance, bank, neighbours

Batch = list[Targets]
_NEAREST = 10
_TOKENS = 8192  # of a batch that is read without gradients


def batches(targets: Sequence[Targets], tokens: int, seed: int) -> list[Batch]:
    """Texts of one length each, at most `tokens` tokens or one text, in random order."""
    generator = torch.Generator().manual_seed(seed)
    by_length: dict[int, list[Targets]] = defaultdict(list)
    for index in torch.randperm(len(targets), generator=generator).tolist():
        by_length[len(targets[index].ids)].append(targets[index])
    made = []
    for length in sorted(by_length):
        own, size = by_length[length], max(1, tokens // length)
        made += [own[start : start + size] for start in range(0, len(own), size)]
    return [made[i] for i in torch.randperm(len(made), generator=generator).tolist()]


def loss(
    network: NomicMoe, batch: Batch, texts: Tensor, recipe: Distil, dims: list[int]
) -> tuple[Tensor, dict[str, float]]:
    """The weighted loss of a batch, given the bank, and its parts."""
    with reduced():
        states, routings = student.encode(network, torch.stack([t.ids for t in batch]))
    last = states[-1].float()
    wanted = torch.stack([t.vector for t in batch])
    goal = torch.cat([t.states for t in batch]).float()
    counts = torch.tensor([len(t.states) for t in batch])
    offset = counts.cumsum(0) - counts
    unit = torch.cat([t.unit + shift for t, shift in zip(batch, offset.tolist(), strict=True)])
    met = torch.bincount(unit, minlength=len(goal)) > 0
    difference = (unit_means(last.flatten(0, 1), unit, len(goal)) - goal)[met]
    pooled = last.mean(1)
    turned = student.project(network, pooled)
    parts = {
        "states": difference.square().sum() / (goal[met] - goal[met].mean(0)).square().sum(),
        "vectors": 1 - (F.normalize(pooled, dim=-1) * wanted).sum(-1).mean(),
        "neighbours": torch.stack([neighbours(turned[:, :dim], wanted, recipe.temperature) for dim in dims]).mean(),
        "bank": bank(pooled, wanted, texts, recipe.bank_temperature),
        "balance": torch.stack([balance(routing) for routing in routings]).mean(),
    }
    total = torch.stack([getattr(recipe, name) * part for name, part in parts.items()]).sum()
    return total, {name: float(part.detach()) for name, part in parts.items()}


def vectors(encode: Callable[[Tensor], Tensor], texts: Sequence[Tensor]) -> Tensor:
    """Embeddings `[texts, hidden]`, of unit length, of texts' ids.

    Args:
        encode: last hidden states `[batch, length, hidden]` of ids `[batch, length]`.
        texts: ids of each, `[length]` int64; at least one text.
    """
    by_length: dict[int, list[int]] = defaultdict(list)
    for index, ids in enumerate(texts):
        by_length[len(ids)].append(index)
    order, found = [], []
    with torch.no_grad(), reduced():
        for length, own in by_length.items():
            size = max(1, _TOKENS // length)
            for start in range(0, len(own), size):
                rows = own[start : start + size]
                states = encode(torch.stack([texts[i] for i in rows]))
                found.append(F.normalize(states.float().mean(1), dim=-1))
                order += rows
    return torch.cat(found)[torch.tensor(order).argsort()]


def read(network: NomicMoe, texts: Sequence[Tensor]) -> Tensor:
    """Embeddings `[texts, hidden]`, of unit length and not yet projected, as the student reads texts' ids."""
    return vectors(lambda ids: student.encode(network, ids)[0][-1], texts)


def agreement(found: Tensor, wanted: Tensor) -> dict[str, float]:
    """Mean cosine of embeddings, perhaps cut, to the teacher's, cut alike, and the share of its nearest texts among theirs."""
    nearest = []
    for x in (F.normalize(found, dim=-1), wanted):
        similar = x @ x.T
        similar.fill_diagonal_(-2)
        nearest.append(similar.topk(min(_NEAREST, len(x) - 1)).indices)
    shared = (nearest[0][:, :, None] == nearest[1][:, None, :]).any(2).float().mean()
    cosine = F.cosine_similarity(found, wanted[:, : found.shape[1]], dim=-1).mean()
    return {"cosine": round(float(cosine), 5), "nearest": round(float(shared), 4)}


class Distillation(Descent):
    """Imitation of the teacher, each text read once.

    Args:
        network: trained in place, all of it.
        recipe: the choices.
        learned: texts to learn from.
        held: texts to judge by.
        log: told what was found at every checkpoint.
    """

    def __init__(
        self,
        network: NomicMoe,
        recipe: Recipe,
        learned: Sequence[Targets],
        held: Sequence[Targets],
        log: Callable[[str], None],
    ) -> None:
        self._recipe, self._held = recipe, held
        self._batches = batches(learned, recipe.distil.batch, recipe.seed)
        self._wanted = torch.stack([t.vector for t in held])
        self._bank = torch.stack([t.vector for t in learned])
        super().__init__(network, recipe.distil, -(-len(self._batches) // recipe.distil.accumulate), log)

    def _gradient(self, step: int) -> dict[str, float]:
        recipe, size = self._recipe, self._recipe.distil.accumulate
        own = self._batches[step * size : (step + 1) * size]
        sums: dict[str, float] = defaultdict(float)
        for batch in own:
            total, parts = loss(self._network, batch, self._bank, recipe.distil, recipe.student.dims)
            (total / len(own)).backward()  # type: ignore[no-untyped-call]
            for name, part in parts.items():
                sums[name] += part / len(own)
        return dict(sums)

    def _judge(self) -> dict[str, float]:
        embeddings = read(self._network, [t.ids for t in self._held])
        least = min(self._recipe.student.dims)
        mine, theirs = (student.project(self._network, x) for x in (embeddings, self._wanted))
        cut = agreement(mine[:, :least], theirs)
        return {**agreement(embeddings, self._wanted), f"nearest_{least}": cut["nearest"]}
