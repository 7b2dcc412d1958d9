"""Layer-by-layer conversion: every part that changes is fitted to what the teacher computes on the same text.

Each layer reads the actual output of the student's earlier layers and targets the teacher's own states, so that errors are
corrected and not passed on. Hyperparameters are selected on validation text.
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
from moembed.models.nomic_bert_moe.network import MoeMlp, NomicMoe
from moembed.models.text_encoder import Block, DenseMlp
from moembed.progress import Advance
from moembed.train.convert import experts, rotary, student
from moembed.train.convert.experts import MlpRows
from moembed.train.convert.regression import NormalEquations, RidgeFit, ridge
from moembed.train.convert.teacher import LayerOutputs, Teacher, TeacherLayer
from moembed.train.precision import reduced_precision
from moembed.train.recipe import Recipe

_SPLITS = ("train", "validation")
_CHUNK = 16384  # rows at a time, after the texts are flattened
_PROMPT_TOKENS = 5  # at the start, common to all texts
_SHRINKAGE = 8  # texts that a mean needs to count for half
_SAMPLE = 20000  # rows for the second moments


@dataclass
class SplitStates:
    """States of the texts of a split in both encoders.

    Attributes:
        ids: the student's token ids, one tensor `[texts, length]` per batch.
        teacher: the teacher's states before the current layer, `[texts, length, hidden]` float32.
        student: the student's.
    """

    ids: list[Tensor]
    teacher: list[Tensor] = field(default_factory=list)
    student: list[Tensor] = field(default_factory=list)

    def pooled_cosine(self) -> float:
        """Return the mean cosine of the two encoders' mean-pooled states."""
        pairs = zip(self.student, self.teacher, strict=True)
        cosines = [F.cosine_similarity(s.mean(1), t.mean(1), dim=-1) for s, t in pairs]
        return float(torch.cat(cosines).mean())


