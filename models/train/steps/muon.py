"""Muon optimizer (Jordan et al. 2024): `torch.optim.Muon` in the dtype that the processor multiplies fastest.

Torch's own implementation always computes in bfloat16. A processor without bfloat16 emulates it, and such a step takes longer
than the gradients.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from moembed.train.precision import reduced_dtype

_MOMENTUM = 0.95
_QUINTIC = 3.4445, -4.775, 2.0315  # coefficients of the Newton-Schulz iteration
_ITERATIONS = 5
_EPSILON = 1e-7
_ADAMW_RMS = 0.2  # usual root mean square of AdamW's updates


class Muon(torch.optim.Optimizer):
    """Orthogonalized Nesterov momentum, scaled to the size of AdamW's updates.

    Args:
        matrices: two-dimensional parameters.
        learning_rate: of the steps.
        weight_decay: relative to the learning rate.
    """

    def __init__(self, matrices: Iterable[Tensor], learning_rate: float, weight_decay: float) -> None:
        super().__init__(matrices, {"lr": learning_rate, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Update every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - _MOMENTUM)
                update = orthogonalize(matrix.grad.lerp(momentum, _MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * _ADAMW_RMS * math.sqrt(max(matrix.shape)))


def orthogonalize(matrix: Tensor) -> Tensor:
    """Return approximately the nearest orthogonal matrix to `[n, m]`: its singular values become 0.7 to 1.2."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(reduced_dtype())
    x = x / x.norm().clamp(min=_EPSILON)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
