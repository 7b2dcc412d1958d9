"""Layer-by-layer comparison of a bundle with its reference: the torch network, the numpy oracle, or another bundle's graph."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray

from moembed.inference.session import session_options, session_with_outputs
from moembed.models.oracle import Oracle
from moembed.models.roles import Kind, role
from moembed.verify.outputs import ModelOutput, Routing, Runner
from moembed.verify.tolerances import Tolerance

if TYPE_CHECKING:
    from moembed.models.text_encoder import TextEncoder

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
    """Distance between a bundle and one reference, over some texts."""

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
        """True if every bound holds."""
        return not self.problems

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain data."""
        return asdict(self) | {"passed": self.passed}


def compare(
    reference: str, expected: Runner, found: Runner, texts: Iterable[list[int]], tolerance: Tolerance
) -> ParityReport:
    """Run texts through two implementations and measure the distance between their outputs.

    Where a token's choice of experts is a near tie, rounding may change it, and everything after that layer then differs. Such a
    text is compared up to the layer; its later hidden states and its embedding are not.

    Args:
        reference: name of the reference, for the report.
        expected: the reference.
        found: the implementation to judge.
        texts: token ids of each text.
        tolerance: bounds; the report lists what exceeds them.
    """
    report, embeddings_compared = ParityReport(reference), 0
    expected_embeddings, found_embeddings = [], []
    for ids in texts:
        a, b = expected(ids), found(ids)
        expected_embeddings.append(a.embedding)
        found_embeddings.append(b.embedding)
        report.texts += 1
        report.tokens += len(ids)
        if len(a.hidden_states) != len(b.hidden_states) or a.routing.keys() != b.routing.keys():
            report.problems.append("the two have different layers")
            return report
        last = _last_comparable(a, b, tolerance)
        for x, y in zip(a.hidden_states[: last + 1], b.hidden_states[: last + 1], strict=True):
            report.hidden_max_abs = max(report.hidden_max_abs, _max_abs(x, y))
            report.hidden_min_cosine = min(report.hidden_min_cosine, _min_cosine(x, y))
        if last == len(a.hidden_states):
            embeddings_compared += 1
            report.embedding_max_abs = max(report.embedding_max_abs, _max_abs(a.embedding, b.embedding))
            cosine = _min_cosine(a.embedding[None], b.embedding[None])
            report.embedding_min_cosine = min(report.embedding_min_cosine, cosine)
            report.embedding_mean_cosine += (cosine - report.embedding_mean_cosine) / embeddings_compared
        for layer, routing in a.routing.items():
            if layer <= last:
                total = report.routing.setdefault(layer, LayerRouting())
                _compare_routing(total, routing, b.routing[layer], tolerance)
    if not embeddings_compared:
        report.problems.append("every text has a near tie between experts: no embedding could be compared")
    report.neighbour_overlap = neighbour_overlap(np.array(expected_embeddings), np.array(found_embeddings))
    report.problems += _exceeded(report, tolerance)
    return report


def neighbour_overlap(expected: NDArray[Any], found: NDArray[Any], nearest: int = _NEIGHBOURS) -> float:
    """Measure how far two models agree on the nearest neighbours of every text.

    Args:
        expected: one model's embeddings of some texts, `[n, hidden]`, finite.
        found: the other's, of the same shape.
        nearest: number of neighbours of a text: the other texts of greatest cosine, of equal ones the first; all others where
            there are fewer.

    Returns:
        Mean over the texts of the share of neighbours that both models have, 0 to 1; 1 for a single text.
    """
    count = min(nearest, len(expected) - 1)
    if count < 1:
        return 1.0
    ours, theirs = _nearest(expected, count), _nearest(found, count)
    return float(np.mean([len(np.intersect1d(a, b)) / count for a, b in zip(ours, theirs, strict=True)]))


def oracle_runner(oracle: Oracle, texts: Iterable[list[int]] = ()) -> Runner:
    """Return a runner of the numpy oracle.

    Args:
        oracle: the oracle.
        texts: token ids of texts that the runner will get; they are computed now, together.
    """
    known = list(texts)
    results = {tuple(ids): result for ids, result in zip(known, oracle.run_all(known) if known else [], strict=True)}

    def run(ids: list[int]) -> ModelOutput:
        result = results.get(tuple(ids)) or oracle.run(ids)
        routing = {
            i: Routing(r.expert_indices, r.weights, _margin(r.probabilities, r.expert_indices.shape[1]))
            for i, r in result.routing.items()
        }
        return ModelOutput(result.embedding, list(result.hidden_states), routing)

    return run


def network_runner(network: "TextEncoder") -> Runner:
    """Return a runner of the torch network."""
    import torch

    def run(ids: list[int]) -> ModelOutput:
        states: list[NDArray[Any]] = []
        routing: dict[int, Routing] = {}
        hooks = [network.emb_ln.register_forward_hook(lambda _m, _i, out: states.append(out.numpy()))]
        for index, layer in enumerate(network.encoder.layers):
            hooks.append(layer.register_forward_hook(lambda _m, _i, out: states.append(out.numpy())))
            if index in network.config.moe_layers:

                def record(module: Any, inputs: Any, out: Any, index: int = index) -> None:
                    probabilities = torch.softmax(module.layer(inputs[0]), dim=-1).numpy()
                    margin = _margin(probabilities, out[0].shape[1])
                    routing[index] = Routing(out[1].numpy(), out[0].numpy(), margin)

                router = network.get_submodule(f"encoder.layers.{index}.mlp.router")
                hooks.append(router.register_forward_hook(record))
        try:
            with torch.no_grad():
                embedding, _ = network(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.int64))
        finally:
            for hook in hooks:
                hook.remove()
        return ModelOutput(embedding[0].numpy(), states, routing)

    return run


