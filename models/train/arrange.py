"""The order of an encoder's coordinates, which nobody sees until an embedding is cut: the telling ones go first, at no loss."""

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.models.network import NomicMoe

_OUTPUTS = ("attn.out_proj.weight", "mlp.fc2.weight")  # `[hidden, inner]`: their rows are the coordinates


def order(vectors: Tensor) -> Tensor:
    """Coordinates `[hidden]` int64, each chosen so that those so far give similarities most like the whole vectors'.

    The similarities of centred vectors are a sum of one matrix per coordinate; the best multiple of the chosen ones' sum is as
    near to the whole as its correlation with it says. All of that follows from the coordinates' products.

    Args:
        vectors: embeddings `[texts, hidden]`.
    """
    centred = F.normalize(vectors, dim=-1).double()
    centred = centred - centred.mean(0)
    products = (centred.T @ centred).square()
    whole = products.sum(1)
    chosen: list[int] = []
    explained, size, overlap = 0.0, 0.0, torch.zeros_like(whole)
    left = torch.ones(len(whole), dtype=torch.bool)
    for _ in range(len(whole)):
        gains = (explained + whole).square() / (size + 2 * overlap + products.diagonal()).clamp(min=1e-300)
        best = int(gains.masked_fill(~left, -1).argmax())
        explained += float(whole[best])
        size += float(2 * overlap[best] + products[best, best])
        overlap += products[best]
        left[best] = False
        chosen.append(best)
    return torch.tensor(chosen)


def permute(network: NomicMoe, coordinates: Tensor) -> None:
    """Put the coordinates of the residual stream in another order, in place: embeddings are the same but for their order.

    Args:
        network: every weight that reads or writes the stream is changed.
        coordinates: `[hidden]` int64, the old place of each.
    """
    with torch.no_grad():
        for name, value in network.named_parameters():
            if name.endswith(_OUTPUTS):
                value.copy_(value[coordinates])
            elif not name.endswith(("attn.Wqkv.bias", "mlp.fc1.bias")):
                value.copy_(value[..., coordinates])
