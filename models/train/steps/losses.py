"""What the gradient steps descend on: the teacher's similarities, within a batch and to a bank, pairs, and an even load."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.train.convert.student import Routing

_ITSELF = 0.9995  # similarity
_FAR = 1e4  # in temperatures


def similarities(vectors: Tensor, temperature: float) -> Tensor:
    """Each text's cosines to the others, `[texts, texts - 1]`, over the temperature."""
    unit = F.normalize(vectors, dim=-1)
    others = ~torch.eye(len(unit), dtype=torch.bool)
    return (unit @ unit.T / temperature)[others].view(len(unit), -1)


def as_spread(mine: Tensor, theirs: Tensor) -> Tensor:
    """Logits spread as much as theirs: those of cut vectors are more unlike, and what counts is their order."""
    return mine * (theirs.std() / mine.std().clamp(min=1e-6)).detach()


def divergence(mine: Tensor, theirs: Tensor) -> Tensor:
    """Mean divergence of the distributions of logits `[n, choices]` from theirs, in nats."""
    return F.kl_div(mine.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean")


def neighbours(found: Tensor, wanted: Tensor, temperature: float) -> Tensor:
    """Divergence of each text's distribution over the others in the batch from the teacher's, in nats.

    Args:
        found: `[texts, width]`.
        wanted: `[texts, hidden]`.
        temperature: of the similarities.
    """
    if len(found) < 3:
        return found.new_zeros(())
    mine, theirs = (similarities(side, temperature) for side in (found, wanted))
    return divergence(as_spread(mine, theirs), theirs)


def bank(found: Tensor, wanted: Tensor, texts: Tensor, temperature: float) -> Tensor:
    """Divergence of each text's distribution over a bank of others from the teacher's, in nats.

    A batch holds few of a text's neighbours, a bank of what the teacher says of all texts many, and costs no reading.

    Args:
        found: `[texts, hidden]`.
        wanted: `[texts, hidden]`, of unit length.
        texts: the bank `[n, hidden]`, of unit length; what is the text itself is passed over.
        temperature: of the similarities; a low one looks at the nearest alone.
    """
    theirs = wanted @ texts.T
    itself = theirs > _ITSELF
    mine = F.normalize(found, dim=-1) @ texts.T
    mine, theirs = ((x / temperature).masked_fill(itself, -_FAR) for x in (mine, theirs))
    return divergence(mine, theirs)


def info_nce(found: Sequence[Tensor], wanted: Sequence[Tensor], temperature: float, margin: float) -> Tensor:
    """Cross-entropy of finding each query's own candidate, in nats; what the teacher finds as good does not count as wrong.

    Args:
        found: the student's queries `[pairs, width]` and candidates `[n, width]`, of which the first are the pairs' own.
        wanted: the teacher's, `[pairs, hidden]` and `[n, hidden]`, of unit length.
        temperature: of the similarities.
        margin: see `pairs.hard_negatives`.
    """
    queries, candidates = (F.normalize(x, dim=-1) for x in found)
    own = torch.eye(len(queries), len(candidates), dtype=torch.bool)
    similar = wanted[0] @ wanted[1].T
    counted = own | (similar < similar.diagonal()[:, None] - margin)
    logits = (queries @ candidates.T / temperature).masked_fill(~counted, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(queries)))


def balance(routing: Routing) -> Tensor:
    """The load-balancing loss of a mixture: 1 when all experts are chosen equally often."""
    experts = routing.probabilities.shape[1]
    shares = torch.bincount(routing.expert_indices.flatten(), minlength=experts) / routing.expert_indices.numel()
    return experts * (shares * routing.probabilities.mean(0)).sum()
