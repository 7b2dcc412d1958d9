"""Stamps of the vectors that an `Embedder` computes."""

from moembed.embedder import Embedder
from moembed.inference.cpu import cpu_name
from moembed.inference.kernels import PORTABLE
from moembed.stamps.stamp import Stamp
from moembed.truncation import Chunk, Overlong, policy_of
from moembed.version import __version__

# Recipes whose bundles compute no large product in floats. A product of floats depends on the processor.
_INTEGER_RECIPES = frozenset({"int8", "int8-table4"})


def stamp_of(
    embedder: Embedder,
    prompt: str,
    width: int,
    precision: str,
    overlong: Overlong,
    *,
    scale: float | None = None,
    normalized: bool = True,
) -> Stamp:
    """Return the stamp of vectors that `embedder` computes.

    Args:
        embedder: the model.
        prompt: text in front of every text.
        width: number of components of a vector.
        precision: as for `quantize_embeddings`.
        overlong: as for `Embedder.embed`.
        scale: of codes that share one scale.
        normalized: True if vectors have unit length before they are quantized.

    Raises:
        InputError: unknown policy.
    """
    bundle = embedder.bundle
    return Stamp(
        model=bundle.manifest.name,
        revision=bundle.hub[1] if bundle.hub else None,
        fingerprint=bundle.fingerprint,
        prompt=prompt,
        width=width,
        precision=precision,
        scale=scale,
        normalized=normalized,
        overlong=overlong_name(overlong),
        max_tokens=embedder.max_tokens,
        kernels=kernel_family(embedder),
        moembed=__version__,
    )


def overlong_name(overlong: Overlong) -> str:
    """Return one spelling for equal policies, such as `mean`, or `chunk, overlap 32`.

    Raises:
        InputError: unknown policy.
    """
    policy = policy_of(overlong)
    if not isinstance(policy, Chunk):
        return policy
    name = "mean" if policy.pooled else "chunk"
    return name if policy.overlap == Chunk().overlap else f"{name}, overlap {policy.overlap}"


def kernel_family(embedder: Embedder) -> str:
    """Return the family of kernels, and the processor if the bytes depend on it too: `native`, or `portable on <processor>`."""
    family = "portable" if embedder.kernels == PORTABLE else "native"
    if embedder.providers != ("CPUExecutionProvider",):
        return f"{family} on {embedder.providers[0]}"
    if embedder.bundle.manifest.recipe in _INTEGER_RECIPES:
        return family
    return f"{family} on {cpu_name()}"
