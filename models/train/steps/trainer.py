"""Training loop that can be interrupted between checkpoints, common to all kinds of gradient steps.

Muon updates the matrices of the layers. AdamW updates tables, routers and vectors at the same learning rate.
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
from moembed.models.nomic_bert_moe.network import NomicMoe
from moembed.models.text_encoder import Block
from moembed.progress import Advance
from moembed.train.convert.student import PROJECTION_PREFIX
from moembed.train.recipe import StepsRecipe
from moembed.train.steps.muon import Muon


def uses_muon(name: str, value: Tensor) -> bool:
    """Check whether Muon updates a parameter: its orthogonal updates are wrong for embedding tables and routers."""
    return value.ndim == 2 and "embeddings" not in name and "router" not in name


class Trainer:
    """Training loop; subclasses implement `_backward` and `_validate`.

    Args:
        network: trained in place, except the projection.
        recipe: of the steps.
        steps: total number of steps.
        log: called with the results of every checkpoint.
        layers: the only layers that are trained; None trains the whole network.

    Attributes:
        steps: total number of steps.
        report: results of every checkpoint.
    """

    def __init__(
        self,
        network: NomicMoe,
        recipe: StepsRecipe,
        steps: int,
        log: Callable[[str], None],
        *,
        layers: Sequence[Block] | None = None,
    ) -> None:
        self._network, self._steps_recipe, self._log, self.steps = network, recipe, log, steps
        trained = set(network.parameters() if layers is None else (p for block in layers for p in block.parameters()))
        self._parameters = {
            name: value
            for name, value in network.named_parameters()
            if value in trained and not name.startswith(PROJECTION_PREFIX)
        }
        muon = [value for name, value in self._parameters.items() if uses_muon(name, value)]
        adam = [value for name, value in self._parameters.items() if not uses_muon(name, value)]
        self._optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer] = (
            Muon(muon, recipe.learning_rate, recipe.weight_decay),
            torch.optim.AdamW(adam, recipe.learning_rate, betas=(0.9, 0.98), weight_decay=recipe.weight_decay),
        )
        self._done = 0
        self.report: list[dict[str, float]] = []

    def run(self, state: Path, advance: Advance) -> None:
        """Take all steps, resuming from the state of an earlier run.

        Args:
            state: file of the state.
            advance: called after every step.
        """
        for value in self._parameters.values():
            value.requires_grad_(True)
        if state.is_file():
            self._restore(state)
            advance(self._done)
        else:
            self._add_report({})
        sums: dict[str, list[float]] = defaultdict(list)
        while self._done < self.steps:
            for name, part in self._step().items():
                sums[name].append(part)
            advance(1)
            if self._done % self._steps_recipe.save_every == 0 or self._done == self.steps:
                self._add_report({name: round(sum(parts) / len(parts), 5) for name, parts in sums.items()})
                sums.clear()
                self._save(state)
        self._network.requires_grad_(False)

    def _backward(self, step: int) -> dict[str, float]:
        """Add the gradient of a step's loss to the parameters, and return the parts of that loss."""
        raise NotImplementedError

    def _validate(self) -> dict[str, float]:
        """Measure the network on the validation split."""
        raise NotImplementedError

    def _step(self) -> dict[str, float]:
        recipe = self._steps_recipe
        warmup = min(1.0, (self._done + 1) / max(recipe.warmup_steps, 1))
        decay = 0.5 * (1 + math.cos(math.pi * self._done / self.steps))
        self._network.zero_grad(set_to_none=True)
        parts = self._backward(self._done)
        torch.nn.utils.clip_grad_norm_(self._network.parameters(), recipe.max_grad_norm)
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate * warmup * decay
            optimizer.step()
        self._done += 1
        return parts

    def _add_report(self, parts: dict[str, float]) -> None:
        results = {"step": self._done, **parts, **self._validate()}
        self.report.append(results)
        self._log(json.dumps(results))

    def _save(self, path: Path) -> None:
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        for name in self._parameters:
            tensors |= {f"{kind}.{name}": value for kind, value in self._optimizer_state(name).items()}
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
                    self._optimizer_state(name)[kind] = handle.get_tensor(key)
        self._done = int(self.report[-1]["step"])

    def _optimizer_state(self, name: str) -> dict[str, Tensor]:
        """Return the state of a parameter's optimizer, which can be changed in place."""
        parameter = self._parameters[name]
        muon, adam = self._optimizers
        state: dict[str, Tensor] = (muon if uses_muon(name, parameter) else adam).state[parameter]
        return state
