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

TEXTS = [line for line in (DATA / "sentences.txt").read_text("utf-8").splitlines() if line]
STATES = "b7df34f3f0d81459a35f347ed3811f38f26a0d0c4db162a72510bc0e8b093486"
VECTORS = "c63f75a5bf641f70f72efdef12f3fd02f49ad0a052612b139b972f48f09b4967"
SHORT = "c37f169ef7fc9d78520a605f1bb15cda52bdd7c2141a2cc4a3d387783f7d3a9b"


@pytest.fixture(scope="module")
def native(model) -> Embedder:
    if model.kernels == PORTABLE:
        pytest.skip("the native library was not compiled")
    return model


def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def test_hidden_states_keep_their_bytes_on_every_processor(native):
    assert digest(*native.token_embeddings(TEXTS, prompt_name="passage")) == STATES


@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="ONNX Runtime's last step rounds otherwise")
def test_vectors_keep_their_bytes(native):
    assert digest(native.encode_document(TEXTS)) == VECTORS
    assert digest(native.encode_document(TEXTS, truncate_dim=128)) == SHORT
