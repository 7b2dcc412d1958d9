"""Request fields: those that the original APIs ignore are accepted, those that would change vectors are rejected by name."""

import json

import msgspec
import numpy as np
import pytest

from moembed.server.apis.registry import APIS
from support.folders import ROOT
from support.serving import message_of

LONG = "word " * 600


def vectors(path, answer):
    assert answer.status == 200, answer.body
    body = answer.json
    rows = {
        "/v1/embeddings": lambda: [row["embedding"] for row in body["data"]],
        "/embed": lambda: body,
        "/api/embed": lambda: body["embeddings"],
        "/api/embeddings": lambda: [body["embedding"]],
        "/v1/embed": lambda: body["embeddings"],
        "/v2/embed": lambda: body["embeddings"]["float"],
    }[path]()
    return np.array(rows, np.float32)


NULLS = {
    "/v1/embeddings": (
        {"input": "hello", "model": "moembed:query"},
        "dimensions encoding_format user stream input_type prompt_name overlong",
    ),
    "/embed": (
        {"inputs": "hello", "prompt_name": "query"},
        "model truncate truncation_direction normalize dimensions encoding_format parameters options input_type",
    ),
    "/v1/embed": (
        {"texts": ["hello"], "model": "moembed", "input_type": "search_query"},
        "images embedding_types truncate",
    ),
    "/v2/embed": (
        {"texts": ["hello"], "model": "moembed", "input_type": "search_query"},
        "images inputs max_tokens output_dimension embedding_types truncate priority",
    ),
    "/api/embed": (
        {"input": "hello", "model": "moembed:query"},
        "truncate options keep_alive stream dimensions input_type prompt_name prompt",
    ),
    "/api/embeddings": (
        {"prompt": "hello", "model": "moembed:query"},
        "truncate options keep_alive stream dimensions input_type prompt_name",
    ),
}


@pytest.mark.parametrize("path", NULLS)
def test_null_equals_a_missing_field(server, model, path):
    body, optional = NULLS[path]
    found = vectors(path, server.post(path, body | dict.fromkeys(optional.split())))
    assert found.tobytes() == model.encode_query(["hello"]).tobytes()


# Fields without effect, with values that the original's types accept: openai embedding_create_params.py,
# TEI router/src/http/types.rs (serde ignores unknown fields), Ollama api/types.go (as does Go's JSON).
WITHOUT_EFFECT = [
    ("/v1/embeddings", {"input": "hello", "model": "moembed:query", "stream": False, "user": "me"}),
    ("/v1/embeddings", {"input": "hello", "input_type": "query"}),
    ("/v1/embeddings", {"input": "hello", "model": None, "input_type": "query"}),
    ("/embed", {"inputs": "hello", "prompt_name": "query", "options": {"wait_for_model": True, "use_cache": [1]}}),
    ("/embed", {"inputs": "hello", "prompt_name": "query", "parameters": {}, "raw_scores": True, "x": {"y": [1]}}),
    ("/embed", {"inputs": "hello", "model": "moembed:query", "encoding_format": "float"}),
    ("/embed", {"inputs": ["hello"], "prompt_name": "query", "truncation_direction": "Left", "truncate": True}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "stream": False, "keep_alive": -1}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "stream": "no", "keep_alive": "5m"}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "keep_alive": 0.5, "dimensions": 0, "x": [{}]}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "dimensions": -1, "raw": True, "template": "x"}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "options": {"num_ctx": 0, "temperature": "hot"}}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "options": {"num_ctx": 1e300}}),
    ("/api/embed", {"input": "hello", "model": "moembed:query", "options": {"num_ctx": 4096.0, "num_gpu": None}}),
    ("/api/embeddings", {"prompt": "hello", "model": "moembed:query", "stream": True, "options": {}}),
    ("/v1/embed", {"texts": ["hello"], "input_type": "search_query"}),
    ("/v2/embed", {"model": "moembed", "texts": ["hello"], "input_type": "search_query", "priority": 3}),
]


@pytest.mark.parametrize(("path", "body"), WITHOUT_EFFECT)
def test_fields_without_effect(server, model, path, body):
    assert vectors(path, server.post(path, body)).tobytes() == model.encode_query(["hello"]).tobytes()


OF_OTHER_APIS = [
    (
        "/embed",
        {"inputs": "x", "prompt_name": "query"},
        ["input_type", "prompt", "task", "pooling", "output_dimension"],
    ),
    ("/embed_all", {"inputs": "x", "prompt_name": "query"}, ["dimensions", "normalize"]),
    ("/similarity", {"inputs": {"source_sentence": "x", "sentences": ["y"]}}, ["prompt_name", "truncate"]),
    ("/api/embed", {"input": "x", "model": "moembed:query"}, ["prompt", "normalize", "truncation_direction", "texts"]),
    ("/api/embeddings", {"prompt": "x", "model": "moembed:query"}, ["instruction", "max_tokens"]),
]


@pytest.mark.parametrize(("path", "body", "fields"), OF_OTHER_APIS)
def test_fields_that_would_change_vectors_are_rejected_by_name(server, path, body, fields):
    for field in fields:
        answer = server.post(path, body | {field: "given"})
        assert answer.status in (400, 422)
        words = answer.json["error"]
        assert words.startswith(f"{field}: not supported by this endpoint, and it would change the vectors")


