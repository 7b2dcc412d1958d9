"""Stamps of vectors that a server computes: in a header, and in the list of models."""

import json

import numpy as np
import pytest

from moembed import Stamp, StampedVectors, stamp_of
from support.serving import serving

NAMED = {
    "/v1/embeddings": {"input": ["hello"], "model": "moembed:document"},
    "/api/embed": {"input": ["hello"], "model": "moembed:document"},
    "/api/embeddings": {"prompt": "hello", "model": "moembed:document"},
    "/embed": {"inputs": ["hello"], "prompt_name": "passage"},
    "/v1/embed": {"texts": ["hello"], "model": "moembed", "input_type": "search_document"},
    "/v2/embed": {"texts": ["hello"], "model": "moembed", "input_type": "search_document"},
}


def stamp_in(answer):
    return Stamp.from_json(answer.headers["x-moembed-stamp"], "the answer")


def expected(model, path):
    overlong = "error" if path in ("/v1/embeddings", "/embed") else "truncate"
    return stamp_of(model, model.prompt_for("document"), overlong=overlong)


@pytest.mark.parametrize("path", NAMED)
def test_an_answer_has_the_stamp_of_its_vectors(server, model, path):
    answer = server.post(path, NAMED[path])
    assert answer.status == 200
    assert stamp_in(answer) == expected(model, path)
    assert answer.headers["x-moembed-stamp"].isascii()


def test_options_of_a_request_are_in_its_stamp(server):
    body = {"input": "hello", "model": "moembed:query", "dimensions": 256, "overlong": "mean"}
    answer = server.post("/v1/embeddings", body)
    stamp = stamp_in(answer)
    assert (stamp.width, stamp.overlong, stamp.prompt) == (256, "mean", "query: ")
    vectors = np.array([answer.json["data"][0]["embedding"]], np.float32)
    assert len(StampedVectors(vectors, stamp)) == 1
    limited = {"texts": ["hello"], "model": "moembed", "input_type": "search_query", "max_tokens": 8}
    assert stamp_in(server.post("/v2/embed", limited)).max_tokens == 8


def test_one_stamp_for_each_precision(server):
    body = NAMED["/v2/embed"] | {"embedding_types": ["float", "base64", "int8", "ubinary"]}
    stamps = json.loads(server.post("/v2/embed", body).headers["x-moembed-stamp"])
    assert [stamp["precision"] for stamp in stamps] == ["float32", "int8", "ubinary"]


def test_answers_without_vectors_of_unit_length_have_no_stamp(server):
    raw = server.post("/embed", {"inputs": "hello", "prompt_name": "passage", "normalize": False})
    similar = {"inputs": {"source_sentence": "a", "sentences": ["b"]}, "parameters": {"prompt_name": "query"}}
    for answer in (raw, server.post("/similarity", similar), server.get("/v1/models")):
        assert answer.status == 200
        assert "x-moembed-stamp" not in answer.headers


def test_the_list_of_models_has_their_stamps(server, model):
    listed = server.get("/v1/models").json["data"]
    stamps = {one["id"]: Stamp.from_json(json.dumps(one["stamp"]), one["id"]) for one in listed}
    assert stamps["moembed:query"] == stamp_of(model, model.prompt_for("query"))
    assert stamps["moembed:document"] == stamp_of(model, model.prompt_for("document"))
    one = server.get("/v1/models/moembed:query").json
    assert Stamp.from_json(json.dumps(one["stamp"]), "x") == stamps["moembed:query"]


def test_the_settings_of_a_server_are_in_its_stamps(model):
    with serving(task="document", overlong="mean") as running:
        plain = running.get("/v1/models/moembed").json["stamp"]
        answer = running.post("/v1/embeddings", {"input": "hello", "model": "moembed"})
    assert (plain["prompt"], plain["overlong"]) == ("passage: ", "mean")
    assert stamp_in(answer) == stamp_of(model, "passage: ", overlong="mean")
