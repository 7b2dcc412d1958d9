"""Check of published examples: a bundle of a known model's weights must give the numbers that others published for them.

An fp32 bundle is held to the tolerance of each example, component by component. A quantized bundle is held to its recipe: a
recipe's tolerance is the smallest cosine c between a vector and that of the reference, which for vectors of equal length is a
relative error of `sqrt(2 - 2c)`, 0.14 for 0.99. `_SHARES` says how much of it each kind of example may use.

Two decisions of a router are compared by the probabilities they imply: an expert that one of the two did not choose is at most
as probable there as the last expert chosen. So an exchange of two experts at a near tie counts as their small difference.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.bundle.certificate import ReproducedExample
from moembed.models.examples import (
    EmbeddingExample,
    Example,
    Examples,
    HiddenStatesExample,
    PooledExample,
    RoutingExample,
    SimilarityExample,
)
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.outputs import ModelOutput, Routing, Runner
from moembed.verify.tolerances import Tolerance

Array = NDArray[np.float64]
# Shares of the recipe's relative error, 0.14 for int8. Measured with int8 over 22 texts on the built-in model, and on two random
# checkpoints of 4 and 12 layers, whose experts differ more, so that an exchange of two changes more:
# - similarity: 0.004; 0.004 and 0.035.
# - pooled vector: 0.02; 0.01 and 0.09.
# - six components of nine tokens, whose errors no mean reduces: 0.03; 0.03 and 0.13.
# - router weights: 0.01; 0.01 and 0.02.
# Six components of an embedding: 0.08 on all-MiniLM-L6-v2, over its 40 probe texts.
# Renormalized router weights are off by 0.4, and a wrong number of experts is refused whatever the weights. INT8 cannot resolve
# tanh for erf (0.004): what a quantized bundle is compared with is held to that.
_SHARES: dict[type[Example], float] = {
    SimilarityExample: 0.5,
    PooledExample: 1.0,
    EmbeddingExample: 2.0,
    HiddenStatesExample: 2.0,
    RoutingExample: 1.0,
}


@dataclass(frozen=True)
class ExampleResult:
    """Result of one example.

    Attributes:
        example: the example.
        expected: the published value where it is furthest from the one found.
        found: the value found there.
        error: largest absolute difference for an fp32 bundle, relative error for a quantized one; infinite if the two cannot be
            compared.
        allowed: largest error allowed.
        near_tie: True if an error above `allowed` is excused by a near tie between experts.
    """

    example: Example
    expected: str
    found: str
    error: float
    allowed: float
    near_tie: bool = False

    @property
    def passed(self) -> bool:
        """True if the example is reproduced, or cannot be judged: because of a near tie, or because it is unresolved."""
        return self.near_tie or bool(self.example.unresolved) or self.error <= self.allowed

    def __str__(self) -> str:
        error = f" (error {self.error:.3g}, allowed {self.allowed:.3g})" if math.isfinite(self.error) else ""
        return (
            f"{self.example.name}: expected {self.expected}, found {self.found}{error}; source: {self.example.source}"
            + (f"; not judged: {self.example.unresolved}" if self.example.unresolved else "")
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the result as plain data."""
        return {
            "name": self.example.name,
            "source": self.example.source,
            "expected": self.expected,
            "found": self.found,
            "error": self.error if math.isfinite(self.error) else None,
            "allowed": self.allowed,
            "near_tie": self.near_tie,
            "unresolved": self.example.unresolved,
            "passed": self.passed,
        }

    def record(self) -> ReproducedExample:
        """Return the figures for the certificate."""
        return ReproducedExample(self.example.source, self.error, self.allowed, self.near_tie)


def run_examples(
    examples: Examples,
    prompts: Mapping[str, str],
    tokenizer: Tokenizer,
    found: Runner,
    tolerance: Tolerance,
    reference: Runner | None = None,
    excused: Collection[str] = (),
) -> list[ExampleResult]:
    """Run published examples through an implementation of the model.

    Args:
        examples: the examples.
        prompts: prompt name -> text in front.
        tokenizer: tokenizer of the bundle.
        found: the implementation to judge.
        tolerance: of an fp32 bundle, or of the recipe of a quantized one.
        reference: implementation that knows the margins of its routers. With it, an example of an fp32 bundle that fails is
            excused if one of its texts has a near tie, which the source may have decided the other way.
        excused: names of examples that are excused for the same reason, as a certificate says.
    """
    return [
        _run(example, prompts, tokenizer, found, tolerance, reference, example.name in excused)
        for example in examples.all
    ]


def _run(
    example: Example,
    prompts: Mapping[str, str],
    tokenizer: Tokenizer,
    found: Runner,
    tolerance: Tolerance,
    reference: Runner | None,
    excused: bool,
) -> ExampleResult:
    allowed = example.tolerance if tolerance.exact else _SHARES[type(example)] * tolerance.relative_error
    for text in example.texts:
        if text.prompt and text.prompt not in prompts:
            names = ", ".join(prompts) or "none"
            return ExampleResult(example, f"the prompt {text.prompt!r}", f"the prompts: {names}", math.inf, allowed)
        prompt = prompts[text.prompt] if text.prompt else ""
        (ids,) = (found_ids.tolist() for found_ids in tokenizer.encode([prompt + text.text]))
        if ids != list(text.ids):
            return ExampleResult(
                example, f"the token ids {list(text.ids)} of {prompt + text.text!r}", f"{ids}", math.inf, allowed
            )
    compared = _compare(example, [found(list(text.ids)) for text in example.texts])
    if not isinstance(compared, _Comparison):
        return ExampleResult(example, *compared, math.inf, allowed)
    error = compared.max_abs if tolerance.exact else compared.relative
    near_tie = False
    if tolerance.exact and math.isfinite(error) and error > allowed:
        outputs = [reference(list(text.ids)) for text in example.texts] if reference else []
        near_tie = excused or any(_has_near_tie(example, output) for output in outputs)
    return ExampleResult(example, *compared.furthest(), error, allowed, near_tie)


