"""`Embedder`: shapes, prompts, widths, order, streams, threads and errors."""

import inspect
import threading
import warnings
from typing import Unpack, get_type_hints

import numpy as np
import pytest

from moembed import Embedder, Embedding
from moembed.embedding import EncodeOptions
from moembed.errors import InputError, PromptWarning, ProviderError, TextTooLongError
from moembed.verify.stability import check_stability
from support.tolerances import INT8_DEFAULT_MEAN_COSINE, UNIT_LENGTH

TEXTS = ["Hello!", "¡Hola!", "跟我讲讲嵌入", "How do I run it on a GPU?", "", "a much longer text " * 20]
LONG = "the bridge was built of sandstone in 1902 and carries two lanes over the river. " * 60


def test_shapes(model):
    assert model.encode_query("one").shape == (384,)
    assert model.encode_query(["one"]).shape == (1, 384)
    assert model.encode_query(("a", "b", "c")).shape == (3, 384)
    empty = model.encode_document([])
    assert (empty.shape, empty.dtype) == ((0, 384), np.float32)
    assert model.encode_query([], truncate_dim=64).shape == (0, 64)
    assert model.encode_query([], precision="ubinary").shape == (0, 48)


def test_vectors_have_unit_length_and_meaning(model):
    docs = model.encode_document(
        ["Paris is the capital of France.", "The cat sleeps on the sofa.", "Fish live in water."]
    )
    assert np.allclose(np.linalg.norm(docs, axis=1), 1, atol=UNIT_LENGTH)
    scores = model.similarity(model.encode_query("Where do cats rest?"), docs)
    assert scores.shape == (1, 3)
    assert scores.argmax() == 1
    german = model.encode_document(["Paris ist die Hauptstadt Frankreichs.", "Die Katze schläft auf dem Sofa."])
    assert model.similarity(model.encode_query("Wo schläft die Katze?"), german).argmax() == 1


def test_the_built_in_model_is_its_checkpoint(model):
    certificate = model.bundle.manifest.certificate
    assert certificate.embedding_mean_cosine >= INT8_DEFAULT_MEAN_COSINE
    assert certificate.texts == 40


def test_prompts(model):
    query, passage = model.encode_query("text"), model.encode_document("text")
    assert not np.array_equal(query, passage)
    assert np.array_equal(query, model.encode("text", prompt_name="query"))
    assert np.array_equal(query, model.encode("text", prompt="query: "))
    assert np.array_equal(query, model.encode("query: text", prompt=""))
    assert np.array_equal(passage, model.encode("text", prompt_name="passage"))
    assert np.array_equal(passage, model.encode("text", prompt_name="document")), (
        "any of the names of a document's prompt"
    )
    assert np.array_equal(query, model.encode_document("text", prompt_name="query")), "an explicit choice wins"
    with pytest.raises(InputError, match=r"no prompt named 'sts'.*query"):
        model.encode("text", prompt_name="sts")
    with pytest.raises(InputError, match="pass only one of them"):
        model.encode("text", prompt_name="query", prompt="x")


def test_forgetting_the_prompt_warns_once_and_names_the_way_out():
    model = Embedder.from_pretrained()
    with pytest.warns(PromptWarning, match="encode_query.*encode_document"):
        bare = model.encode("text")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(model.encode("text"), bare)
        assert np.array_equal(Embedder.from_pretrained().encode("text", prompt=""), bare)


def test_the_warning_points_at_the_caller():
    with pytest.warns(PromptWarning) as caught:
        Embedder.from_pretrained().encode("text")
    assert caught[0].filename == __file__


@pytest.mark.parametrize("dim", [1, 8, 100, 383, 384])
def test_truncate_dim_cuts_then_normalizes(model, dim):
    full, cut = model.encode_query(TEXTS), model.encode_query(TEXTS, truncate_dim=dim)
    assert cut.shape == (len(TEXTS), dim)
    assert np.allclose(np.linalg.norm(cut, axis=1), 1, atol=UNIT_LENGTH)
    prefix = full[:, :dim] / np.linalg.norm(full[:, :dim], axis=1, keepdims=True)
    assert np.allclose(cut, prefix, atol=UNIT_LENGTH)
    raw = model.encode_query(TEXTS, truncate_dim=dim, normalize_embeddings=False)
    assert np.array_equal(raw, full[:, :dim])


@pytest.mark.parametrize("dim", [0, -1, 385, 769, 1.5, "64", True])
def test_wrong_dims(model, dim):
    for call in (model.encode_query, lambda t, **k: model.embed([t], prompt="", **k)):
        with pytest.raises(InputError, match="truncate_dim"):
            call("text", truncate_dim=dim)


