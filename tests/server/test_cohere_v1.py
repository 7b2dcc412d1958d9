"""Version 1 of Cohere's API, through its own client and LangChain's."""

import asyncio
import base64

import cohere
import numpy as np
import pytest

from moembed import quantize_embeddings

TEXTS = ["Bake the bread for forty minutes.", "Zum Bahnhof nimmt man die Linie 4.", "骆驼很酷 👍🏽"]
LONG = "all work and no play makes Jack a dull boy. " * 120


def bytes_of(rows):
    return np.array(rows, np.float32).tobytes()


def test_langchain_cohere(server, model):
    embeddings = pytest.importorskip("langchain_cohere", reason="pip install langchain-cohere").CohereEmbeddings
    langchain = embeddings(model="moembed", cohere_api_key="k", base_url=server.url)
    assert bytes_of(langchain.embed_documents(TEXTS)) == model.encode_document(TEXTS).tobytes()
    assert bytes_of(langchain.embed_query(TEXTS[0])) == model.encode_query(TEXTS[0]).tobytes()
    assert bytes_of(asyncio.run(langchain.aembed_query(TEXTS[0]))) == model.encode_query(TEXTS[0]).tobytes()


@pytest.mark.parametrize("base", ["", "/", "/v1"])
def test_client(server, model, base):
    client = cohere.Client(api_key="k", base_url=server.url + base)
    texts = TEXTS * (33 if base == "" else 1)
    answer = client.embed(texts=texts, model="moembed", input_type="search_document")
    assert answer.response_type == "embeddings_floats"
    assert bytes_of(answer.embeddings) == model.encode_document(texts).tobytes(), "in requests of 96 texts at most"
    assert answer.texts == texts
    assert answer.meta.api_version.version == "1"
    assert answer.meta.billed_units.input_tokens == sum(model.count_tokens(texts, prompt_name="document"))


def test_types(server, model):
    client = cohere.Client(api_key="k", base_url=server.url)
    kinds = ["float", "int8", "ubinary", "base64"]
    answer = client.embed(texts=TEXTS, model="moembed:query", embedding_types=kinds)
    vectors = model.encode_query(TEXTS)
    assert answer.response_type == "embeddings_by_type"
    assert bytes_of(answer.embeddings.float_) == vectors.tobytes()
    assert answer.embeddings.int8 == quantize_embeddings(vectors, "int8", scale=model.int8_scale()).codes.tolist()
    assert answer.embeddings.ubinary == quantize_embeddings(vectors, "ubinary").codes.tolist()
    raw = server.post("/v1/embed", {"texts": TEXTS, "input_type": "search_query", "embedding_types": kinds}).json
    assert b"".join(map(base64.b64decode, raw["embeddings"]["base64"])) == vectors.tobytes()


def test_truncation_and_errors(server):
    client = cohere.Client(api_key="k", base_url=server.url)
    cut = client.embed(texts=["x", LONG], model="moembed", input_type="search_query", batching=False)
    assert cut.meta.warnings == ["texts[1] was truncated to 512 tokens"]
    with pytest.raises(cohere.BadRequestError, match="512"):
        client.embed(texts=[LONG], model="moembed", input_type="search_query", truncate="NONE")
    with pytest.raises(cohere.NotFoundError, match="no model"):
        client.embed(texts=["x"], model="embed-english-v3.0", input_type="search_query")
    with pytest.raises(cohere.BadRequestError, match="images"):
        client.embed(images=["data:image/png;base64,"], model="moembed", input_type="image")
    for body in ({}, {"texts": []}, {"texts": [""]}, {"texts": "x"}, {"inputs": ["x"]}):
        answer = server.post("/v1/embed", {"input_type": "search_query"} | body)
        assert answer.status == 400
        assert set(answer.json) == {"id", "message"}
