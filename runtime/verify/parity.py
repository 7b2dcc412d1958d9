"""Layer by layer, does a bundle compute what its checkpoint does? Against the torch network and the numpy oracle."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from moembed.inference.session import session_options, session_with_outputs
from moembed.models.network import NomicMoe
from moembed.models.oracle import Oracle
from moembed.verify.tolerances import Tolerance


@dataclass(frozen=True)
class Routing:
    """One MoE layer's decision: `expert_indices` `[T, top_k]` int64, `weights` `[T, top_k]`, and a reference's `margin` `[T]`.

    `margin` is how far the last chosen probability is above the first that was not chosen.
    """

    expert_indices: NDArray[np.int64]
    weights: NDArray[Any]
    margin: NDArray[Any] | None = None


@dataclass(frozen=True)
class Observation:
    """One text through one implementation: `embedding` `[hidden]`, every layer's `[T, hidden]`, and the routing by layer."""

    embedding: NDArray[Any]
    hidden_states: list[NDArray[Any]]
    routing: dict[int, Routing]


# The ops that put out a hidden state, in a float32 graph and in an INT8 one.
_NORMS = ("LayerNormalization", "AddNorm", "AddNormQuantize", "Int8Embedding", "Int4Embedding")
Observer = Callable[[list[int]], Observation]
_NEIGHBOURS = 10


@dataclass
class LayerRouting:
    """Agreement of one layer's router: tokens, tokens with the same experts, and near ties among the others."""

    tokens: int = 0
    same_experts: int = 0
    near_ties: int = 0
    max_abs: float = 0.0

    @property
    def share(self) -> float:
        """Share of the tokens with the same experts, 0 to 1."""
        return self.same_experts / self.tokens


