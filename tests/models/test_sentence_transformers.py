"""Files of sentence-transformers: the pooling in both spellings, and modules that a bundle would leave out."""

import json
import shutil

import pytest

from moembed.bundle.bundle import Bundle
from moembed.cli import main
from moembed.convert.conversion import convert
from moembed.errors import CheckpointError
from moembed.export.contents import check_tokenizer
from moembed.models.locate import locate
from moembed.models.pooling import Pooling

OLD, NEW = "sentence_transformers.models.", "sentence_transformers.base.modules.module."
MEAN = {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}
FIRST = {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True}
CONFIG = "1_Pooling/config.json"
PATHS = {"Transformer": "", "Pooling": "1_Pooling"}


def listed(*kinds, package=OLD):
    """Entries of `modules.json`; a kind may be given with its path."""
    found = []
    for i, kind in enumerate(kinds):
        kind, _, path = kind.partition(" ")
        found.append({"idx": i, "name": str(i), "path": path or PATHS.get(kind, f"{i}_{kind}"), "type": package + kind})
    return found


ALL = listed("Transformer", "Pooling", "Normalize")


@pytest.fixture(params=["bert", "moe"])
def folder(request, tiny, checkpoint, tmp_path):
    """A checkpoint without files of sentence-transformers."""
    copy = shutil.copytree({"bert": tiny["bert"], "moe": checkpoint}[request.param], tmp_path / "checkpoint")
    for name in ("modules.json", CONFIG):
        (copy / name).unlink(missing_ok=True)
    return copy


def write(folder, modules, pooling):
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / CONFIG).write_text(json.dumps(pooling))
    return folder


# --- M01, M02: pooling

MEANS = {
    "flag": MEAN | {"include_prompt": True},
    "word": {"pooling_mode": "mean", "embedding_dimension": 64},
    "a list of one": {"pooling_mode": ["mean"]},
    "flag and word": MEAN | {"pooling_mode": "mean"},
    "flag, and no word": MEAN | {"pooling_mode": None},
}


@pytest.mark.parametrize("pooling", MEANS.values(), ids=MEANS)
@pytest.mark.parametrize("modules", [ALL, ALL[:2], listed("Transformer", "Pooling", "Normalize", package=NEW)])
def test_mean_pooling_in_every_spelling(folder, modules, pooling):
    assert locate(write(folder, modules, pooling)).config.pooling is Pooling.MEAN


@pytest.mark.parametrize("pooling", [FIRST, {"pooling_mode": "cls"}, FIRST | {"pooling_mode": "cls"}], ids=str)
def test_first_token_pooling_in_both_spellings(tiny, tmp_path, pooling, capsys):
    """M01: it is in the graph, in `info` and in the file that other loaders read."""
    folder = write(shutil.copytree(tiny["bert"], tmp_path / "checkpoint"), ALL, pooling)
    assert locate(folder).config.pooling is Pooling.FIRST
    bundle = Bundle.open(convert(locate(folder), tmp_path / "out").folder)
    assert bundle.manifest.pooling == "cls"
    # Other loaders cannot read the file without the width.
    assert json.loads((bundle.folder / CONFIG).read_text()) == pooling | {"word_embedding_dimension": 64}
    assert main(["info", str(bundle.folder)]) == 0
    assert "state of the first token" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("pooling", "message"),
    [
        ({"pooling_mode_mean_tokens": False}, "asks for no pooling"),
        (MEAN | {"pooling_mode_max_tokens": True}, "asks for pooling_mode_mean_tokens and pooling_mode_max_tokens"),
        (MEAN | {"pooling_mode_max_tokens": 1}, "asks for pooling_mode_mean_tokens and pooling_mode_max_tokens"),
        ({"pooling_mode": ["mean", "max"]}, "asks for pooling_mode_mean_tokens and pooling_mode_max_tokens"),
        (MEAN | {"pooling_mode": "max"}, "asks for pooling_mode_mean_tokens and pooling_mode_max_tokens"),
        ({"pooling_mode_max_tokens": True}, "asks for pooling_mode_max_tokens"),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, "asks for pooling_mode_mean_sqrt_len_tokens;"),
        ({"pooling_mode": "weightedmean"}, "asks for pooling_mode_weightedmean_tokens"),
        ({"pooling_mode_lasttoken": True}, "asks for pooling_mode_lasttoken"),
        ({"pooling_mode": "lasttoken"}, "asks for pooling_mode_lasttoken_tokens"),
        (MEAN | {"include_prompt": False}, "leaves the prompt out"),
        ([MEAN], "expected a JSON object, found list"),
    ],
)
def test_another_pooling_is_refused_by_its_name(folder, pooling, message):
    """M02."""
    with pytest.raises(CheckpointError, match=message):
        locate(write(folder, ALL, pooling))


