"""The conversion: layer by layer, each piece that changes is fitted again to what the teacher computes on the same text.

Every layer reads what the student's earlier layers really give and aims at the teacher's own states, so that errors are corrected
rather than handed on. What is chosen is chosen on held-out text.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  (torch's own convention)

from moembed.files.paths import replacing_file
from moembed.models.network import Block, DenseMlp, MoeMlp, NomicMoe
from moembed.progress import Advance
from moembed.train.convert import experts, rotary, student
from moembed.train.convert.experts import Rows
from moembed.train.convert.moments import Fit, Moments, ridge
from moembed.train.convert.teacher import Step, Teacher, TeacherLayer
from moembed.train.precision import reduced
from moembed.train.recipe import Recipe

SIDES = ("learned", "held")
_CHUNK = 16384  # rows at a time where texts no longer matter
_PROMPT = 5  # tokens at the start that all texts share
_FEW = 8
_SAMPLE = 20000  # rows that show where the weak directions are


@dataclass
class Side:
    """Texts on their way through both encoders.

    Attributes:
        ids: the student's ids, batch by batch `[texts, length]`.
        teacher: the teacher's states before the layer at hand, `[texts, length, hidden]` float32.
        student: the student's.
    """

    ids: list[Tensor]
    teacher: list[Tensor] = field(default_factory=list)
    student: list[Tensor] = field(default_factory=list)

    def pooled_cosine(self) -> float:
        """Mean cosine between the two encoders' means over the tokens of a text."""
        pairs = zip(self.student, self.teacher, strict=True)
        cosines = [F.cosine_similarity(s.mean(1), t.mean(1), dim=-1) for s, t in pairs]
        return float(torch.cat(cosines).mean())


