"""Prompts that leave no room for a text; composed and decomposed characters."""

import json
import shutil
import subprocess
import sys
import unicodedata
import warnings

import numpy as np
import pytest

from moembed import Chunk, Embedder
from moembed.bundle.manifest import MANIFEST_FILE
from moembed.cli import main
from moembed.errors import InputError
from moembed.evaluation.embedding_cache import prompt_of
from moembed.evaluation.tasks import Retrieval
from support.bundles import edit
from support.serving import BODIES, message_of, serving

TOO_LONG = "a " * 600
POLICIES = ["error", "truncate", "truncate_start", "chunk", "mean", Chunk(overlap=0), Chunk(pooled=True)]
SAID = r"the prompt has 600 tokens; the model's limit is 512, including 2 special tokens, so no room is left for a text"


@pytest.mark.parametrize("texts", ["", "short", ["short", "a " * 900], []])
@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_a_prompt_longer_than_the_model_reads(model, texts, policy):
    if policy not in ("chunk", Chunk(overlap=0)):
        for call in (model.encode, model.encode_query, model.encode_document):
            with pytest.raises(InputError, match=SAID):
                call(texts, prompt=TOO_LONG, overlong=policy)
    with pytest.raises(InputError, match=SAID):
        model.embed([texts] if isinstance(texts, str) else texts, prompt=TOO_LONG, overlong=policy)


def test_every_other_method_says_so_too(model):
    for call in (model.count_tokens, model.token_embeddings, model.tokens, model.routing):
        with pytest.raises(InputError, match=SAID):
            call("short", prompt=TOO_LONG)


def test_the_longest_prompt_that_leaves_room(model):
    """510 tokens beside the special ones: 509 of a prompt leave one for a text."""
    prompt = "a " * 509
    assert model.count_tokens("", prompt=prompt) == 511
    for policy in ("error", Chunk(overlap=0, pooled=True)):
        assert model.encode("b", prompt=prompt, overlong=policy).shape == (384,)
    windows = list(model.embed(["b c d"], prompt=prompt, overlong=Chunk(0)))
    assert [window.tokens for window in windows] == [512] * 3
    with pytest.raises(InputError, match=r"have room for 1 tokens of the text.*an overlap of 64 does not fit"):
        model.encode("b", prompt=prompt, overlong="mean")
    with pytest.raises(InputError, match="the prompt has 510 tokens"):
        model.encode("b", prompt=prompt + "a ")


@pytest.mark.parametrize("overlap", [507, 10**9])
def test_an_overlap_without_room_is_refused_before_any_text_needs_it(model, overlap):
    with pytest.raises(InputError, match=f"an overlap of {overlap} does not fit: pass a Chunk with a smaller overlap"):
        model.embed(["short"], prompt="query: ", overlong=Chunk(overlap=overlap))


def test_the_command_line_says_so(model):
    for command in (["embed", "text"], ["similarity", "one", "two"]):
        found = subprocess.run(
            [sys.executable, "-m", "moembed", *command, "--prompt", TOO_LONG], capture_output=True, text=True
        )
        assert (found.returncode != 0, found.stdout) == (True, "")
        assert "the prompt has 600 tokens; the model's limit is 512" in found.stderr
        assert "Traceback" not in found.stderr


@pytest.fixture(scope="module")
def long_prompt(model, tmp_path_factory):
    """The built-in model with a prompt for queries that is too long for it."""
    folder = tmp_path_factory.mktemp("bundles") / "long-prompt"
    shutil.copytree(model.bundle.folder, folder)
    manifest = json.loads((folder / MANIFEST_FILE).read_text("utf-8"))
    manifest["prompts"]["query"] = TOO_LONG
    (folder / MANIFEST_FILE).unlink()
    (folder / MANIFEST_FILE).write_text(json.dumps(manifest))
    return folder


def test_a_models_own_prompt_is_no_exception(long_prompt):
    embedder = Embedder.from_pretrained(long_prompt)
    assert embedder.encode_document("short").shape == (384,)
    with pytest.raises(InputError, match=SAID):
        embedder.encode_query("short")