@pytest.mark.parametrize("batch_size", [1, 3, 1000])
def test_batch_size_changes_nothing(model, batch_size):
    assert model.encode_query(TEXTS, batch_size=batch_size).tobytes() == model.encode_query(TEXTS).tobytes()


@pytest.mark.parametrize("size", [0, -3, 2.0, True])
def test_wrong_batch_size(model, size):
    with pytest.raises(InputError, match="batch_size"):
        model.encode_query(TEXTS, batch_size=size)


def test_a_typo_fails(model):
    with pytest.raises(TypeError):
        model.encode("text", prompt="", normalize=True)
    with pytest.raises(TypeError):
        model.encode_query("text", truncate_dims=3)


def test_few_keywords_and_all_by_name():
    for method in (Embedder.encode, Embedder.embed, Embedder.from_pretrained):
        keywords = [p for p in inspect.signature(method).parameters.values() if p.kind is p.KEYWORD_ONLY]
        assert len(keywords) <= 8
        assert not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(method).parameters.values())


def test_embed_streams_with_one_batch_in_memory(model):
    read = []

    def endless():
        for number in range(10**9):
            read.append(number)
            yield f"text number {number}"

    stream = model.embed(endless(), prompt_name="passage", batch_size=4)
    assert read == []
    first = [next(stream) for _ in range(5)]
    assert len(read) == 8
    assert [r.index for r in first] == [0, 1, 2, 3, 4]
    expected = model.encode_document([f"text number {n}" for n in range(5)])
    assert np.stack([r.vector for r in first]).tobytes() == expected.tobytes()


def test_what_embed_tells(model):
    result = next(model.embed(["query: hello"], prompt=""))
    assert isinstance(result, Embedding)
    assert (result.tokens, result.start, result.end, result.truncated, result.scale) == (
        model.count_tokens("hello", prompt_name="query"),
        0,
        12,
        False,
        1.0,
    )
    with pytest.raises(InputError, match="iterable of texts"):
        model.embed("hello", prompt="")


def test_embed_complains_at_once_not_at_the_first_text(model):
    for wrong in ({"overlong": "cut"}, {"precision": "int4"}, {"batch_size": 0}, {"prompt_name": "nope"}):
        with pytest.raises(InputError):
            model.embed(iter(()), **({"prompt": ""} | wrong if "prompt_name" not in wrong else wrong))


def test_ten_megabytes_end_in_an_answer(model):
    with pytest.raises(TextTooLongError):
        model.encode_query("a" * 10_000_000)


def test_hostile_texts_alone_and_together(model):
    hostile = [
        "",
        "\0",
        "<s></s>",
        "<pad>" * 9,
        "\u202e\u200b\ufeff",
        "👩‍👩‍👧‍👦" * 30,
        "ﷺ" * 40,
        "e\u0301" * 50,
        "\x7f\x1b[31m",
    ]
    together = model.encode_query(hostile)
    assert np.isfinite(together).all()
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=UNIT_LENGTH)
    for text, vector in zip(hostile, together, strict=True):
        assert model.encode_query(text).tobytes() == vector.tobytes(), text


def test_bad_texts_name_their_place(model):
    with pytest.raises(InputError, match="text 1 has the lone surrogate"):
        model.encode_query(["ok", "\ud800"])
    with pytest.raises(InputError, match="text 2 is NoneType"):
        model.encode_query(["a", "b", None])


def test_count_tokens(model):
    assert model.count_tokens("") == 2
    assert model.count_tokens("", prompt_name="query") == 5
    assert model.count_tokens(["", "a"]) == [2, 3]
    assert model.count_tokens([]) == []


def test_token_embeddings_average_to_the_embedding(model):
    text = "骆驼很酷 and so are embeddings"
    states = model.token_embeddings(text, prompt_name="query")
    assert states.shape == (model.count_tokens(text, prompt_name="query"), 384)
    assert len(model.tokens(text, prompt_name="query")) == len(states)
    assert model.tokens("hi")[0] == "<s>"
    mean = states.astype(np.float64).mean(0)
    assert np.allclose(mean / np.linalg.norm(mean), model.encode_query(text), atol=UNIT_LENGTH)
    several = model.token_embeddings([text, "x"], prompt_name="query")
    assert several[0].tobytes() == states.tobytes()
    assert len(several[1]) == model.count_tokens("x", prompt_name="query")
    with pytest.raises(TextTooLongError):
        model.token_embeddings(LONG, prompt="")


