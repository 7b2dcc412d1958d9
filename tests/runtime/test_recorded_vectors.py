"""The built-in model's vectors keep their bytes from one release to the next: docs/compatibility.md promises it.

If one of these fails, vectors changed. Where that is wanted, say so under *Changed* in CHANGELOG.md, raise the minor version, and
record the new digests.
"""

import hashlib
import platform

import pytest

from moembed import Embedder
from moembed.inference.kernels import PORTABLE
from support.folders import DATA

TEXTS = [line for line in (DATA / "sentences.txt").read_text("utf-8").splitlines() if line][::4]
STATES = "aef1659b707faf682a5521e7581c47c93527bb21d34ffe4c47002bba889862a9"
VECTORS = "7c71f8c9b96d347fc333a88eed87cdfdee5ff09aef7e9e7681da43a302b5f532"
SHORT = "bc30d417a4312f3d0f1f514412ecd4717392991cb3f372e0ef096dc04a1030cc"


@pytest.fixture(scope="module")
def native(model) -> Embedder:
    if model.kernels == PORTABLE:
        pytest.skip("the native library was not compiled")
    return model


def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_hidden_states_keep_their_bytes_on_every_processor(native):
    assert digest(*native.token_embeddings(TEXTS, prompt_name="passage")) == STATES


@pytest.mark.skipif(
    platform.machine().lower() not in ("x86_64", "amd64"), reason="ONNX Runtime's last step rounds otherwise"
)
def test_vectors_keep_their_bytes(native):
    assert digest(native.encode_document(TEXTS)) == VECTORS
    assert digest(native.encode_document(TEXTS, truncate_dim=128)) == SHORT