@dataclass(frozen=True)
class _Comparison:
    """Numbers of an example.

    Attributes:
        expected: `[n]`, the published numbers.
        found: `[n]`, those found.
        difference: `[n]`, their distances, at least 0.
        labels: `[n]`, what each number is, if that needs saying.
    """

    expected: Array
    found: Array
    difference: Array
    labels: Sequence[str] = ()

    @property
    def max_abs(self) -> float:
        return _finite(float(self.difference.max()))

    @property
    def relative(self) -> float:
        return _finite(float(np.linalg.norm(self.difference) / np.linalg.norm(self.expected)))

    def furthest(self) -> tuple[str, str]:
        """Return expected and found number where they differ most."""
        at = int(np.nan_to_num(self.difference, nan=np.inf).argmax())
        label = f" ({self.labels[at]})" if self.labels else ""
        return f"{self.expected[at]:.7g}{label}", f"{self.found[at]:.7g}"


def _compare(example: Example, outputs: list[ModelOutput]) -> _Comparison | tuple[str, str]:
    """Compare outputs with an example; return expected and found in words if their shapes differ."""
    last = np.asarray(outputs[0].hidden_states[-1], np.float64)
    match example:
        case SimilarityExample():
            first, second = (np.asarray(output.embedding, np.float64) for output in outputs)
            cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
            return _numbers([example.cosine], [cosine], ["cosine"])
        case PooledExample():
            pooled = last[0] if example.pooling == "cls" else last.mean(axis=0)
            values = pooled[:: example.every][: len(example.values)]
            return _numbers(example.values, values, [f"component {i * example.every}" for i in range(len(values))])
        case EmbeddingExample():
            embedding = np.asarray(outputs[0].embedding, np.float64)
            indices = np.arange(len(embedding))
            at = [*indices[: len(example.first)], *indices[len(embedding) - len(example.last) :]]
            labels = [f"component {i}" for i in at]
            return _numbers([*example.first, *example.last], embedding[at], labels)
        case HiddenStatesExample():
            rows = last[list(example.tokens)]
            ends, expected = rows[:, example.skipped :][:, : len(example.first[0])], np.array(example.first)
            if example.last:
                ends = np.concatenate([ends, rows[:, -len(example.last[0]) :]], axis=1)
                expected = np.concatenate([expected, example.last], axis=1)
            labels = [f"token {token}" for token in example.tokens for _ in range(ends.shape[1])]
            return _numbers(expected, ends, labels)
        case RoutingExample():
            return _compare_routing(example, outputs[0].routing.get(example.layer))
    raise TypeError(f"no comparison of {type(example).__name__}")


def _numbers(expected: Any, found: Any, labels: Sequence[str]) -> _Comparison | tuple[str, str]:
    a, b = np.ravel(np.asarray(expected, np.float64)), np.ravel(np.asarray(found, np.float64))
    if a.shape != b.shape:
        return f"{a.size} numbers", f"{b.size}"
    return _Comparison(a, b, np.abs(a - b), labels)


def _compare_routing(example: RoutingExample, found: Routing | None) -> _Comparison | tuple[str, str]:
    indices, weights = np.array(example.expert_indices).T, np.array(example.weights).T
    if found is None:
        return f"a router in layer {example.layer}", "none"
    if found.expert_indices.shape != indices.shape:
        return f"{indices.shape[1]} experts per token", f"{found.expert_indices.shape[1]}"
    count = 1 + int(max(indices.max(), found.expert_indices.max()))
    expected, expected_bound = _probabilities(indices, weights, count)
    ours, our_bound = _probabilities(found.expert_indices, found.weights, count)
    # Distance of two intervals; that of a chosen expert is a point.
    difference = np.maximum(np.maximum(expected - our_bound, ours - expected_bound), 0)
    chosen = (expected > 0) | (ours > 0)
    labels = [f"weight of expert {expert} for token {token}" for token, expert in np.argwhere(chosen).tolist()]
    return _Comparison(expected[chosen], ours[chosen], difference[chosen], labels)


def _probabilities(indices: NDArray[Any], weights: NDArray[Any], count: int) -> tuple[Array, Array]:
    """Return the smallest and the largest probability of each expert for each token, `[T, count]` each."""
    lower = np.zeros((len(indices), count))
    upper = np.repeat(weights.min(axis=1, keepdims=True).astype(np.float64), count, axis=1)
    np.put_along_axis(lower, indices, weights, axis=1)
    np.put_along_axis(upper, indices, weights, axis=1)
    return lower, upper


def _has_near_tie(example: Example, output: ModelOutput) -> bool:
    """Check whether a router before the compared output had a near tie that matters."""
    for layer, routing in output.routing.items():
        if routing.margin is None or (isinstance(example, RoutingExample) and layer >= example.layer):
            continue
        # An expert of almost no weight adds nothing, whichever it is.
        if ((routing.margin <= example.margin) & (routing.weights.min(axis=1) > example.margin)).any():
            return True
    return False


def _finite(error: float) -> float:
    return error if math.isfinite(error) else math.inf
