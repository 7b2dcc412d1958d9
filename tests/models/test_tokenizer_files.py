"""The tokenizer's files: which of them decides, and what a bundle has of them. The reference is transformers' own class."""

import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer as Library

from moembed.errors import CheckpointError
from moembed.export.contents import check_tokenizer
from moembed.models.interop_files import copy_interop_file
from moembed.models.locate import locate
from moembed.models.tokenizer_files import tokenizer_class
from moembed.pull.opening import DEFAULT_FOLDER
from moembed.quantize.pipeline import calibration_ids
from moembed.tokenizer.tokenizer import Tokenizer
from support.tiny_networks import write_tiny

CONFIG = "tokenizer_config.json"
TEXTS = ["Caf\u00e9 NA\u00cfVE", "\u6771 x\u4eac", "one\nline\u200b", "a <s> <mask>"]
# Classes by the model of tokenizer.json.
CLASSES = {"WordPiece": "BertTokenizer", "Unigram": "XLMRobertaTokenizer"}


@pytest.fixture
def folder(tmp_path):
    """A BERT network whose tokenizer knows capitals and letters with accents."""
    path = write_tiny(tmp_path / "checkpoint", "bert")
    more = {letter: 128 + i for i, letter in enumerate("\u6771\u4eacEF\u00e9")}
    edit(path / "tokenizer.json", lambda raw: raw["model"]["vocab"].update(more))
    edit(path / "config.json", lambda raw: raw.update(vocab_size=140))
    return path


def edit(path, change):
    raw = json.loads(path.read_text()) if path.exists() else {}
    change(raw)
    path.write_text(json.dumps(raw))


def normalizer(folder, **fields):
    edit(folder / "tokenizer.json", lambda raw: raw["normalizer"].update(fields))


def ids_of_transformers(folder, texts=TEXTS):
    transformers = pytest.importorskip("transformers", minversion="5")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return [tokenizer(text)["input_ids"] for text in texts]


def ids_of_library(path, texts=TEXTS):
    tokenizer = Library.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return [tokenizer.encode(text).ids for text in texts]


# --- M17: normalizers

FIELDS = {
    "do_lower_case": ("lowercase", True),
    "strip_accents": ("strip_accents", None),
    "tokenize_chinese_chars": ("handle_chinese_chars", True),
}


@pytest.mark.parametrize("named", [None, "BertTokenizer", "BertTokenizerFast"])
@pytest.mark.parametrize("field", FIELDS)
def test_a_field_that_overrules_the_normalizer_is_refused(folder, field, named):
    """M17: stated in one file, or in the other, where transformers' class has a default of its own; agreed on in both."""
    name, default = FIELDS[field]
    state = {"tokenizer_class": named} if named else {}
    edit(folder / CONFIG, lambda raw: raw.update(state | {field: False}))
    with pytest.raises(CheckpointError, match=f"{field} = False, but the normalizer .* has {name} = {default}"):
        check_tokenizer(locate(folder))
    normalizer(folder, **{name: False})
    check_tokenizer(locate(folder))
    assert ids_of_transformers(folder) == ids_of_library(folder / "tokenizer.json")
    (folder / CONFIG).write_text(json.dumps(state))
    with pytest.raises(CheckpointError, match=f"no {field}, which .* takes for {default}, but .* has {name} = False"):
        check_tokenizer(locate(folder))
    assert ids_of_transformers(folder) != ids_of_library(folder / "tokenizer.json"), "so it has to be refused"


