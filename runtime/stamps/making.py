"""Stamps of the vectors that an `Embedder` computes."""

from collections.abc import Callable
from typing import Protocol

from moembed.arguments import one_of
from moembed.bundle.bundle import Bundle
from moembed.inference.cpu import cpu_name
from moembed.inference.kernels import PORTABLE
from moembed.precision import PRECISIONS, Precision, shares_scale
from moembed.stamps.stamp import Stamp
from moembed.truncation import Chunk, Overlong, policy_name, policy_of
from moembed.version import __version__

# Recipes whose bundles compute no large product in floats. A product of floats depends on the processor.
_INTEGER_RECIPES = frozenset({"int8", "int8-table4"})


class Model(Protocol):
    """Part of an `Embedder` that decides the bytes of vectors; its attributes are described there."""

    @property
    def bundle(self) -> Bundle: ...  # noqa: D102
    @property
    def max_tokens(self) -> int: ...  # noqa: D102
    @property
    def kernels(self) -> str: ...  # noqa: D102
    @property
    def providers(self) -> tuple[str, ...]: ...  # noqa: D102


class CodingModel(Model, Protocol):
    """Part of an `Embedder` that decides the bytes of codes too."""

    def int8_scale(self, truncate_dim: int | None = None, *, normalize_embeddings: bool = True) -> float: ...  # noqa: D102


def stamp_of(
    embedder: CodingModel,
    prompt: str,
    width: int | None = None,
    precision: Precision = "float32",
    overlong: Overlong = "error",
    *,
    normalized: bool = True,
) -> Stamp:
    """Return the stamp of vectors that an `Embedder` computes.

    Args:
        embedder: the model.
        prompt: text in front of every text, such as `embedder.prompt_for("document")`.
        width: number of components of a vector; None for all.
        precision: as for `quantize_embeddings`.
        overlong: as for `Embedder.embed`.
        normalized: True if vectors have unit length before they are quantized.

    Raises:
        InputError: unknown precision or policy.
    """
    bundle, precision = embedder.bundle, one_of("precision", precision, PRECISIONS)
    shared = shares_scale(precision)
    return Stamp(
        model=bundle.manifest.name,
        revision=bundle.hub[1] if bundle.hub else None,
        fingerprint=bundle.fingerprint,
        prompt=prompt,
        width=bundle.manifest.hidden_size if width is None else width,
        precision=precision,
        scale=embedder.int8_scale(width, normalize_embeddings=normalized) if shared else None,
        normalized=normalized,
        overlong=overlong_name(overlong),
        max_tokens=embedder.max_tokens,
        kernels=kernel_family(embedder),
        moembed=__version__,
    )


def overlong_name(overlong: Overlong) -> str:
    """Return one spelling for equal policies, such as `mean`, `chunk, overlap 32` or `late, overlap 64, tokens 128`.

    A function of spans is named, not compared: whoever changes what it does gives it another name.

    Raises:
        InputError: unknown policy.
    """
    policy = policy_of(overlong)
    if not isinstance(policy, Chunk):
        return policy
    if policy.late:
        by = policy.spans
        windows = f"tokens {policy.tokens}" if by is None else f"spans by {_function_name(by)}"
        return f"{policy_name(policy)}, overlap {policy.overlap}, {windows}"
    name = policy_name(policy)
    return name if policy.overlap == Chunk().overlap else f"{name}, overlap {policy.overlap}"


def _function_name(function: Callable[..., object]) -> str:
    kind = function if hasattr(function, "__qualname__") else type(function)
    return f"{kind.__module__}.{kind.__qualname__}"


def kernel_family(embedder: Model) -> str:
    """Return the family of kernels, and the processor if the bytes depend on it too: `native`, or `portable on <processor>`."""
    family = "portable" if embedder.kernels == PORTABLE else "native"
    if embedder.providers != ("CPUExecutionProvider",):
        return f"{family} on {embedder.providers[0]}"
    if embedder.bundle.manifest.recipe in _INTEGER_RECIPES:
        return family
    return f"{family} on {cpu_name()}"
