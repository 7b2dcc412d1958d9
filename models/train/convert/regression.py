"""Linear regression from sums over batches: nothing that grows with the text is kept."""

from dataclasses import dataclass

import torch
from torch import Tensor


class Moments:
    """Sums of products of inputs `[n, k]` and targets `[n, m]`, with a constant input added, in float32 on float64 totals."""

    def __init__(self, inputs: int, targets: int) -> None:
        """Start from nothing.

        Args:
            inputs: k; the constant is one more.
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
            weight: `[n, 1]` float32, by which a row's error counts, not squared.
            columns: which those are, int64; None for all.
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
        """Mean squared error, of a number, of `solution` `[k + 1, m]`, whose last row meets the constant."""
        explained = 2 * (solution * self.cross).sum() - (solution * (self.gram @ solution)).sum()
        return (self.energy - float(explained)) / max(self.count * solution.shape[1], 1)


@dataclass(frozen=True)
class Fit:
    """A regression whose regularization was chosen on held-out text.

    Attributes:
        weight: `[k, m]` float32.
        bias: `[m]` float32.
        strength: the chosen one.
        error: mean squared error on held-out text, a number of it.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    error: float


def ridge(learned: Moments, held: Moments, start: Tensor, strengths: list[float]) -> Fit:
    """Least squares, drawn towards `start` by the strength that does best on held-out text.

    Args:
        learned: moments of the text to learn from.
        held: moments of the held-out text.
        start: `[k, m]` float32, the weights that the penalty keeps near.
        strengths: of the penalty, in units of the inputs' mean square.
    """
    inputs = len(start)
    scale = float(learned.gram.diagonal()[:inputs].mean())
    prior = torch.cat([start.double(), start.new_zeros(1, start.shape[1], dtype=torch.float64)])
    fits = []
    for strength in strengths:
        penalty = torch.full((inputs + 1,), strength * scale, dtype=torch.float64)
        penalty[-1] = 1e-6 * float(
            learned.gram[-1, -1]
        )  # the constant is free, but a penalty of nothing can be singular
        system = learned.gram + torch.diag(penalty)
        solution = torch.linalg.solve(system, learned.cross + penalty[:, None] * prior)
        fits.append((held.error(solution), strength, solution))
    error, strength, solution = min(fits, key=lambda fit: fit[0])
    return Fit(solution[:-1].float(), solution[-1].float(), strength, error)