def test_inference_api_parameters_are_expected_at_the_top_level(server):
    answer = server.post("/embed", {"inputs": "x", "prompt_name": "query", "parameters": {"normalize": False}})
    assert answer.status == 422
    assert "parameters: object contains unknown field `normalize`" in answer.json["error"]
    answer = server.post("/embed", {"inputs": "x", "prompt_name": "query", "encoding_format": "base64"})
    assert answer.status == 422
    assert "encoding_format" in answer.json["error"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/embeddings", {"input": "x", "model": "moembed:query"}),
        ("/v2/embed", {"texts": ["x"], "model": "moembed"}),
        ("/v1/embed", {"texts": ["x"]}),
    ],
)
def test_openai_and_cohere_reject_unknown_fields_and_list_the_known(server, path, body):
    answer = server.post(path, body | {"truncate_prompt_tokens": 5})
    assert answer.status == 400
    words = answer.json["error"]["message"] if "error" in answer.json else answer.json["message"]
    assert "unknown field `truncate_prompt_tokens`; the fields are " in words
    assert "model" in words.partition("the fields are")[2]


def test_stream_is_rejected(server):
    answer = server.post("/v1/embeddings", {"input": "x", "model": "moembed:query", "stream": True})
    assert answer.status == 400
    assert answer.json["error"]["param"] == "stream"
    assert "stream = true is not supported" in message_of("/v1", answer)


def test_ollama_fields_with_an_effect(server, model):
    def embed(path, **fields):
        return server.post(path, {"model": "moembed:query"} | fields)

    for path, field in (("/api/embed", "input"), ("/api/embeddings", "prompt")):
        found = vectors(path, embed(path, **{field: "hello"}, dimensions=64))
        assert found.tobytes() == model.encode_query(["hello"], truncate_dim=64).tobytes()
        assert "512" in embed(path, **{field: LONG}, truncate=False).json["error"]
    assert embed("/api/embed", input="hello", dimensions=10_000).status == 400, "Ollama would silently return fewer"
    for empty in (None, "", []):
        assert embed("/api/embed", input=empty).json["embeddings"] == []
    assert embed("/api/embed").json["embeddings"] == []
    assert embed("/api/embed", input="word " * 50, options={"num_ctx": 16}).json["prompt_eval_count"] == 16
    for wrong in ("16", [], True):
        assert embed("/api/embed", input="x", options={"num_ctx": wrong}).status == 400


def test_ollama_show_accepts_the_former_field_name(server):
    shown = [server.post("/api/show", body).json for body in ({"name": "moembed"}, {"model": "moembed"})]
    assert shown[0] == shown[1]
    assert shown[0]["capabilities"] == ["embedding"]
    more = {"verbose": True, "system": "s", "template": "t", "options": {"num_ctx": 1}, "x": 1}
    assert server.post("/api/show", {"model": "", "name": "moembed:latest"} | more).json == shown[0]
    answer = server.post("/api/show", {})
    assert (answer.status, "model is required" in answer.json["error"]) == (400, True)


def test_tei_uses_the_requested_model(server, model):
    def embed(**fields):
        return server.post("/embed", {"inputs": "hello"} | fields)

    found = vectors("/embed", embed(model="moembed:document"))
    assert found.tobytes() == model.encode_document(["hello"]).tobytes()
    found = vectors("/embed", embed(model="moembed:document", prompt_name="query"))
    assert found.tobytes() == model.encode_query(["hello"]).tobytes()
    assert embed(model="nonsense").status == 404
    (tokens,) = server.post("/tokenize", {"inputs": "hello", "add_special_tokens": None, "options": {}, "x": 1}).json
    assert [token["special"] for token in tokens][:: len(tokens) - 1] == [True, True]


def test_openapi_document_lists_the_fields(server):
    schemas = server.get("/openapi.json").json["components"]["schemas"]
    embed = schemas["moembed.server.apis.tei.EmbedRequest"]
    assert embed["required"] == ["inputs"]
    assert embed["properties"]["options"] == {"description": "accepted, without effect"}
    assert embed["properties"]["prompt"]["type"] == "null"
    assert "rejected" in embed["properties"]["prompt"]["description"]
    assert embed.get("additionalProperties", True) is True
    assert schemas["moembed.server.apis.openai.EmbeddingsRequest"]["additionalProperties"] is False
    ollama = schemas["moembed.server.apis.ollama.EmbedRequest"]
    assert ollama["properties"]["stream"] == {"description": "accepted, without effect"}
    assert {"name", "model"} <= set(schemas["ShowRequest"]["properties"])


def test_documentation_lists_every_field():
    text = (ROOT / "docs" / "apis.md").read_text("utf-8")
    sections = dict(part.partition("\n## ")[0].split("\n", 1) for part in text.split("\n### ")[1:])
    titles = {"openai": "OpenAI", "tei": "Text Embeddings Inference", "cohere": "Cohere", "ollama": "Ollama"}
    for api in APIS:
        for endpoint in api.endpoints:
            if endpoint.request is None or api.name not in titles:
                continue
            section = sections[titles[api.name]]
            assert f"`{endpoint.path}`" in section or endpoint.path == "/"
            properties = msgspec.json.schema(endpoint.request)["$defs"][endpoint.request.__name__]["properties"]
            for field, schema in properties.items():
                if schema.get("type") != "null":  # a rejected field
                    assert f"`{field}`" in section, (endpoint.path, field)


def test_openapi_document_describes_vectors_as_numbers(server):
    schemas = server.get("/openapi.json").json["components"]["schemas"]
    (embeddings,) = (schema for name, schema in schemas.items() if "ubinary" in schema.get("properties", {}))
    assert '"type": "number"' in json.dumps(embeddings["properties"]["float"])