class Conversion:
    """A conversion that can be interrupted after every layer.

    Args:
        teacher: what to convert.
        network: what to convert it to; its weights are written in place.
        kept: the teacher's id of each of the student's.
        recipe: the choices.
        learned: ids to learn from, batch by batch.
        held: ids to choose by.
        log: told what was found.
    """

    def __init__(
        self,
        teacher: Teacher,
        network: NomicMoe,
        kept: Tensor,
        recipe: Recipe,
        learned: list[Tensor],
        held: list[Tensor],
        log: Callable[[str], None],
    ) -> None:
        self._teacher, self._network, self._kept, self._recipe, self._log = teacher, network, kept, recipe, log
        self._sides = {"learned": Side(learned), "held": Side(held)}
        self.report: list[dict[str, Any]] = []

    def run(self, folder: Path, advance: Advance) -> None:
        """Convert all layers, going on from what `folder` holds of an earlier run.

        Args:
            folder: where the state is kept.
            advance: told of every layer done.
        """
        state = folder / "conversion.safetensors"
        with torch.no_grad():
            if state.is_file():
                self._restore(state)
                advance(len(self.report))
            else:
                self._start()
            layers = student.blocks(self._network)
            for index in range(len(self.report), len(layers)):
                self._layer(index, layers[index])
                self._save(state)
                advance(1)

    def _start(self) -> None:
        network, teacher = self._network, self._teacher
        words = torch.zeros_like(network.embeddings.word_embeddings.weight)
        words[: len(self._kept)] = teacher.words(self._kept)
        network.embeddings.word_embeddings.weight.copy_(words)
        lengths = torch.tensor([ids.shape[1] for ids in self._sides["learned"].ids for _ in range(len(ids))])
        reach = (lengths[:, None] > torch.arange(teacher.max_tokens)).sum(0).float()
        mean = (teacher.positions * reach[:, None]).sum(0) / reach.sum()
        network.embeddings.token_type_embeddings.weight.copy_((teacher.type_row + mean)[None])
        network.emb_ln.weight.copy_(teacher.norm_weight)
        network.emb_ln.bias.copy_(teacher.norm_bias)
        for side in self._sides.values():
            side.teacher = [teacher.embed(self._kept[ids]) for ids in side.ids]
            side.student = [student.embed(network, ids) for ids in side.ids]

    def _layer(self, index: int, block: Block) -> None:
        source = self._teacher.layers[index]
        for norm, weight, bias in (
            (block.norm1, source.norm1_weight, source.norm1_bias),
            (block.norm2, source.norm2_weight, source.norm2_bias),
        ):
            norm.weight.copy_(weight)
            norm.bias.copy_(bias)
        steps = {side: self._teacher_step(index, side) for side in SIDES}
        self._steady(steps)
        found: dict[str, Any] = {"layer": index, "divergence": self._attend(block, source, steps)}
        fit = self._project(block, source, {side: [step.attended for step in own] for side, own in steps.items()})
        found |= _described("attention", fit)
        rows = {
            side: list(self._rows(self._sides[side].student, [step.mixed for step in own]))
            for side, own in steps.items()
        }
        del steps
        if isinstance(block.mlp, DenseMlp):
            fit = self._dense(block.mlp, source, rows)
        elif isinstance(block.mlp, MoeMlp):
            fit, found["mass"] = self._mixture(block.mlp, source, rows)
            found["load"] = _load(block.mlp, rows["held"])
        found |= _described("mlp", fit)
        for side in self._sides.values():
            with reduced():
                side.student = [block.norm2(h + student.feed_forward(block, h)[0]).float() for h in side.student]
        found["cosine"] = round(self._sides["held"].pooled_cosine(), 5)
        self._log(json.dumps(found))
        self.report.append(found)

    def _teacher_step(self, index: int, side: str) -> list[Step]:
        """Run a layer of the teacher, and move its states on."""
        texts, steps = self._sides[side], []
        for number, x in enumerate(texts.teacher):
            with reduced():
                step = self._teacher.step(index, x)
            texts.teacher[number] = step.out.float()
            steps.append(
                Step(step.probabilities.bfloat16(), step.attended.float(), step.mixed.float(), texts.teacher[number])
            )
        return steps

    def _steady(self, steps: dict[str, list[Step]]) -> None:
        """Take what only the position says out of the targets, in place: the student cannot know it, and it is noise to a fit."""
        for name in ("attended", "mixed"):
            part = position_part([getattr(step, name) for step in steps["learned"]], self._teacher.max_tokens)
            for own in steps.values():
                for step in own:
                    inner: Tensor = getattr(step, name)[:, :-1]
                    inner -= part[: inner.shape[1]]

    def _attend(self, block: Block, source: TeacherLayer, steps: dict[str, list[Step]]) -> list[float]:
        """Set queries, keys and values; the divergence from the teacher's attention on held-out text before and after tuning."""
        learned = self._sides["learned"]
        flat = torch.cat([x.flatten(0, 1) for x in learned.student])
        moments = rotary.second_moments(flat[:: max(1, len(flat) // _SAMPLE)])
        q, q_bias, k, k_bias = rotary.rebase(source, self._teacher.heads, moments)
        block.attn.Wqkv.weight.copy_(torch.cat([q, k, source.v_weight]))
        block.attn.Wqkv.bias.copy_(torch.cat([q_bias, k_bias, source.v_bias]))
        choices, batches = self._recipe.attend, len(learned.ids)
        before = self._divergence(block, steps["held"])
        tuner = rotary.Tuner(block.attn, choices, choices.passes * batches)
        generator = torch.Generator().manual_seed(self._recipe.seed + len(self.report))
        for _ in range(choices.passes):
            for number in torch.randperm(batches, generator=generator).tolist():
                with reduced():
                    probabilities = steps["learned"][number].probabilities
                    tuner.step(learned.student[number], probabilities, self._network.cos, self._network.sin)
        return [round(before, 5), round(self._divergence(block, steps["held"]), 5)]

    def _divergence(self, block: Block, steps: list[Step]) -> float:
        total, texts = 0.0, 0
        for x, step in zip(self._sides["held"].student, steps, strict=True):
            with reduced():
                scores = student.scores(block.attn, x, self._network.cos, self._network.sin)
            total, texts = total + float(rotary.divergence(scores, step.probabilities)) * len(x), texts + len(x)
        return total / texts

    def _project(self, block: Block, source: TeacherLayer, attended: dict[str, list[Tensor]]) -> Fit:
        """Solve for the output projection, and move the student's states to behind the first norm."""
        sums = {}
        contexts: dict[str, list[Tensor]] = {}
        for side, targets in attended.items():
            texts = self._sides[side]
            moments = Moments(self._teacher.hidden, self._teacher.hidden)
            contexts[side] = []
            for x, target in zip(texts.student, targets, strict=True):
                with reduced():
                    mixed = student.context(block.attn, x, self._network.cos, self._network.sin).float()
                contexts[side].append(mixed)
                flat = target.flatten(0, 1)
                moments.add(mixed.flatten(0, 1), flat - x.flatten(0, 1), _weight(flat))
            sums[side] = moments
        fit = ridge(sums["learned"], sums["held"], source.out_weight.T, self._recipe.convert.strengths)
        block.attn.out_proj.weight.copy_(fit.weight.T)
        block.attn.out_proj.bias.copy_(fit.bias)
        for side, mixed_batches in contexts.items():
            texts = self._sides[side]
            texts.student = [
                block.norm1(x + block.attn.out_proj(mixed))
                for x, mixed in zip(texts.student, mixed_batches, strict=True)
            ]
        return fit

    def _rows(self, states: list[Tensor], targets: list[Tensor]) -> Iterator[Rows]:
        h, wanted = (torch.cat([x.flatten(0, 1) for x in batches]) for batches in (states, targets))
        for read, target in zip(torch.split(h, _CHUNK), torch.split(wanted, _CHUNK), strict=True):
            yield Rows(read, target - read, _weight(target))

    def _dense(self, mlp: DenseMlp, source: TeacherLayer, rows: dict[str, list[Rows]]) -> Fit:
        mlp.fc1.weight.copy_(source.up_weight)
        mlp.fc1.bias.copy_(source.up_bias)
        sums = {side: Moments(self._teacher.ffn, self._teacher.hidden) for side in rows}
        for side, pairs in rows.items():
            for own in pairs:
                with reduced():
                    inner = F.gelu(mlp.fc1(own.read)).float()
                sums[side].add(inner, own.wanted, own.weight)
        fit = ridge(sums["learned"], sums["held"], source.down_weight.T, self._recipe.convert.strengths)
        mlp.fc2.weight.copy_(fit.weight.T)
        mlp.fc2.bias.copy_(fit.bias)
        return fit

    def _mixture(self, mlp: MoeMlp, source: TeacherLayer, rows: dict[str, list[Rows]]) -> tuple[Fit, float]:
        """Solve for a mixture with each sharpness of its router, and keep the one that does best on held-out text."""
        h = torch.cat([own.read for own in rows["learned"]])
        best: tuple[Fit, float, dict[str, Tensor]] | None = None
        for mass in self._recipe.convert.mass:
            generator = torch.Generator().manual_seed(self._recipe.seed)
            experts.divide(mlp, source, h, mass, generator)
            fit = experts.solve(mlp, rows["learned"], rows["held"], self._recipe.convert.strengths)
            if best is None or fit.error < best[0].error:
                best = fit, mass, {name: value.clone() for name, value in mlp.state_dict().items()}
        if best is None:
            raise ValueError("a recipe needs at least one mass")
        mlp.load_state_dict(best[2])
        return best[0], best[1]

    def _save(self, path: Path) -> None:
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        for side in SIDES:
            texts = self._sides[side]
            for kind in ("teacher", "student"):
                tensors |= {f"{side}.{kind}.{n}": x.contiguous() for n, x in enumerate(getattr(texts, kind))}
        with replacing_file(path) as partial:
            save_file(tensors, partial, metadata={"report": json.dumps(self.report)})

    def _restore(self, path: Path) -> None:
        with safe_open(path, framework="pt") as handle:
            self.report = json.loads(handle.metadata()["report"])
            names = self._network.state_dict()
            self._network.load_state_dict({name: handle.get_tensor(f"network.{name}") for name in names})
            for side in SIDES:
                texts = self._sides[side]
                for kind in ("teacher", "student"):
                    own = [handle.get_tensor(f"{side}.{kind}.{n}") for n in range(len(texts.ids))]
                    setattr(texts, kind, own)


def position_part(states: list[Tensor], positions: int) -> Tensor:
    """What states of different texts share at each position, less what they share everywhere.

    The first tokens, special ones and prompts, are the same in all texts, and so is the last one, whose states are huge: what
    they share is no matter of position, and they are left out. Where texts are few their mean is drawn towards zero.

    Args:
        states: `[texts, length, hidden]` each.
        positions: how many there are.

    Returns:
        `[positions, hidden]`.
    """
    total, texts = torch.zeros(positions, states[0].shape[-1]), torch.zeros(positions, 1)
    for batch in states:
        inner = batch[:, :-1]
        total[: inner.shape[1]] += inner.sum(0)
        texts[: inner.shape[1]] += len(inner)
    total[:_PROMPT], texts[:_PROMPT] = 0, 0
    mean = total.sum(0) / texts.sum().clamp(min=1)
    return (total - texts * mean) / (texts + _FEW)


def _described(name: str, fit: Fit) -> dict[str, float]:
    return {f"{name}_error": round(fit.error, 5), f"{name}_strength": fit.strength}


def _load(mlp: MoeMlp, rows: list[Rows]) -> list[float]:
    """Each expert's share of the choices."""
    expert_indices = torch.cat([student.route(mlp, own.read).expert_indices.flatten() for own in rows])
    shares = torch.bincount(expert_indices, minlength=mlp.experts.num_experts) / len(expert_indices)
    return [round(float(share), 3) for share in shares]


def _weight(state: Tensor) -> Tensor:
    """What an error in rows `[n, hidden]` is divided by in the norm that follows: tokens with huge states do not rule a fit."""
    return 1 / state.std(-1, keepdim=True, correction=0)
