"""Run nomic-embed-text-v2-moe with ONNX Runtime: matches the reference, batch-invariant, no PyTorch at inference time.

>>> from moembed import Embedder
>>> model = Embedder.from_pretrained()
>>> model.encode_query("how do I run it?").shape
(384,)
"""

from moembed.embedder import Embedder
from moembed.embedding import Embedding
from moembed.errors import MoembedError, MoembedWarning
from moembed.inference.routing import Routing
from moembed.inference.telemetry import disable_telemetry
from moembed.precision import QuantizedEmbeddings, dequantize_embeddings, quantize_embeddings
from moembed.rescoring import Rescored, rescore
from moembed.stamps.loading import load_vectors, save_vectors
from moembed.stamps.making import stamp_of
from moembed.stamps.stamp import Stamp
from moembed.stamps.stamped import StampedVectors
from moembed.truncation import Chunk
from moembed.version import __version__

__all__ = [
    "Chunk",
    "Embedder",
    "Embedding",
    "MoembedError",
    "MoembedWarning",
    "QuantizedEmbeddings",
    "Rescored",
    "Routing",
    "Stamp",
    "StampedVectors",
    "__version__",
    "dequantize_embeddings",
    "load_vectors",
    "quantize_embeddings",
    "rescore",
    "save_vectors",
    "stamp_of",
]

disable_telemetry()