class Conversion:
    """Conversion of all layers, which can be interrupted after every layer.

    Args:
        teacher: the network to convert.
        network: the student; its weights are written in place.
        kept_ids: the teacher's token id of each of the student's.
        recipe: the hyperparameters.
        train: token ids of the training text, batch by batch.
        validation: token ids of the validation text.
        log: called with the results of each layer.

    Attributes:
        report: results of every layer.
    """

    def __init__(
        self,
        teacher: Teacher,
        network: NomicMoe,
        kept_ids: Tensor,
        recipe: Recipe,
        train: list[Tensor],
        validation: list[Tensor],
        log: Callable[[str], None],
    ) -> None:
        self._teacher, self._network, self._kept_ids = teacher, network, kept_ids
        self._recipe, self._log = recipe, log
        self._splits = {"train": SplitStates(train), "validation": SplitStates(validation)}
        self.report: list[dict[str, Any]] = []

    def run(self, folder: Path, advance: Advance) -> None:
        """Convert all layers, resuming from the state in `folder`.

        Args:
            folder: folder of the state.
            advance: called after every layer.
        """
        state = folder / "conversion.safetensors"
        with torch.no_grad():
            if state.is_file():
                self._restore(state)
                advance(len(self.report))
            else:
                self._convert_embeddings()
            layers = student.blocks(self._network)
            for index in range(len(self.report), len(layers)):
                self._convert_layer(index, layers[index])
                self._save(state)
                advance(1)

    def _convert_embeddings(self) -> None:
        network, teacher = self._network, self._teacher
        words = torch.zeros_like(network.embeddings.word_embeddings.weight)
        words[: len(self._kept_ids)] = teacher.words(self._kept_ids)
        network.embeddings.word_embeddings.weight.copy_(words)
        lengths = torch.tensor([ids.shape[1] for ids in self._splits["train"].ids for _ in range(len(ids))])
        texts_with = (lengths[:, None] > torch.arange(teacher.max_tokens)).sum(0).float()
        mean = (teacher.positions * texts_with[:, None]).sum(0) / texts_with.sum()
        network.embeddings.token_type_embeddings.weight.copy_((teacher.type_row + mean)[None])
        network.emb_ln.weight.copy_(teacher.norm_weight)
        network.emb_ln.bias.copy_(teacher.norm_bias)
        for split in self._splits.values():
            split.teacher = [teacher.embed(self._kept_ids[ids]) for ids in split.ids]
            split.student = [student.embed(network, ids) for ids in split.ids]

    def _convert_layer(self, index: int, block: Block) -> None:
        source = self._teacher.layers[index]
        for norm, weight, bias in (
            (block.norm1, source.norm1_weight, source.norm1_bias),
            (block.norm2, source.norm2_weight, source.norm2_bias),
        ):
            norm.weight.copy_(weight)
            norm.bias.copy_(bias)
        outputs = {name: self._run_teacher_layer(index, name) for name in _SPLITS}
        self._remove_position_component(outputs)
        results: dict[str, Any] = {"layer": index, "divergence": self._fit_attention(block, source, outputs)}
        targets = {name: [one.after_attention for one in batches] for name, batches in outputs.items()}
        fit = self._fit_output_projection(block, source, targets)
        results |= _described("attention", fit)
        rows = {
            name: list(self._rows(self._splits[name].student, [one.after_mlp for one in batches]))
            for name, batches in outputs.items()
        }
        del outputs, targets
        if isinstance(block.mlp, DenseMlp):
            fit = self._fit_dense(block.mlp, source, rows)
        elif isinstance(block.mlp, MoeMlp):
            fit, results["router_mass"] = self._fit_mixture(block.mlp, source, rows)
            results["load"] = _load(block.mlp, rows["validation"])
        results |= _described("mlp", fit)
        for split in self._splits.values():
            with reduced_precision():
                split.student = [block.norm2(h + student.feed_forward(block, h)[0]).float() for h in split.student]
        results["cosine"] = round(self._splits["validation"].pooled_cosine(), 5)
        self._log(json.dumps(results))
        self.report.append(results)

    def _run_teacher_layer(self, index: int, name: str) -> list[LayerOutputs]:
        """Run a layer of the teacher, and advance its states."""
        split, outputs = self._splits[name], []
        for number, x in enumerate(split.teacher):
            with reduced_precision():
                found = self._teacher.run_layer(index, x)
            split.teacher[number] = found.out.float()
            outputs.append(
                LayerOutputs(
                    found.probabilities.bfloat16(),
                    found.after_attention.float(),
                    found.after_mlp.float(),
                    split.teacher[number],
                )
            )
        return outputs

    def _remove_position_component(self, outputs: dict[str, list[LayerOutputs]]) -> None:
        """Subtract from the targets, in place, what depends on the position alone: the student cannot know it."""
        for name in ("after_attention", "after_mlp"):
            states = [getattr(one, name) for one in outputs["train"]]
            component = position_component(states, self._teacher.max_tokens)
            for batches in outputs.values():
                for one in batches:
                    inner: Tensor = getattr(one, name)[:, :-1]
                    inner -= component[: inner.shape[1]]

    def _fit_attention(self, block: Block, source: TeacherLayer, outputs: dict[str, list[LayerOutputs]]) -> list[float]:
        """Set queries, keys and values, and return the divergence on validation text before and after tuning."""
        train = self._splits["train"]
        flat = torch.cat([x.flatten(0, 1) for x in train.student])
        moments = rotary.second_moments(flat[:: max(1, len(flat) // _SAMPLE)])
        q, q_bias, k, k_bias = rotary.principal_basis(source, self._teacher.heads, moments)
        block.attn.Wqkv.weight.copy_(torch.cat([q, k, source.v_weight]))
        block.attn.Wqkv.bias.copy_(torch.cat([q_bias, k_bias, source.v_bias]))
        recipe, batches = self._recipe.attention, len(train.ids)
        before = self._attention_divergence(block, outputs["validation"])
        tuner = rotary.AttentionTuner(block.attn, recipe, recipe.epochs * batches)
        generator = torch.Generator().manual_seed(self._recipe.seed + len(self.report))
        for _ in range(recipe.epochs):
            for number in torch.randperm(batches, generator=generator).tolist():
                with reduced_precision():
                    probabilities = outputs["train"][number].probabilities
                    tuner.step(train.student[number], probabilities, self._network.cos, self._network.sin)
        return [round(before, 5), round(self._attention_divergence(block, outputs["validation"]), 5)]

    def _attention_divergence(self, block: Block, outputs: list[LayerOutputs]) -> float:
        total, texts = 0.0, 0
        for x, one in zip(self._splits["validation"].student, outputs, strict=True):
            with reduced_precision():
                scores = student.scores(block.attn, x, self._network.cos, self._network.sin)
            total += float(rotary.attention_divergence(scores, one.probabilities)) * len(x)
            texts += len(x)
        return total / texts

    def _fit_output_projection(self, block: Block, source: TeacherLayer, targets: dict[str, list[Tensor]]) -> RidgeFit:
        """Solve for attention's output projection, and advance the student's states to the output of the first norm."""
        equations = {}
        contexts: dict[str, list[Tensor]] = {}
        for name, batches in targets.items():
            split = self._splits[name]
            sums = NormalEquations(self._teacher.hidden, self._teacher.hidden)
            contexts[name] = []
            for x, target in zip(split.student, batches, strict=True):
                with reduced_precision():
                    context = student.context(block.attn, x, self._network.cos, self._network.sin).float()
                contexts[name].append(context)
                flat = target.flatten(0, 1)
                sums.add(context.flatten(0, 1), flat - x.flatten(0, 1), _row_weight(flat))
            equations[name] = sums
        strengths = self._recipe.conversion.ridge_strengths
        fit = ridge(equations["train"], equations["validation"], source.out_weight.T, strengths)
        block.attn.out_proj.weight.copy_(fit.weight.T)
        block.attn.out_proj.bias.copy_(fit.bias)
        for name, own_contexts in contexts.items():
            split = self._splits[name]
            split.student = [
                block.norm1(x + block.attn.out_proj(context))
                for x, context in zip(split.student, own_contexts, strict=True)
            ]
        return fit

    def _rows(self, states: list[Tensor], targets: list[Tensor]) -> Iterator[MlpRows]:
        inputs, wanted = (torch.cat([x.flatten(0, 1) for x in batches]) for batches in (states, targets))
        for chunk, target in zip(torch.split(inputs, _CHUNK), torch.split(wanted, _CHUNK), strict=True):
            yield MlpRows(chunk, target - chunk, _row_weight(target))

    def _fit_dense(self, mlp: DenseMlp, source: TeacherLayer, rows: dict[str, list[MlpRows]]) -> RidgeFit:
        mlp.fc1.weight.copy_(source.up_weight)
        mlp.fc1.bias.copy_(source.up_bias)
        equations = {name: NormalEquations(self._teacher.ffn, self._teacher.hidden) for name in rows}
        for name, chunks in rows.items():
            for chunk in chunks:
                with reduced_precision():
                    inner = F.gelu(mlp.fc1(chunk.inputs)).float()
                equations[name].add(inner, chunk.targets, chunk.weight)
        strengths = self._recipe.conversion.ridge_strengths
        fit = ridge(equations["train"], equations["validation"], source.down_weight.T, strengths)
        mlp.fc2.weight.copy_(fit.weight.T)
        mlp.fc2.bias.copy_(fit.bias)
        return fit

    def _fit_mixture(self, mlp: MoeMlp, source: TeacherLayer, rows: dict[str, list[MlpRows]]) -> tuple[RidgeFit, float]:
        """Solve for a mixture at each router mass, and keep the one with the least error on validation text."""
        recipe = self._recipe.conversion
        h = torch.cat([chunk.inputs for chunk in rows["train"]])
        best: tuple[RidgeFit, float, dict[str, Tensor]] | None = None
        for mass in recipe.router_mass:
            generator = torch.Generator().manual_seed(self._recipe.seed)
            experts.split_dense(mlp, source, h, mass, generator)
            fit = experts.solve_outer_weights(mlp, rows["train"], rows["validation"], recipe.ridge_strengths)
            if best is None or fit.error < best[0].error:
                best = fit, mass, {name: value.clone() for name, value in mlp.state_dict().items()}
        if best is None:
            raise ValueError("a recipe needs at least one router_mass")
        mlp.load_state_dict(best[2])
        return best[0], best[1]

    def _save(self, path: Path) -> None:
        tensors = {f"network.{name}": value for name, value in self._network.state_dict().items()}
        for name, split in self._splits.items():
            for encoder in ("teacher", "student"):
                states = enumerate(getattr(split, encoder))
                tensors |= {f"{name}.{encoder}.{number}": x.contiguous() for number, x in states}
        with replacing_file(path) as partial:
            save_file(tensors, partial, metadata={"report": json.dumps(self.report)})

    def _restore(self, path: Path) -> None:
        with safe_open(path, framework="pt") as handle:
            self.report = json.loads(handle.metadata()["report"])
            names = self._network.state_dict()
            self._network.load_state_dict({name: handle.get_tensor(f"network.{name}") for name in names})
            for name, split in self._splits.items():
                for encoder in ("teacher", "student"):
                    states = [handle.get_tensor(f"{name}.{encoder}.{number}") for number in range(len(split.ids))]
                    setattr(split, encoder, states)


def position_component(states: list[Tensor], positions: int) -> Tensor:
    """Return what the states of different texts have in common at each position, less what they have in common everywhere.

    The first tokens (special token and prompt) are the same in all texts, and so is the last one, whose states are huge. What
    they have in common does not come from the position, so they are left out. Where texts are few, their mean is shrunk towards
    zero.

    Args:
        states: `[texts, length, hidden]` each.
        positions: number of positions.

    Returns:
        `[positions, hidden]`.
    """
    total, texts = torch.zeros(positions, states[0].shape[-1]), torch.zeros(positions, 1)
    for batch in states:
        inner = batch[:, :-1]
        total[: inner.shape[1]] += inner.sum(0)
        texts[: inner.shape[1]] += len(inner)
    total[:_PROMPT_TOKENS], texts[:_PROMPT_TOKENS] = 0, 0
    mean = total.sum(0) / texts.sum().clamp(min=1)
    return (total - texts * mean) / (texts + _SHRINKAGE)


def _described(name: str, fit: RidgeFit) -> dict[str, float]:
    return {f"{name}_error": round(fit.error, 5), f"{name}_strength": fit.strength}


def _load(mlp: MoeMlp, rows: list[MlpRows]) -> list[float]:
    """Return each expert's share of the routing decisions."""
    expert_indices = torch.cat([student.route(mlp, chunk.inputs).expert_indices.flatten() for chunk in rows])
    shares = torch.bincount(expert_indices, minlength=mlp.experts.num_experts) / len(expert_indices)
    return [round(float(share), 3) for share in shares]


def _row_weight(state: Tensor) -> Tensor:
    """Return the factor by which the following norm scales errors in rows `[n, hidden]`, so that huge states do not dominate."""
    return 1 / state.std(-1, keepdim=True, correction=0)