def test_a_family_without_first_tokens_refuses_them(checkpoint, tmp_path):
    folder = write(shutil.copytree(checkpoint, tmp_path / "checkpoint"), ALL, FIRST)
    with pytest.raises(
        CheckpointError, match="asks for pooling_mode_cls_token; implemented: pooling_mode_mean_tokens$"
    ):
        locate(folder)


def test_a_folder_that_a_newer_library_saved_again_is_the_same_model(tiny, tmp_path):
    """M16: sentence-transformers 6.2 writes the limit to tokenizer_config.json alone, one word for the pooling, empty prompts."""
    before = shutil.copytree(tiny["bert"], tmp_path / "before")
    (before / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 20, "do_lower_case": False}))
    after = shutil.copytree(tiny["bert"], tmp_path / "after")
    files = {
        "modules.json": listed("Transformer", "Pooling", "Normalize", package=NEW),
        CONFIG: {"embedding_dimension": 64, "pooling_mode": "mean", "include_prompt": True},
        "sentence_bert_config.json": {
            "transformer_task": "feature-extraction",
            "module_output_name": "token_embeddings",
        },
        "config_sentence_transformers.json": {
            "model_type": "SentenceTransformer",
            "prompts": {"query": "", "document": ""},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 20, "do_lower_case": True},
        "config.json": json.loads((before / "config.json").read_text())
        | {"tie_word_embeddings": True, "dtype": "float32", "transformers_version": "5.24.0", "use_cache": True},
    }
    for name, content in files.items():
        (after / name).write_text(json.dumps(content))
    old, new = locate(before), locate(after)
    check_tokenizer(new)
    assert new.config == old.config
    assert (new.spec.max_tokens, old.spec.max_tokens) == (20, 20)
    assert new.spec.limit_source == "model_max_length in tokenizer_config.json"
    assert (new.spec.prompt_required, new.weights_sha256) == (False, old.weights_sha256)


# --- M03, M06, M10: modules

OTHERS = {
    "Dense": ["Transformer", "Pooling", "Dense", "Normalize"],
    "two Dense": ["Transformer", "Pooling", "Dense", "Dense"],
    "Dense of stella": ["Transformer", "Pooling", "Dense 2_Dense_1024"],
    "LayerNorm": ["Transformer", "Pooling", "LayerNorm"],
    "WordWeights": ["Transformer", "WordWeights", "Pooling"],
    "Router": ["Router ", "Pooling", "Normalize"],
    "another order": ["Pooling", "Transformer"],
    "unknown": ["Transformer", "Pooling", "Whitening"],
}
WITHOUT_POOLING = {
    "ColBERT": ["Transformer", "Dense"],
    "SPLADE": ["MLMTransformer", "SpladePooling"],
    "static": ["StaticEmbedding"],
    "Router alone": ["Router"],
    "network alone": ["Transformer"],
}


@pytest.mark.parametrize("package", [OLD, NEW, "acme_code."])
@pytest.mark.parametrize("kinds", (OTHERS | WITHOUT_POOLING).values(), ids=OTHERS | WITHOUT_POOLING)
def test_other_modules_are_refused_by_type_and_path(folder, kinds, package):
    modules = listed(*kinds, package=package)
    described = [
        entry["type"].rsplit(".", 1)[1] + (f" ({entry['path']})" if entry["path"] else "") for entry in modules
    ]
    with pytest.raises(CheckpointError) as error:
        locate(write(folder, modules, MEAN))
    assert (
        f"modules.json lists the modules {', '.join(described)}; implemented: Transformer, Pooling, Normalize"
        in str(error.value)
    )
    assert ("a vector of every token" in str(error.value)) is (kinds in WITHOUT_POOLING.values())


