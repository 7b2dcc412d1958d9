"""A rotation of embeddings that nobody sees until they are cut: what tells texts apart goes into the leading components.

A post-norm residual stream cannot be turned, for its norms weigh each coordinate by itself. So the student learns the teacher's
coordinates, and its projection turns them afterwards, at no loss.
"""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.train.recipe import Rotate


def learn(vectors: Tensor, dims: list[int], choices: Rotate, seed: int) -> Tensor:
    """Find the rotation whose leading components give each text the neighbours that it has by all of them.

    It begins with the principal directions, and descends, by Cayley's map, on the divergence of each text's distribution over the
    others in a batch from the whole vectors', at every width.

    Args:
        vectors: embeddings `[texts, hidden]` of unit length.
        dims: widths that they may be cut to.
        choices: of the steps.
        seed: of the batches.

    Returns:
        `[hidden, hidden]` float32, orthogonal: `vectors @ rotation.T` are the turned ones.
    """
    widths = [dim for dim in dims if dim < vectors.shape[1]]
    generator = torch.Generator().manual_seed(seed)
    begin = torch.linalg.eigh(vectors.double().T @ vectors.double())[1].flip(1).T.float()
    skew = torch.zeros_like(begin, requires_grad=True)
    optimizer = torch.optim.Adam([skew], choices.rate)
    with torch.enable_grad():
        for _ in range(choices.steps if widths else 0):
            x = vectors[torch.randint(len(vectors), (choices.texts,), generator=generator)]
            turned = x @ _turned(skew, begin).T
            theirs = similarities(x, choices.temperature)
            parts = [divergence(similarities(turned[:, :dim], choices.temperature), theirs) for dim in widths]
            optimizer.zero_grad()
            torch.stack(parts).sum().backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    return _turned(skew.detach(), begin)


def similarities(vectors: Tensor, temperature: float) -> Tensor:
    """Each text's cosines to the others, `[texts, texts - 1]`, over the temperature."""
    unit = F.normalize(vectors, dim=-1)
    others = ~torch.eye(len(unit), dtype=torch.bool)
    return (unit @ unit.T / temperature)[others].view(len(unit), -1)


def divergence(mine: Tensor, theirs: Tensor) -> Tensor:
    """Mean divergence of the distributions of logits `[n, choices]` from theirs, in nats."""
    return F.kl_div(mine.log_softmax(-1), theirs.log_softmax(-1), log_target=True, reduction="batchmean")


def _turned(skew: Tensor, begin: Tensor) -> Tensor:
    half = (skew - skew.T) / 2
    eye = torch.eye(len(half))
    cayley: Tensor = torch.linalg.solve(eye + half, eye - half)
    return cayley @ begin
