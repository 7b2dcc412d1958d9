"""Each API through its own public client, over a real socket, compared with `Embedder`."""

import base64

import cohere
import numpy as np
import ollama
import openai
import pytest
import tiktoken
from cohere.core.api_error import ApiError
from huggingface_hub import InferenceClient
from huggingface_hub.errors import HfHubHTTPError

from moembed import dequantize_embeddings, quantize_embeddings
from support.serving import serving
from support.tolerances import INT8_ONE_SCALE_MIN_COSINE, UNIT_LENGTH, cosine_of_bits

TEXTS = ["Bake the bread for forty minutes.", "Zum Bahnhof nimmt man die Linie 4.", "a", "骆驼很酷 👍🏽"]
LONG = "all work and no play makes Jack a dull boy. " * 120
KEY = "sk-test"


@pytest.fixture(scope="module")
def server():
    with serving() as running:
        yield running


@pytest.fixture(scope="module")
def openai_client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def ollama_client(server):
    return ollama.Client(host=server.url)


@pytest.fixture(scope="module")
def cohere_client(server):
    return cohere.ClientV2(api_key=KEY, base_url=server.url)


@pytest.fixture(scope="module")
def documents(model):
    return model.encode_document(TEXTS)


@pytest.mark.parametrize("options", [{}, {"encoding_format": "float"}, {"encoding_format": "base64"}])
def test_openai_vectors_equal_embedder(openai_client, documents, model, options):
    answer = openai_client.embeddings.create(model="moembed:document", input=TEXTS, user="me", **options)
    if options.get("encoding_format") == "base64":
        vectors = [np.frombuffer(base64.b64decode(row.embedding), "<f4") for row in answer.data]
    else:
        vectors = [np.array(row.embedding, np.float32) for row in answer.data]
    assert np.stack(vectors).tobytes() == documents.tobytes()
    assert [row.index for row in answer.data] == [0, 1, 2, 3]
    counted = sum(model.count_tokens(TEXTS, prompt_name="document"))
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == counted
    assert answer.model == "moembed:document"


def test_openai_one_text_and_dimensions(openai_client, model):
    answer = openai_client.embeddings.create(
        model="moembed", input=TEXTS[0], dimensions=128, extra_body={"input_type": "query"}
    )
    vector = np.array(answer.data[0].embedding, np.float32)
    assert vector.tobytes() == model.encode_query(TEXTS[0], truncate_dim=128).tobytes()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_openai_client_raises_its_own_error_classes(openai_client):
    with pytest.raises(openai.BadRequestError, match=r"moembed serve --task") as raised:
        openai_client.embeddings.create(model="moembed", input=["no task"])
    assert raised.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError) as raised:
        openai_client.embeddings.create(model="text-embedding-3-small", input=["x"])
    assert raised.value.code == "model_not_found"
    assert raised.value.param == "model"
    with pytest.raises(openai.BadRequestError) as raised:
        openai_client.embeddings.create(model="moembed:query", input=["fine", LONG])
    assert raised.value.code == "context_length_exceeded"
    for bad in ([], "", ["x", ""]):
        with pytest.raises(openai.BadRequestError, match="input"):
            openai_client.embeddings.create(model="moembed:query", input=bad)
    with pytest.raises(openai.BadRequestError, match="dimensions"):
        openai_client.embeddings.create(model="moembed:query", input="x", dimensions=1000)


def test_openai_over_long_texts_by_request(openai_client, model):
    def vector(policy):
        answer = openai_client.embeddings.create(
            model="moembed:query", input=["short", LONG], extra_body={"overlong": policy}
        )
        return answer, np.array(answer.data[1].embedding, np.float32)

    cut, first = vector("truncate")
    assert cut.truncated == [1]
    assert cut.usage.total_tokens == model.count_tokens("short", prompt_name="query") + 512
    with pytest.warns(UserWarning, match="cut to 512"):
        assert first.tobytes() == model.encode_query(LONG, overlong="truncate").tobytes()
    windows, mean = vector("mean")
    assert not hasattr(windows, "truncated")
    assert mean.tobytes() == model.encode_query(LONG, overlong="mean").tobytes()


def test_openai_models(openai_client):
    assert [model.id for model in openai_client.models.list()] == ["moembed:query", "moembed:document"]


def test_langchain_error_names_the_setting_to_change(server, documents, monkeypatch):
    # Imported here and not by each process of a parallel run when it collects the tests: that takes more than a second.
    from langchain_openai import OpenAIEmbeddings

    langchain = OpenAIEmbeddings(model="moembed:document", base_url=f"{server.url}/v1", api_key=KEY)
    # tiktoken would download the vocabulary cl100k_base; with any other, LangChain sends ids in the same way.
    tiny = tiktoken.Encoding(
        "tiny", pat_str=r"\w+|\W+", mergeable_ranks={bytes([i]): i for i in range(256)}, special_tokens={}
    )
    monkeypatch.setattr(tiktoken, "get_encoding", lambda _: tiny)
    with pytest.raises(openai.BadRequestError, match=r"check_embedding_ctx_length=False"):
        langchain.embed_documents(["Hello, world"])
    configured = OpenAIEmbeddings(
        model="moembed:document", base_url=f"{server.url}/v1", api_key=KEY, check_embedding_ctx_length=False
    )
    assert np.array(configured.embed_documents(TEXTS), np.float32).tobytes() == documents.tobytes()
    assert len(configured.embed_query("hello")) == 384