@pytest.mark.parametrize("named", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_class_that_takes_all_from_tokenizer_json(folder, named):
    edit(folder / CONFIG, lambda raw: raw.update(tokenizer_class=named))
    normalizer(folder, lowercase=False, strip_accents=False, handle_chinese_chars=False)
    check_tokenizer(locate(folder))
    assert ids_of_transformers(folder) == ids_of_library(folder / "tokenizer.json")


def test_a_normalizer_that_transformers_class_has_not_is_refused(folder):
    edit(folder / "tokenizer.json", lambda raw: raw.update(normalizer={"type": "NFC"}))
    with pytest.raises(
        CheckpointError, match=r"normalizer of tokenizer.json is \{'type': 'NFC'\}, but .* BertTokenizer"
    ):
        check_tokenizer(locate(folder))
    edit(folder / CONFIG, lambda raw: raw.update(tokenizer_class="PreTrainedTokenizerFast"))
    check_tokenizer(locate(folder))


@pytest.mark.parametrize("kind", ["BertNormalizer", "NFKC", "Sequence", None])
def test_small_letters_that_sentence_transformers_makes(folder, kind):
    """M17: it does so itself, in front of any tokenizer."""
    edit(folder / CONFIG, lambda raw: raw.update(tokenizer_class="PreTrainedTokenizerFast"))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 32, "do_lower_case": True}))
    if kind == "BertNormalizer":
        normalizer(folder, lowercase=False)
    else:
        of = {"type": kind, "normalizers": [{"type": "NFC"}, {"type": "NFKC"}]} if kind else None
        edit(folder / "tokenizer.json", lambda raw: raw.update(normalizer=of))
    with pytest.raises(CheckpointError, match="do_lower_case = true, but the normalizer .* does not change capitals"):
        check_tokenizer(locate(folder))
    small = {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Lowercase"}]}
    edit(folder / "tokenizer.json", lambda raw: raw.update(normalizer=small))
    check_tokenizer(locate(folder))


# --- M18: classes


@pytest.fixture(params=CLASSES)
def kind(request):
    return request.param


@pytest.fixture
def files(kind, folder, tmp_path):
    """A folder with a tokenizer of each kind beside the config.json of a BERT, as multilingual-e5-small has it."""
    if kind == "WordPiece":
        return folder
    path = tmp_path / "unigram"
    path.mkdir()
    shutil.copyfile(DEFAULT_FOLDER / "tokenizer.json", path / "tokenizer.json")
    shutil.copyfile(folder / "config.json", path / "config.json")
    return path


@pytest.mark.parametrize("named", [None, "BertTokenizer", "XLMRobertaTokenizerFast", "AcmeTokenizer", "absent file"])
def test_a_bundle_names_a_class_that_gives_the_ids_of_tokenizer_json(kind, files, named, tmp_path):
    """M18: without one, transformers takes the class of the network's `model_type`."""
    (files / CONFIG).unlink(missing_ok=True)
    if named != "absent file":
        (files / CONFIG).write_text(
            json.dumps({"model_max_length": 32} | ({"tokenizer_class": named} if named else {}))
        )
    bundle = tmp_path / "bundle"
    bundle.mkdir()
    shutil.copyfile(files / "config.json", bundle / "config.json")
    copy_interop_file(files / "tokenizer.json", bundle / "tokenizer.json", name="tokenizer.json")
    if named == "absent file":
        (bundle / CONFIG).write_text(json.dumps({"tokenizer_class": tokenizer_class(files)}))
    else:
        copy_interop_file(files / CONFIG, bundle / CONFIG, name=CONFIG)
    written = json.loads((bundle / CONFIG).read_text())["tokenizer_class"]
    assert written.removesuffix("Fast") == CLASSES[kind]
    assert ids_of_transformers(bundle) == ids_of_library(bundle / "tokenizer.json")


@pytest.mark.parametrize("named", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_a_class_for_every_kind_stays(files, named, tmp_path):
    (files / CONFIG).write_text(json.dumps({"tokenizer_class": named}))
    copy_interop_file(files / CONFIG, tmp_path / CONFIG, name=CONFIG)
    assert json.loads((tmp_path / CONFIG).read_text()) == {"tokenizer_class": named}


# --- M14: limits of tokenizer.json


def test_neither_cuts_nor_pads_of_tokenizer_json_reach_the_calibration(folder):
    """M14: nor its ids in general; the file cuts and pads at 16."""
    raw = json.loads((folder / "tokenizer.json").read_text())
    assert raw["truncation"]["max_length"] == raw["padding"]["strategy"]["Fixed"] == 16
    prompts = {"query": "query: "}
    found = calibration_ids(Tokenizer(folder / "tokenizer.json"), prompts, 32)
    assert max(map(len, found)) == 32
    edit(folder / "tokenizer.json", lambda raw: raw.update(truncation=None, padding=None))
    expected = calibration_ids(Tokenizer(folder / "tokenizer.json"), prompts, 32)
    assert all(map(np.array_equal, found, expected))
