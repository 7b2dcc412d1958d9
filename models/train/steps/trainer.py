"""Gradient steps that can be interrupted between checkpoints: what every kind of training here shares.

The layers' matrices are moved by Muon, all else, tables, routers and vectors, by AdamW at the same rate.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from moembed.files.paths import replacing_file
from moembed.models.network import Block, NomicMoe
from moembed.progress import Advance
from moembed.train.convert.student import PROJECTION
from moembed.train.recipe import Steps
from moembed.train.steps.muon import Muon


def is_matrix(name: str, value: Tensor) -> bool:
    """Whether Muon moves a parameter: its steps are alike in every direction, which is right for neither tables nor routers."""
    return value.ndim == 2 and "embeddings" not in name and "router" not in name


class Descent:
    """A training run; its kinds give `_gradient` and `_judge`.

    Args:
        network: trained in place, all of it but the projection.
        choices: of the steps.
        steps: how many there are.
        log: told what was found at every checkpoint.
        layers: of the network, the only ones that are trained; None for all of it.

    Attributes:
        steps: how many there are in all.
        report: what was found at every checkpoint.
    """

    def __init__(
        self,
        network: NomicMoe,
        choices: Steps,
        steps: int,
        log: Callable[[str], None],
        *,
        layers: Sequence[Block] | None = None,
    ) -> None:
        self._network, self._choices, self._log, self.steps = network, choices, log, steps
        moved = set(network.parameters() if layers is None else (own for block in layers for own in block.parameters()))
        self._names = {
            name: value
            for name, value in network.named_parameters()
            if value in moved and not name.startswith(PROJECTION)
        }
        muon = [value for name, value in self._names.items() if is_matrix(name, value)]
        adam = [value for name, value in self._names.items() if not is_matrix(name, value)]
        self._optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] = (
            Muon(muon, choices.rate, choices.decay),
            torch.optim.AdamW(adam, choices.rate, betas=(0.9, 0.98), weight_decay=choices.decay),
        )
        self._done = 0
        self.report: list[dict[str, float]] = []

    def run(self, state: Path, advance: Advance) -> None:
        """Take all steps, going on from what an earlier run left.

        Args:
            state: the file where it is kept.
            advance: told of every step done.
        """
        for value in self._names.values():
            value.requires_grad_(True)
        if state.is_file():
            self._restore(state)
            advance(self._done)
        else:
            self._tell({})
        sums: dict[str, list[float]] = defaultdict(list)
        while self._done < self.steps:
            for name, part in self._step().items():
                sums[name].append(part)
            advance(1)
            if self._done % self._choices.save_every == 0 or self._done == self.steps:
                self._tell({name: round(sum(parts) / len(parts), 5) for name, parts in sums.items()})
                sums.clear()
                self._save(state)
        self._network.requires_grad_(False)

    def _gradient(self, step: int) -> dict[str, float]:
        """Leave the gradient of a step's loss in the parameters, and return the parts of that loss."""
        raise NotImplementedError

    def _judge(self) -> dict[str, float]:
        """How good the network is, on held-out text."""
        raise NotImplementedError

    def _step(self) -> dict[str, float]:
        rise = min(1.0, (self._done + 1) / max(self._choices.warmup, 1))
        fall = 0.5 * (1 + math.cos(math.pi * self._done / self.steps))
        self._network.zero_grad(set_to_none=True)
        parts = self._gradient(self._done)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), self._choices.clip)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = self._choices.rate * rise * fall
            optimizer.step()
        self._done += 1
        return parts

    def _tell(self, parts: dict[str, float]) -> None:
        found = {"step": self._done, **parts, **self._judge()}
        self.report.append(found)
        self._log(json.dumps(found))

    def _save(self, path: Path) -> None:
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        for name in self._names:
            tensors |= {f"{kind}.{name}": value for kind, value in self._moments(name).items()}
        with replacing_file(path) as partial:
            save_file(tensors, partial, metadata={"report": json.dumps(self.report)})

    def _restore(self, path: Path) -> None:
        with safe_open(path, framework="pt") as handle:
            self.report = json.loads(handle.metadata()["report"])
            names = self._network.state_dict()
            self._network.load_state_dict({name: handle.get_tensor(f"network.{name}") for name in names})
            for key in handle.keys():  # noqa: SIM118  (the handle cannot be iterated over)
                kind, _, name = key.partition(".")
                if kind != "network":
                    self._moments(name)[kind] = handle.get_tensor(key)
        self._done = int(self.report[-1]["step"])

    def _moments(self, name: str) -> dict[str, Tensor]:
        """What the optimizer of a parameter remembers of its gradients."""
        parameter = self._names[name]
        muon, adam = self._optimizers
        moments: dict[str, Tensor] = (muon if is_matrix(name, parameter) else adam).state[parameter]
        return moments