def graph_runner(path: Path) -> Runner:
    """Return a runner of an ONNX file, from a copy in memory that also outputs its routers' decisions and hidden states."""
    model = onnx.load(path, load_external_data=False)
    states: list[str] = []
    routers: dict[int, list[str]] = {}
    for node in model.graph.node:
        roles = [found for name in node.input if (found := role(name)) is not None]
        # Whatever reads a layer's last norm computes it, perhaps at the end of an operator that does more.
        if any(found.kind in (Kind.EMBEDDING_NORM, Kind.NORM2) for found in roles):
            states.append(node.output[0])
        elif node.op_type == "Router":
            routers.update({found.layer: list(node.output) for found in roles if found.layer is not None})
    names = [*states, *(name for outputs in routers.values() for name in outputs)]
    session = open_session(model, path.parent, names)
    names = ["sentence_embedding", *names]

    def run(ids: list[int]) -> ModelOutput:
        feed = {"input_ids": np.array([ids], np.int64), "attention_mask": np.ones((1, len(ids)), np.int64)}
        values = dict(zip(names, session.run(names, feed), strict=True))
        routing = {layer: Routing(values[indices], values[weights]) for layer, (weights, indices) in routers.items()}
        return ModelOutput(values["sentence_embedding"][0], [values[name] for name in states], routing)

    return run


def open_session(model: onnx.ModelProto, folder: Path, outputs: list[str]) -> Any:
    """Open an ONNX Runtime session over a model in memory.

    Args:
        model: the model, without its weights.
        folder: where the files of its weights lie.
        outputs: names of values of the graph to output beside its own outputs.
    """
    return session_with_outputs(model.SerializeToString(), folder, outputs, session_options())


def _nearest(vectors: NDArray[Any], count: int) -> NDArray[np.int64]:
    unit = vectors.astype(np.float64) / np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    return np.argsort(-cosines, axis=1, kind="stable")[:, :count]


def _last_comparable(expected: ModelOutput, found: ModelOutput, tolerance: Tolerance) -> int:
    """Return the first layer in which experts differ at near ties only, or the number of hidden states if there is none.

    The hidden states up to that layer's input, and its router, can be compared.
    """
    for layer, routing in sorted(expected.routing.items()):
        if routing.margin is None or tolerance.margin is None:
            continue
        # An expert of almost no weight beside one that has it all adds nothing, whichever it is.
        differ = ~_same_experts(routing, found.routing[layer]) & (routing.weights.min(axis=1) > tolerance.margin)
        if differ.any():
            return layer if (routing.margin[differ] <= tolerance.margin).all() else len(expected.hidden_states)
    return len(expected.hidden_states)


def _same_experts(expected: Routing, found: Routing) -> NDArray[np.bool_]:
    # Two experts of equal weight may come in either order, so sets are compared.
    a, b = np.sort(expected.expert_indices, axis=1), np.sort(found.expert_indices, axis=1)
    return np.asarray((a == b).all(axis=1))


def _compare_routing(total: LayerRouting, expected: Routing, found: Routing, tolerance: Tolerance) -> None:
    same = _same_experts(expected, found)
    ordered = (expected.expert_indices == found.expert_indices).all(axis=1)
    total.tokens += len(same)
    total.same_experts += int(same.sum())
    if expected.margin is not None and tolerance.margin is not None:
        total.near_ties += int((~same & (expected.margin <= tolerance.margin)).sum())
    if ordered.any():
        total.max_abs = max(total.max_abs, _max_abs(expected.weights[ordered], found.weights[ordered]))


def _exceeded(report: ParityReport, tolerance: Tolerance) -> list[str]:
    """Return a sentence for every bound that the report exceeds."""
    problems = []
    if not np.isfinite(report.embedding_max_abs):
        problems.append("embeddings are not finite")
    if tolerance.hidden_max_abs is not None and not report.hidden_max_abs <= tolerance.hidden_max_abs:
        problems.append(f"hidden states differ by {report.hidden_max_abs:.3g}, allowed {tolerance.hidden_max_abs:g}")
    if not report.embedding_min_cosine >= tolerance.embedding_min_cosine:
        problems.append(
            f"embedding cosine {report.embedding_min_cosine:.9f}, required {tolerance.embedding_min_cosine}"
        )
    for layer, routing in report.routing.items():
        if tolerance.router_max_abs is not None and not routing.max_abs <= tolerance.router_max_abs:
            problems.append(
                f"layer {layer}: router weights differ by {routing.max_abs:.3g}, allowed {tolerance.router_max_abs:g}"
            )
        changed = routing.tokens - routing.same_experts - routing.near_ties
        if tolerance.margin is not None and changed:
            problems.append(f"layer {layer}: {changed} tokens are routed to other experts without a near tie")
    return problems


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
