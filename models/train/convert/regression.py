"""Ridge regression from sums over batches, so that memory does not grow with the text."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


class NormalEquations:
    """Sums of products of inputs `[n, k]` and targets `[n, m]`, with a constant input; float32 products, float64 sums."""

    def __init__(self, inputs: int, targets: int) -> None:
        """Start with empty sums.

        Args:
            inputs: k, without the constant.
            targets: m.
        """
        self.gram = torch.zeros(inputs + 1, inputs + 1, dtype=torch.float64)
        self.cross = torch.zeros(inputs + 1, targets, dtype=torch.float64)
        self.energy = 0.0
        self.count = 0

    def add(self, inputs: Tensor, targets: Tensor, weight: Tensor, columns: Tensor | None = None) -> None:
        """Add a batch.

        Args:
            inputs: `[n, k]` float32, or only the columns that are not zero in this batch.
            targets: `[n, m]` float32.
            weight: `[n, 1]` float32, factor of each row's error before it is squared.
            columns: indices of the given columns, int64; None for all.
        """
        extended, targets = torch.cat([inputs * weight, weight], 1), targets * weight
        gram, cross = (extended.T @ extended).double(), (extended.T @ targets).double()
        if columns is None:
            self.gram += gram
            self.cross += cross
        else:
            places = torch.cat([columns, torch.tensor([len(self.gram) - 1])])
            self.gram[places[:, None], places[None, :]] += gram
            self.cross[places] += cross
        self.energy += float(targets.double().square().sum())
        self.count += len(inputs)

    def error(self, solution: Tensor) -> float:
        """Return the mean squared error per component of `solution` `[k + 1, m]`, whose last row belongs to the constant."""
        explained = 2 * (solution * self.cross).sum() - (solution * (self.gram @ solution)).sum()
        return (self.energy - float(explained)) / max(self.count * solution.shape[1], 1)


@dataclass(frozen=True)
class RidgeFit:
    """Regression with the penalty that is best on validation text.

    Attributes:
        weight: `[k, m]` float32.
        bias: `[m]` float32.
        strength: of the selected penalty.
        error: mean squared error per component on validation text.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    error: float


def ridge(train: NormalEquations, validation: NormalEquations, prior: Tensor, strengths: Sequence[float]) -> RidgeFit:
    """Solve least squares with a penalty on the distance from `prior`; the strength is selected on validation text.

    Args:
        train: sums over the training text.
        validation: sums over the validation text.
        prior: `[k, m]` float32, the weights that the penalty keeps near.
        strengths: candidates for the penalty, in units of the inputs' mean square.
    """
    inputs = len(prior)
    scale = float(train.gram.diagonal()[:inputs].mean())
    extended = torch.cat([prior.double(), prior.new_zeros(1, prior.shape[1], dtype=torch.float64)])
    fits = []
    for strength in strengths:
        penalty = torch.full((inputs + 1,), strength * scale, dtype=torch.float64)
        # The constant is free; a penalty of exactly zero could make the system singular.
        penalty[-1] = 1e-6 * float(train.gram[-1, -1])
        system = train.gram + torch.diag(penalty)
        solution = torch.linalg.solve(system, train.cross + penalty[:, None] * extended)
        fits.append((validation.error(solution), strength, solution))
    error, strength, solution = min(fits, key=lambda fit: fit[0])
    return RidgeFit(solution[:-1].float(), solution[-1].float(), strength, error)
