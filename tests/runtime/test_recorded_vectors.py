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
STATES = "78b4cc6cda2f151c2754b8319dd588ec338404e3a7ce5fb91d18c81b058d868f"
VECTORS = "09ada5c5ffdc13860182050a76d92498a0b9c02863db03e267f53052a6b9d575"
SHORT = "6b204a73857ae31c39c7c78ea11b4858d4d3d1745613950c6f56e576b5dcb4cb"


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