def test_llama_index(server, documents):
    from llama_index.embeddings.openai import OpenAIEmbedding

    llama = OpenAIEmbedding(model_name="moembed:document", api_base=f"{server.url}/v1", api_key=KEY)
    assert np.array(llama.get_text_embedding_batch(TEXTS), np.float32).tobytes() == documents.tobytes()
    assert np.array(llama.get_query_embedding(TEXTS[0]), np.float32).tobytes() == documents[0].tobytes()


def test_hugging_face_feature_extraction(server, model, documents):
    for path in ("/embed", ""):
        client = InferenceClient(server.url + path)
        vectors = client.feature_extraction(TEXTS, prompt_name="passage")
        assert vectors.dtype == np.float32
        assert vectors.tobytes() == documents.tobytes()
    cut = client.feature_extraction(
        LONG, prompt_name="query", truncate=True, truncation_direction="left", dimensions=64
    )
    with pytest.warns(UserWarning, match="cut to 512"):
        wanted = model.encode_query([LONG], truncate_dim=64, overlong="truncate_start")
    assert cut.tobytes() == wanted.tobytes()
    raw = client.feature_extraction(TEXTS[:1], prompt_name="passage", normalize=False)
    assert not 0.99 < np.linalg.norm(raw) < 1.01
    assert model.similarity(raw, documents[:1])[0, 0] == pytest.approx(1, abs=1e-5)
    with pytest.raises(HfHubHTTPError) as raised:
        client.feature_extraction(LONG, prompt_name="query", truncate=False)
    assert raised.value.response.status_code == 413
    assert raised.value.response.json()["error_type"] == "Validation"
    endpoint = InferenceClient(server.url, provider="hf-inference")
    assert endpoint.health_check()
    assert endpoint.get_endpoint_info()["max_input_length"] == 512


def test_hugging_face_similarity(server, model):
    client = InferenceClient(f"{server.url}/similarity")
    with pytest.raises(HfHubHTTPError) as raised:
        client.sentence_similarity(TEXTS[0], TEXTS[1:])
    assert "prompt_name" in raised.value.response.json()["error"]
    with serving(task="query") as other:
        found = InferenceClient(f"{other.url}/similarity").sentence_similarity(TEXTS[0], TEXTS[1:])
    vectors = model.encode_query(TEXTS)
    np.testing.assert_allclose(found, vectors[1:] @ vectors[0], rtol=1e-6)


def test_tei_token_vectors_tokens_and_info(server, model):
    states = server.post("/embed_all", {"inputs": TEXTS, "prompt_name": "query"}).json
    wanted = model.token_embeddings(TEXTS, prompt_name="query")
    for found, state in zip(states, wanted, strict=True):
        assert np.array(found, np.float32).tobytes() == state.tobytes()
    (tokens,) = server.post("/tokenize", {"inputs": "hello there", "prompt_name": "query"}).json
    assert [token["id"] for token in tokens] == model.tokenizer.encode(
        ["hello there"], prefix="query: "
    ).__next__().tolist()
    assert [token["special"] for token in tokens].count(True) == 2
    assert all("query: hello there"[t["start"] : t["stop"]] == t["text"] for t in tokens if not t["special"])
    (bare,) = server.post("/tokenize", {"inputs": ["hello there"], "add_special_tokens": False}).json
    assert [token["text"] for token in bare] == ["hello there"[token["start"] : token["stop"]] for token in bare]
    assert "".join(token["text"] for token in bare) == "hellothere"
    info = server.get("/info").json
    assert (info["max_input_length"], info["model_type"]) == (512, {"embedding": {"pooling": "mean"}})
    assert server.post("/embed", {"inputs": "x", "prompt_name": "nonsense"}).json["error_type"] == "Validation"
    assert server.post("/embed", {"inputs": []}).json["error_type"] == "Empty"
    assert server.post("/embed", {"inputs": [[1, 2]]}).status == 422


