"""Losses of the gradient steps: similarities within a batch and to a bank, contrastive pairs, and load balancing."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.train.convert.student import Routing

_SAME_TEXT = 0.9995  # similarity above which a text of the bank counts as the text itself
_MASKED = 1e4  # logit, negated, of a masked text


def similarities(vectors: Tensor, temperature: float) -> Tensor:
    """Return each text's cosines to the others, `[texts, texts - 1]`, divided by the temperature."""
    unit = F.normalize(vectors, dim=-1)
    others = ~torch.eye(len(unit), dtype=torch.bool)
    return (unit @ unit.T / temperature)[others].view(len(unit), -1)


def match_spread(logits: Tensor, reference: Tensor) -> Tensor:
    """Scale logits to the standard deviation of the reference: cosines of truncated vectors spread more; their order matters."""
    return logits * (reference.std() / logits.std().clamp(min=1e-6)).detach()


def kl_divergence(logits: Tensor, reference: Tensor) -> Tensor:
    """Return the mean divergence of the distributions of logits `[n, choices]` from the reference's, in nats."""
    return F.kl_div(logits.log_softmax(-1), reference.log_softmax(-1), log_target=True, reduction="batchmean")


def neighbour_loss(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return the divergence of each text's similarity distribution within the batch from the teacher's, in nats.

    Args:
        student: embeddings `[texts, width]`.
        teacher: embeddings `[texts, hidden]`.
        temperature: of the similarities.
    """
    if len(student) < 3:
        return student.new_zeros(())
    logits, reference = (similarities(side, temperature) for side in (student, teacher))
    return kl_divergence(match_spread(logits, reference), reference)


def bank_loss(student: Tensor, teacher: Tensor, bank: Tensor, temperature: float) -> Tensor:
    """Return the divergence of each text's similarity distribution over a bank of texts from the teacher's, in nats.

    A batch has few neighbours of a text. The bank of the teacher's embeddings of all texts has many, and costs no forward pass.

    Args:
        student: embeddings `[texts, hidden]`.
        teacher: embeddings `[texts, hidden]`, of unit length.
        bank: the teacher's embeddings `[n, hidden]`, of unit length; the text itself is masked.
        temperature: of the similarities; a low one attends to the nearest texts alone.
    """
    reference = teacher @ bank.T
    itself = reference > _SAME_TEXT
    logits = F.normalize(student, dim=-1) @ bank.T
    logits, reference = ((x / temperature).masked_fill(itself, -_MASKED) for x in (logits, reference))
    return kl_divergence(logits, reference)


def info_nce(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float, margin: float) -> Tensor:
    """Return the InfoNCE loss in nats; candidates that the teacher rates as good as the positive are not negatives.

    Args:
        student: queries `[pairs, width]` and candidates `[n, width]`, of which the first `pairs` are the positives.
        teacher: the same by the teacher, `[pairs, hidden]` and `[n, hidden]`, of unit length.
        temperature: of the similarities.
        margin: see `pairs.hard_negatives`.
    """
    queries, candidates = (F.normalize(x, dim=-1) for x in student)
    positive = torch.eye(len(queries), len(candidates), dtype=torch.bool)
    similarity = teacher[0] @ teacher[1].T
    counted = positive | (similarity < similarity.diagonal()[:, None] - margin)
    logits = (queries @ candidates.T / temperature).masked_fill(~counted, -torch.inf)
    return F.cross_entropy(logits, torch.arange(len(queries)))


def load_balancing_loss(routing: Routing) -> Tensor:
    """Return the load-balancing loss of a mixture: 1 if all experts are selected equally often."""
    experts = routing.probabilities.shape[1]
    shares = torch.bincount(routing.expert_indices.flatten(), minlength=experts) / routing.expert_indices.numel()
    return experts * (shares * routing.probabilities.mean(0)).sum()
