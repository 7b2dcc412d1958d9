"""Muon (Jordan et al. 2024), which moves a matrix alike in every direction: `torch.optim.Muon`, at the speed of the processor.

Torch's own always computes in bfloat16. A processor without it emulates that: such steps take longer than the gradients.
"""

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from moembed.train.precision import reduced_dtype

_MOMENTUM = 0.95
_QUINTIC = 3.4445, -4.775, 2.0315  # of the Newton-Schulz iteration
_ITERATIONS = 5
_EPSILON = 1e-7
_LIKE_ADAM = 0.2  # root mean square of AdamW's usual steps


class Muon(torch.optim.Optimizer):
    """Nesterov's momentum, made orthogonal, in steps as large as AdamW's.

    Args:
        matrices: two-dimensional parameters.
        rate: of the steps.
        decay: weight decay.
    """

    def __init__(self, matrices: Iterable[Tensor], rate: float, decay: float) -> None:
        super().__init__(matrices, {"lr": rate, "weight_decay": decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            for matrix in group["params"]:
                if matrix.grad is None:
                    continue
                state = self.state[matrix]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(matrix)
                momentum = state["momentum_buffer"].lerp_(matrix.grad, 1 - _MOMENTUM)
                update = orthogonal(matrix.grad.lerp(momentum, _MOMENTUM))
                matrix.mul_(1 - group["lr"] * group["weight_decay"])
                matrix.add_(update, alpha=-group["lr"] * _LIKE_ADAM * math.sqrt(max(matrix.shape)))


def orthogonal(matrix: Tensor) -> Tensor:
    """About the orthogonal matrix nearest to `[n, m]`: its singular values become 0.7 to 1.2."""
    a, b, c = _QUINTIC
    tall = matrix.shape[0] > matrix.shape[1]
    x = (matrix.T if tall else matrix).to(reduced_dtype())
    x = x / x.norm().clamp(min=_EPSILON)
    for _ in range(_ITERATIONS):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.T if tall else x).to(matrix.dtype)