def test_cohere_all_types(cohere_client, model, documents):
    types = ["float", "int8", "uint8", "binary", "ubinary", "base64"]
    answer = cohere_client.embed(
        model="moembed", texts=TEXTS, input_type="search_document", embedding_types=types, truncate="NONE"
    )
    found = answer.embeddings
    assert np.array(found.float_, np.float32).tobytes() == documents.tobytes()
    for kind in ("int8", "uint8", "binary", "ubinary"):
        scale = None if "binary" in kind else model.int8_scale()
        codes = quantize_embeddings(documents, kind, scale=scale).codes
        assert getattr(found, kind) == codes.tolist()
        least = cosine_of_bits(documents) - UNIT_LENGTH if "binary" in kind else INT8_ONE_SCALE_MIN_COSINE
        assert (model.similarity(dequantize_embeddings(codes, kind), documents).diagonal() >= least).all()
    assert b"".join(map(base64.b64decode, found.base64)) == documents.tobytes()
    assert answer.response_type == "embeddings_by_type"
    assert answer.texts == TEXTS
    assert answer.meta.billed_units.input_tokens == sum(model.count_tokens(TEXTS, prompt_name="document"))


def test_cohere_truncation_is_reported(cohere_client, model):
    def embed(truncate, **options):
        return cohere_client.embed(
            model="moembed", texts=["x", LONG], input_type="search_query", truncate=truncate, **options
        )

    for truncate, policy in (("END", "truncate"), ("START", "truncate_start")):
        answer = embed(truncate, embedding_types=["float"])
        assert answer.meta.warnings == ["texts[1] was truncated to 512 tokens"]
        with pytest.warns(UserWarning, match="cut to 512"):
            wanted = model.encode_query(LONG, overlong=policy)
        assert np.array(answer.embeddings.float_[1], np.float32).tobytes() == wanted.tobytes()
    assert embed("END", max_tokens=16).meta.warnings == ["texts[1] was truncated to 16 tokens"]
    with pytest.raises(cohere.BadRequestError, match="512"):
        embed("NONE")


def test_cohere_inputs_dimensions_and_errors(cohere_client, model):
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    answer = cohere_client.embed(
        model="moembed", inputs=[{"content": parts}], input_type="search_query", output_dimension=128
    )
    assert (
        np.array(answer.embeddings.float_[0], np.float32).tobytes()
        == model.encode_query("one\ntwo", truncate_dim=128).tobytes()
    )
    with pytest.raises(cohere.BadRequestError, match="'clustering'"):
        cohere_client.embed(model="moembed", texts=["x"], input_type="clustering")
    with pytest.raises(cohere.BadRequestError, match="images"):
        cohere_client.embed(model="moembed", images=["data:image/png;base64,"], input_type="image")
    with pytest.raises(cohere.NotFoundError, match="no model"):
        cohere_client.embed(model="embed-v4.0", texts=["x"], input_type="search_query")
    with pytest.raises(ApiError):
        cohere_client.embed(model="moembed", texts=["x"], input_type="search_query", embedding_types=["fp4"])


def test_ollama_embed(ollama_client, model, documents):
    answer = ollama_client.embed("moembed:document", TEXTS)
    assert np.array(answer.embeddings, np.float32).tobytes() == documents.tobytes()
    assert answer.prompt_eval_count == sum(model.count_tokens(TEXTS, prompt_name="document"))
    assert answer.total_duration > 0
    cut = ollama_client.embed("moembed:query", LONG, dimensions=128, keep_alive="5m")
    with pytest.warns(UserWarning, match="cut to 512"):
        wanted = model.encode_query(LONG, truncate_dim=128, overlong="truncate")
    assert np.array(cut.embeddings[0], np.float32).tobytes() == wanted.tobytes()
    with pytest.raises(ollama.ResponseError, match="512") as raised:
        ollama_client.embed("moembed:query", LONG, truncate=False)
    assert raised.value.status_code == 400
    assert ollama_client.embed("moembed:query", "").embeddings == []
    with pytest.raises(ollama.ResponseError, match="no model") as raised:
        ollama_client.embed("llama3", "x")
    assert raised.value.status_code == 404


def test_ollama_other_endpoints(ollama_client, server, model):
    vector = ollama_client.embeddings("moembed:latest:query", "hello").embedding
    assert np.array(vector, np.float32).tobytes() == model.encode_query("hello").tobytes()
    listed = ollama_client.list().models
    assert [one.model for one in listed] == ["moembed:query", "moembed:document"]
    assert listed[0].size == model.bundle.size
    assert ollama_client.ps().models[0].model == "moembed:query"
    shown = ollama_client.show("moembed")
    assert shown.capabilities == ["embedding"]
    assert shown.modelinfo["nomic-bert-moe.context_length"] == 512
    assert server.get("/api/version").json["version"]


def test_truncation_is_counted_and_in_a_header(server):
    before = server.metric("moembed_truncated_texts_total", api="ollama")
    answer = server.post("/api/embed", {"model": "moembed:query", "input": [LONG, "short", LONG]})
    assert answer.json["truncated"] == [0, 2]
    assert answer.headers["x-truncated-inputs"] == "2"
    assert server.metric("moembed_truncated_texts_total", api="ollama") == before + 2