@pytest.mark.parametrize(
    ("modules", "message"),
    [
        ([ALL[0], ALL[1] | {"path": "2_Pooling"}], "the path of Pooling is '2_Pooling'; expected '1_Pooling'"),
        ([ALL[0] | {"path": "0_Transformer"}, ALL[1]], "the path of Transformer is '0_Transformer'; expected ''"),
        (["Transformer"], r"lists the modules \?;"),
        ([*ALL[:2], {"idx": 2}], r"Pooling \(1_Pooling\), \?;"),
        ({"0": ALL[0]}, "modules.json: expected a JSON list, found dict"),
    ],
)
def test_malformed_modules_are_refused(folder, modules, message):
    with pytest.raises(CheckpointError, match=message):
        locate(write(folder, modules, MEAN))


def test_folders_of_modules_without_their_list_are_refused(folder):
    """M03: `modules.json` was lost, and the layer behind the pooling with it."""
    write(folder, ALL, MEAN)
    (folder / "modules.json").unlink()
    for name in ("2_Normalize", "3_Dropout"):
        (folder / name).mkdir()
    assert locate(folder).config.pooling is Pooling.MEAN
    (folder / "2_Dense").mkdir()
    with pytest.raises(CheckpointError, match="has no modules.json, but a folder 2_Dense"):
        locate(folder)


@pytest.mark.parametrize(
    "kinds", [["Transformer", "Pooling", "Dropout"], ["Transformer", "Dropout", "Pooling"]], ids=str
)
def test_a_bundle_lists_what_its_vectors_are_made_of(tiny, tmp_path, kinds):
    """M03, M04: Dropout does nothing, and vectors of a bundle have length 1 though the checkpoint has no Normalize."""
    modules = listed(*kinds, package=NEW)
    del modules[0]["path"]
    folder = write(shutil.copytree(tiny["bert"], tmp_path / "checkpoint"), modules, MEAN)
    bundle = convert(locate(folder), tmp_path / "out")
    found = json.loads((bundle.folder / "modules.json").read_text())
    assert [(entry["path"], entry["type"]) for entry in found] == [
        ("", f"{OLD}Transformer"),
        ("1_Pooling", f"{OLD}Pooling"),
        ("2_Normalize", f"{OLD}Normalize"),
    ]


# --- M05: similarity


@pytest.mark.parametrize("similarity", ["dot", "dot_score", "euclidean", "manhattan"])
def test_a_model_whose_lengths_count_is_refused(folder, similarity):
    """M05: without Normalize its vectors are compared with their lengths."""
    write(folder, ALL[:2], MEAN)
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"similarity_fn_name": similarity}))
    with pytest.raises(CheckpointError, match=f"similarity_fn_name.*'{similarity}'.*no Normalize"):
        locate(folder)
    (folder / "modules.json").write_text(json.dumps(ALL))
    assert locate(folder).config.pooling is Pooling.MEAN


# --- M07: nothing is stated


def test_a_folder_that_does_not_say_how_it_pools_is_refused(tiny, tmp_path):
    """M07: sentence-transformers would take the mean of all tokens. What the error says to write is enough."""
    folder = shutil.copytree(tiny["bert"], tmp_path / "bare")
    shutil.rmtree(folder / "1_Pooling")
    for modules in (True, False):
        if not modules:
            (folder / "modules.json").unlink()
        with pytest.raises(CheckpointError, match="1_Pooling.config.json.*nothing says how") as error:
            locate(folder)
    said = str(error.value)
    (folder / "1_Pooling").mkdir()
    for mode in Pooling:
        content = next(part for part in said.split("{")[1:] if mode.flag in part).partition("}")[0]
        (folder / CONFIG).write_text("{" + content.replace("WIDTH", "64") + "}")
        assert locate(folder).config.pooling is mode


def test_the_pooling_of_upstreams_code_needs_no_file(checkpoint):
    """NomicBert-MoE's authors state the mean in their code and their paper."""
    assert not (checkpoint / "1_Pooling").exists()
    assert locate(checkpoint).config.pooling is Pooling.MEAN