def test_the_server_says_so(long_prompt):
    with serving(model=(f"moembed={long_prompt}",), accept_token_ids=True) as server:
        for path, body in BODIES.items():
            answer = server.post(path, body(["short"]))
            assert answer.status in (400, 413, 422), answer
            assert "the prompt has 600 tokens; the model's limit is 512" in message_of(path, answer)
        ids = server.post("/v1/embeddings", {"model": "moembed:query", "input": [[5, 6]]})
        assert (ids.status, ids.json["error"]["message"].partition(",")[0]) == (
            400,
            "the prompt has 600 tokens; the model's limit is 512",
        )
        # Ollama's own limit, where it leaves less room than the model does.
        few = {"model": "moembed:document", "input": "short", "options": {"num_ctx": 4}}
        answer = server.post("/api/embed", few)
        assert (answer.status, "the prompt has 2 tokens; the model's limit is 4" in answer.json["error"]) == (400, True)
        assert server.post("/v1/embeddings", {"model": "moembed:document", "input": "short"}).status == 200


@pytest.fixture(scope="module", params=[{"query": "query: ", "document": ""}, {}], ids=["query alone", "none"])
def optional(request, int8, tmp_path_factory):
    """Folder of a model with a prompt for queries alone, as Arctic Embed has it, or without any, as mGTE."""
    folder = tmp_path_factory.mktemp("bundles") / "optional"
    shutil.copytree(int8.folder, folder)
    edit(folder, lambda raw: raw.update(prompts=request.param, prompt_required=False))
    return folder


def test_each_side_has_its_own_prompt_and_no_warning_where_it_has_none(optional, capsys):
    """M39: in Python, on the command line, over HTTP and in evaluation."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = Embedder.from_pretrained(optional, threads=1)
        prompt = model.prompts.get("query", "")
        query, document = (model.encode("a text", prompt=text) for text in (prompt, ""))
        assert np.array_equal(query, document) is not bool(prompt)
        assert np.array_equal(model.encode_query("a text"), query)
        assert np.array_equal(model.encode_document("a text"), document)
        assert np.array_equal(model.encode("a text"), document)
        assert prompt_of(model, Retrieval.prompts["query"]) == prompt
        assert prompt_of(model, Retrieval.prompts["document"]) == ""
        for task, expected in (("query", query), ("document", document)):
            assert main(["embed", "-m", str(optional), "--task", task, "a text"]) == 0
            found = capsys.readouterr()
            assert np.allclose(json.loads(found.out)["embedding"], expected, atol=0)
            assert found.err == ""
        with serving(model=(f"moembed={optional}",), threads=1) as server:
            for kind, expected in (("query", query), ("document", document)):
                body = {"model": "moembed", "input_type": f"search_{kind}", "texts": ["a text"]}
                answer = server.post("/v2/embed", body | {"embedding_types": ["float"]})
                assert answer.status == 200, answer
                assert np.allclose(answer.json["embeddings"]["float"][0], expected, atol=0)
                answer = server.post("/v1/embeddings", {"model": f"moembed:{kind}", "input": "a text"})
                assert np.allclose(answer.json["data"][0]["embedding"], expected, atol=0)
            answer = server.post("/v1/embeddings", {"model": "moembed", "input": "a text"})
            assert np.allclose(answer.json["data"][0]["embedding"], document, atol=0)


# Each text is the same to a reader whether its characters are composed or decomposed.
COMPOSED = ["안녕하세요", "Tiếng Việt", "ガイド", "Ångström café"]


@pytest.mark.parametrize("text", COMPOSED)
def test_one_line_makes_composed_and_decomposed_text_alike(model, text):
    decomposed = unicodedata.normalize("NFD", text)
    assert decomposed != text
    assert np.array_equal(
        model.encode_query(unicodedata.normalize("NFC", decomposed)),
        model.encode_query(unicodedata.normalize("NFC", text)),
    )


@pytest.mark.parametrize("text", COMPOSED[:3])
def test_composed_and_decomposed_text_differ_without_it(model, text):
    """As the published tokenizer has it, whose normalizer leaves these as they are."""
    decomposed = unicodedata.normalize("NFD", text)
    assert model.tokens(decomposed) != model.tokens(text)
    assert not np.array_equal(model.encode_query(decomposed), model.encode_query(text))


@pytest.mark.parametrize(
    ("form", "plain"), [("Ｈｅｌｌｏ", "Hello"), ("ｶﾀｶﾅ", "カタカナ"), ("ﬁne", "fine"), ("①", "1")]
)
def test_compatible_forms_are_the_same_text(model, form, plain):
    assert model.tokens(form) == model.tokens(plain)
