"""Default task: reported to the client by a header, and to the operator by the log."""

import json
import logging

import openai
import pytest

from moembed.server import logs
from moembed.server.logs import JsonFormatter
from support.serving import serving

UNNAMED = {
    "/v1/embeddings": {"input": "hello", "model": "moembed"},
    "/api/embed": {"input": "hello", "model": "moembed:latest"},
    "/api/embeddings": {"prompt": "hello", "model": "moembed"},
    "/embed": {"inputs": "hello"},
    "/embed_all": {"inputs": "hello"},
    "/similarity": {"inputs": {"source_sentence": "hello", "sentences": ["x"]}},
    "/v1/embed": {"texts": ["hello"]},
    "/v2/embed": {"texts": ["hello"], "model": "moembed"},
}


@pytest.fixture(scope="module")
def documents():
    with serving(task="document", accept_token_ids=True) as running:
        yield running


@pytest.mark.parametrize("path", UNNAMED)
def test_header_reports_the_default_task(documents, server, path):
    body = UNNAMED[path]
    answer = documents.post(path, body)
    assert (answer.status, answer.headers["x-moembed-task"]) == (200, "document (default)")
    if path != "/similarity":
        named = documents.post(path, body | {"model": "moembed:query"})
        assert named.status == 200
        assert "x-moembed-task" not in named.headers
    assert "x-moembed-task" not in server.post(path, body).headers, "this server has no default task"


def test_texts_with_a_prompt_get_no_default(documents):
    for text, header in (("query: hello", None), ("passage: hello", None), (["query: a", "b"], "document (default)")):
        answer = documents.post("/v1/embeddings", {"input": text, "model": "moembed"})
        assert (answer.status, answer.headers.get("x-moembed-task")) == (200, header)
    ids = documents.post("/v1/embeddings", {"input": [5, 6], "model": "moembed"})
    assert ids.headers["x-moembed-task"] == "document (default)"
    assert "x-moembed-task" not in documents.post("/api/embed", {"model": "moembed", "input": ""}).headers


def test_client_objects_can_see_the_header(documents):
    client = openai.OpenAI(base_url=f"{documents.url}/v1", api_key="k")
    answer = client.embeddings.with_raw_response.create(model="moembed", input="what is bread?")
    assert answer.headers["x-moembed-task"] == "document (default)"
    answer = client.embeddings.with_raw_response.create(model="moembed:query", input="what is bread?")
    assert "x-moembed-task" not in answer.headers


def test_log_warns_once_per_hour_model_and_api(documents, caplog, monkeypatch):
    monkeypatch.setattr(logs, "_warned", {})

    def warnings():
        lines = [json.loads(JsonFormatter().format(record)) for record in caplog.records]
        return [line for line in lines if line.get("event") == "default_task"]

    with caplog.at_level(logging.INFO, logger="moembed.server"):
        for _ in range(3):
            documents.post("/v1/embeddings", UNNAMED["/v1/embeddings"])
            documents.post("/v1/embeddings", UNNAMED["/v1/embeddings"] | {"model": "moembed:query"})
        (line,) = warnings()
        assert (line["level"], line["model"], line["api"], line["task"]) == ("warning", "moembed", "openai", "document")
        assert "moembed:query" in line["message"]
        documents.post("/api/embed", UNNAMED["/api/embed"])
        assert [line["api"] for line in warnings()] == ["openai", "ollama"]
        monkeypatch.setattr(logs, "_WARNING_SECONDS", 0.0)
        documents.post("/api/embed", UNNAMED["/api/embed"])
        assert [line["api"] for line in warnings()] == ["openai", "ollama", "ollama"]
