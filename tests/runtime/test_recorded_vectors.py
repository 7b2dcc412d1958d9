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
STATES = "b9b8a58a1acf56a10ab53441dfd7f8e6b2d388c2be59a1b472baf6a239ee3807"
VECTORS = "91d7c540f388d0f87ed9b493b5c94b1e069833ccbe3185e049aa2592f97af985"
SHORT = "74b525549235f89c41a01521b4fe85ec15242e6941ec1e73736aeccd543a6833"


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