def test_similarity_checks_its_input(model):
    a = model.encode_query(TEXTS)
    assert np.allclose(np.diag(model.similarity(a, a)), 1, atol=UNIT_LENGTH)
    assert model.similarity(a[0], a).shape == (1, len(TEXTS))
    assert np.allclose(model.similarity(a * 3, a), model.similarity(a, a), atol=UNIT_LENGTH)
    with pytest.raises(InputError, match="dequantize"):
        model.similarity(a, model.encode_query(TEXTS, precision="int8"))
    with pytest.raises(InputError, match=r"\(6, 384\) and \(6, 10\)"):
        model.similarity(a, a[:, :10])


def test_one_embedder_in_many_threads(model):
    expected = model.encode_query(TEXTS)
    wrong = []

    def work():
        for _ in range(5):
            if model.encode_query(TEXTS).tobytes() != expected.tobytes():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_the_number_of_threads_changes_nothing(model):
    one = Embedder.from_pretrained(threads=1)
    assert (one.threads, one.providers) == (1, ("CPUExecutionProvider",))
    assert one.encode_query(TEXTS).tobytes() == model.encode_query(TEXTS).tobytes()


def test_the_built_in_model_is_batch_invariant(model):
    report = check_stability(model.bundle, quick=True)
    assert report.passed, report
    assert report.comparisons > 20 * report.texts


@pytest.mark.parametrize("threads", [0, -1, 1.5, True])
def test_wrong_threads(threads):
    with pytest.raises(InputError, match="threads"):
        Embedder.from_pretrained(threads=threads)


def test_cuda_that_is_not_there_is_an_error_that_helps():
    with pytest.raises(ProviderError, match=r"CUDAExecutionProvider.*pip install \"onnxruntime-gpu>=1.30\""):
        Embedder.from_pretrained(providers="cuda")
    with pytest.raises(ProviderError, match="CUDAExecutionProvider"):
        Embedder.from_pretrained(providers=["cuda", "cpu"])
    with pytest.raises(ProviderError, match="NoSuchProvider"):
        Embedder.from_pretrained(providers="NoSuchProvider")
    with pytest.raises(InputError, match="providers is empty"):
        Embedder.from_pretrained(providers=[])


def test_cuda_that_does_not_start_is_an_error_too(monkeypatch, model):
    """onnxruntime-gpu without a driver lists CUDA, then quietly runs on the CPU; no GPU exists here to show the rest."""
    import onnxruntime as ort

    from moembed.inference.session import Session

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # onnxruntime's own, about the provider it does not know
        with pytest.raises(ProviderError, match="started only.*driver"):
            Session(model.bundle, providers="cuda")


def test_an_old_onnxruntime_is_refused(monkeypatch, model):
    import onnxruntime as ort

    monkeypatch.setattr(ort, "__version__", "1.23.2")
    with pytest.raises(ProviderError, match=r"1.23.2 is installed, but moembed needs 1.30"):
        Embedder.from_pretrained()


def test_a_progress_bar_when_asked_for_and_in_a_terminal_only(model, capsys):
    model.encode_query(TEXTS)
    assert capsys.readouterr().err == "", "stderr is no terminal here"
    model.encode_query(TEXTS, show_progress_bar=True)
    assert f"/{len(TEXTS)}" in capsys.readouterr().err
    model.encode_query(TEXTS, show_progress_bar=False)
    assert capsys.readouterr().err == ""


def test_the_public_face():
    import moembed

    assert sorted(moembed.__all__) == [
        "Chunk",
        "Embedder",
        "Embedding",
        "MoembedError",
        "MoembedWarning",
        "QuantizedEmbeddings",
        "Rescored",
        "Routing",
        "Stamp",
        "StampedVectors",
        "__version__",
        "dequantize_embeddings",
        "load_vectors",
        "quantize_embeddings",
        "rescore",
        "save_vectors",
        "stamp_of",
    ]


def test_options_of_encode_query_are_the_keywords_of_encode():
    keywords = [p.name for p in inspect.signature(Embedder.encode).parameters.values() if p.kind is p.KEYWORD_ONLY]
    assert list(EncodeOptions.__annotations__) == keywords
    for method in (Embedder.encode_query, Embedder.encode_document):
        assert get_type_hints(method)["options"] == Unpack[EncodeOptions]


def test_an_embedding_has_its_text(model):
    texts = ["one", LONG, "two"]
    found = list(model.embed(iter(texts), prompt="", overlong="chunk", batch_size=2))
    assert all(one.text is texts[one.index] for one in found)
    assert len(found) > len(texts)


def test_spin_is_an_option_of_both_ways_to_open(model):
    assert Embedder.from_pretrained(spin=False)._options == Embedder(model.bundle, spin=False)._options
    with pytest.raises(InputError, match="spin = 'no'; expected True or False"):
        Embedder.from_pretrained(spin="no")
