"""Tolerances of the tests; those of the product are in `moembed.verify.tolerances`."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from moembed.verify.tolerances import Tolerance

# The torch network and the float64 numpy oracle: the error of float32 arithmetic.
REFERENCE = Tolerance(hidden_max_abs=5e-5, embedding_min_cosine=0.9999999, router_max_abs=5e-6, margin=1e-6)
# A float32 vector and that of the same text with another batch composition, order or padding; zero on all machines tried.
INVARIANCE_MAX_ABS = 1e-6

# The torch network and the graph functions, float32, and a float64 oracle, on inputs of magnitude one.
OP_MAX_ABS = 2e-5
# Published results of the tiny networks, printed with nine digits, and the float64 oracle.
PUBLISHED_MAX_ABS = 1e-7
# The torch network and transformers' own class, or the same network with pads: float32, sums in another order.
TRANSFORMERS_MAX_ABS = 5e-6
# A mutation of the network counts as caught if it moves a hidden state by more than this factor times the tolerance of a
# correct export.
MUTATION_FACTOR = 3.0
# Two unit vectors computed in the same way with different dtypes or precisions.
FLOAT16_MAX_ABS = 5e-4
# One component of the built-in model's vectors is common to all texts, about 0.84: it determines the scale of an int8 vector.
INT8_MIN_COSINE = 0.999
# With the scale of the bundle, which is that of its largest probe text.
INT8_ONE_SCALE_MIN_COSINE = 0.998
# Length of an int8 vector of one scale, in units of that scale.
INT8_LENGTH = 0.02
UNIT_LENGTH = 1e-6
# The built-in model and the fp32 bundle that it was quantized from: mean over the probe texts.
INT8_DEFAULT_MEAN_COSINE = 0.9995
# Scales of a quantized GELU output, with two implementations of GELU: the kernels' is 2.6e-5 off at most.
SCALE_RELATIVE = 3e-5
# Vectors of real weights by an fp32 bundle, and by another float32 implementation.
FLOAT32_MAX_ABS = 1e-5
# all-MiniLM-L6-v2 in INT8 and transformers in float32, over texts of all kinds: 45 of them, of which some are one character.
# Measured: 0.99934 and 0.99705.
MINILM_INT8_MEAN_COSINE = 0.9992
MINILM_INT8_MIN_COSINE = 0.996
# multilingual-e5-small in INT8, over the probe texts. Measured: mean 0.99989, least 0.99972.
E5_INT8_COSINE = 0.9995
# nDCG@10 of MiniLM's INT8 bundle relative to its fp32 bundle, on each English set.
MINILM_INT8_NDCG = 0.003
# Random weights and few channels: a real model is far closer, and its tolerance is measured on real text.
INT8_SMALL_MIN_COSINE = 0.995
# INT8 vectors of two kinds of processors: the last bit of a float32 value can change quantized values.
PROCESSORS_MIN_COSINE = 0.999
# A native kernel against the function that it stands for, float32 both: sums in another order, another exp, a GELU that is
# 2.6e-5 off at most.
KERNEL_MAX_ABS = 1e-5
# The same where a value may round to the next integer: the share of such values, and the change of an expert's result.
KERNEL_QUANTIZED_APART = 1e-3
# The same after a GELU: the least step of a quantized GELU is 200 times its error.
KERNEL_GELU_APART = 1e-2
KERNEL_EXPERT_MAX_ABS = 0.03
# Whole vectors by kernels and by the functions.
KERNEL_MIN_COSINE = 0.9995

# Another tool that runs a bundle's graph, against moembed by the same functions: it pads, and may pool in NumPy or PyTorch.
INTEROP_MAX_ABS = 1e-6
# The same against moembed by its native kernels.
INTEROP_KERNELS_MAX_ABS = {"fp32": KERNEL_MAX_ABS, "int8": 0.01}
# The same where ONNX Runtime adds pairs of INT8 products in 16 bits, which saturate: x86 without VNNI, and no way to widen them.
INTEROP_SATURATED_MAX_ABS = 0.05


def cosine_of_bits(vectors: NDArray[Any]) -> NDArray[Any]:
    """Cosines `[n]` of unit vectors `[n, dim]` to their signs: exactly what a bit a dimension keeps of them."""
    return np.asarray(np.abs(vectors).sum(axis=1) / np.sqrt(vectors.shape[1]))
