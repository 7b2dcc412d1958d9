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
STATES = "540ec47bd4579910cf94ec13a9a9902e354bd5e79a8fc65e289ce78a8e28ac2d"
VECTORS = "0a50da23b9a453f2af1b34b3ef366d5e0ec8170ff7f5aaa814d71b24dcd396cb"
SHORT = "a3289817011743b0d3b69200f133148d1f59451866bda2cc826131e9cfb87850"


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