@dataclass
class ParityReport:
    """The distance between a bundle and one reference, over some texts."""

    reference: str
    texts: int = 0
    tokens: int = 0
    hidden_max_abs: float = 0.0
    hidden_min_cosine: float = 1.0
    embedding_max_abs: float = 0.0
    embedding_min_cosine: float = 1.0
    embedding_mean_cosine: float = 1.0
    neighbour_overlap: float = 1.0
    routing: dict[int, LayerRouting] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every bound held."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """The report as plain data."""
        return asdict(self) | {"passed": self.passed}


def compare(
    reference: str, expected: Observer, found: Observer, texts: Iterable[list[int]], tolerance: Tolerance
) -> ParityReport:
    """Run texts (as token ids) through two implementations and measure how far apart they are.

    Where a token's choice of experts is a near tie, rounding may turn it, and what follows differs rightly: of such a text, what
    comes before that layer's experts is compared, and neither its later states nor its embedding.
    """
    report, judged = ParityReport(reference), 0
    wanted, given = [], []
    for ids in texts:
        want, got = expected(ids), found(ids)
        wanted.append(want.embedding)
        given.append(got.embedding)
        report.texts += 1
        report.tokens += len(ids)
        if len(want.hidden_states) != len(got.hidden_states) or want.routing.keys() != got.routing.keys():
            report.problems.append("the two have different layers")
            return report
        turned = _turned(want, got, tolerance)
        for a, b in zip(want.hidden_states[: turned + 1], got.hidden_states[: turned + 1], strict=True):
            report.hidden_max_abs = max(report.hidden_max_abs, _max_abs(a, b))
            report.hidden_min_cosine = min(report.hidden_min_cosine, _min_cosine(a, b))
        if turned == len(want.hidden_states):
            judged += 1
            report.embedding_max_abs = max(report.embedding_max_abs, _max_abs(want.embedding, got.embedding))
            cosine = _min_cosine(want.embedding[None], got.embedding[None])
            report.embedding_min_cosine = min(report.embedding_min_cosine, cosine)
            report.embedding_mean_cosine += (cosine - report.embedding_mean_cosine) / judged
        for layer, routing in want.routing.items():
            if layer <= turned:
                own = report.routing.setdefault(layer, LayerRouting())
                _compare_routing(own, routing, got.routing[layer], tolerance)
    if not judged:
        report.problems.append("every text has a near tie between experts: no embedding could be compared")
    report.neighbour_overlap = neighbour_overlap(np.array(wanted), np.array(given))
    _judge(report, tolerance)
    return report


def neighbour_overlap(expected: NDArray[Any], found: NDArray[Any], nearest: int = _NEIGHBOURS) -> float:
    """How much of every text's neighbourhood two models agree on.

    Args:
        expected: one model's embeddings of some texts, `[n, hidden]`, finite.
        found: the other's, of the same shape.
        nearest: neighbours of a text that count: those of greatest cosine among the other texts, of equal ones the first; all
            others where there are fewer.

    Returns:
        Mean over the texts of the share of its neighbours that are the same by both, 0 to 1; 1 for a single text.
    """
    count = min(nearest, len(expected) - 1)
    if count < 1:
        return 1.0
    ours, theirs = _nearest(expected, count), _nearest(found, count)
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in zip(ours, theirs, strict=True)]))


def observe_oracle(oracle: Oracle) -> Observer:
    """The numpy oracle as an observer."""

    def run(ids: list[int]) -> Observation:
        result = oracle.run(ids)
        routing = {
            i: Routing(r.expert_indices, r.weights, _margin(r.probabilities, r.expert_indices.shape[1]))
            for i, r in result.routing.items()
        }
        return Observation(result.embedding, list(result.hidden_states), routing)

    return run


def observe_network(network: NomicMoe) -> Observer:
    """The torch network as an observer."""
    import torch

    def run(ids: list[int]) -> Observation:
        states: list[NDArray[Any]] = []
        routing: dict[int, Routing] = {}
        hooks = [network.emb_ln.register_forward_hook(lambda _m, _i, out: states.append(out.numpy()))]
        for index, layer in enumerate(network.encoder.layers):
            hooks.append(layer.register_forward_hook(lambda _m, _i, out: states.append(out.numpy())))
            if index in network.config.moe_layers:

                def record(module: Any, inputs: Any, out: Any, index: int = index) -> None:
                    probabilities = torch.softmax(module.layer(inputs[0]), dim=-1).numpy()
                    margin = _margin(probabilities, network.config.top_k)
                    routing[index] = Routing(out[1].numpy(), out[0].numpy(), margin)

                router = network.get_submodule(f"encoder.layers.{index}.mlp.router")
                hooks.append(router.register_forward_hook(record))
        try:
            with torch.no_grad():
                embedding, _ = network(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))
        finally:
            for hook in hooks:
                hook.remove()
        return Observation(embedding[0].numpy(), states, routing)

    return run


def observe_graph(path: Path) -> Observer:
    """An ONNX file as an observer: its routers' and layers' outputs become graph outputs of a copy in memory."""
    model = onnx.load(path, load_external_data=False)
    states, routers = [], {}
    for node in model.graph.node:
        if node.op_type in _NORMS and any(n == "emb_ln.weight" or n.endswith("norm2.weight") for n in node.input):
            states.append(node.output[0])
        elif node.op_type == "Router":
            routers[int(node.input[1].split(".")[2])] = list(node.output)
    wanted = ["sentence_embedding", *states, *(name for pair in routers.values() for name in pair)]
    session = instrumented(model, path.parent, wanted[1:])

    def run(ids: list[int]) -> Observation:
        feed = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        values = dict(zip(wanted, session.run(wanted, feed), strict=True))
        routing = {layer: Routing(values[indices], values[weights]) for layer, (weights, indices) in routers.items()}
        return Observation(values["sentence_embedding"][0], [values[name] for name in states], routing)

    return run


def instrumented(model: onnx.ModelProto, folder: Path, values: list[str]) -> Any:
    """An ONNX Runtime session over a model in memory that gives further values out; its weights lie in `folder`."""
    return session_with_outputs(model.SerializeToString(), folder, values, session_options())


def _nearest(vectors: NDArray[Any], count: int) -> NDArray[np.int64]:
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def _turned(want: Observation, got: Observation, tolerance: Tolerance) -> int:
    """The first layer in which experts differ, all at near ties and with weight, or how many hidden states there are."""
    for layer, routing in sorted(want.routing.items()):
        if routing.margin is None or tolerance.margin is None:
            continue
        # An expert that has no weight, as beside one that has it all, adds nothing, whichever it is.
        differ = ~_same(routing, got.routing[layer]) & (routing.weights.min(axis=1) > tolerance.margin)
        if differ.any():
            return layer if (routing.margin[differ] <= tolerance.margin).all() else len(want.hidden_states)
    return len(want.hidden_states)


def _same(want: Routing, got: Routing) -> NDArray[np.bool_]:
    # Two chosen experts with equal weights may come in either order; what counts is the set.
    return np.asarray((np.sort(want.expert_indices, axis=1) == np.sort(got.expert_indices, axis=1)).all(axis=1))


def _compare_routing(total: LayerRouting, want: Routing, got: Routing, tolerance: Tolerance) -> None:
    same = _same(want, got)
    ordered = (want.expert_indices == got.expert_indices).all(axis=1)
    total.tokens += len(same)
    total.same_experts += int(same.sum())
    if want.margin is not None and tolerance.margin is not None:
        total.near_ties += int((~same & (want.margin <= tolerance.margin)).sum())
    if ordered.any():
        total.max_abs = max(total.max_abs, _max_abs(want.weights[ordered], got.weights[ordered]))


def _judge(report: ParityReport, tolerance: Tolerance) -> None:
    def demand(ok: bool, text: str) -> None:
        if not ok:
            report.problems.append(text)

    demand(bool(np.isfinite(report.embedding_max_abs)), "embeddings are not finite")
    if tolerance.hidden_max_abs is not None:
        demand(
            report.hidden_max_abs <= tolerance.hidden_max_abs,
            f"hidden states differ by {report.hidden_max_abs:.3g}, allowed {tolerance.hidden_max_abs:g}",
        )
    demand(
        report.embedding_min_cosine >= tolerance.embedding_min_cosine,
        f"embedding cosine {report.embedding_min_cosine:.9f}, demanded {tolerance.embedding_min_cosine}",
    )
    for layer, routing in report.routing.items():
        if tolerance.router_max_abs is not None:
            demand(
                routing.max_abs <= tolerance.router_max_abs,
                f"layer {layer}: router weights differ by {routing.max_abs:.3g}, allowed {tolerance.router_max_abs:g}",
            )
        if tolerance.margin is not None:
            flipped = routing.tokens - routing.same_experts - routing.near_ties
            demand(flipped == 0, f"layer {layer}: {flipped} tokens go to other experts without being near a tie")


def _margin(probabilities: NDArray[Any], top_k: int) -> NDArray[Any]:
    descending = -np.sort(-probabilities, axis=1)
    if descending.shape[1] == top_k:
        return np.full(len(descending), np.inf)
    return np.asarray(descending[:, top_k - 1] - descending[:, top_k])


def _max_abs(a: NDArray[Any], b: NDArray[Any]) -> float:
    return float(np.abs(a.astype(np.float64) - b).max()) if np.isfinite(b).all() else float("inf")


def _min_cosine(a: NDArray[Any], b: NDArray[Any]) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / np.maximum(lengths, 1e-300)).min())
