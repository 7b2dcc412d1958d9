"""Cost of a body: values are counted before decoding, texts are tokenized only as far as needed, errors quote little."""

import json
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from serve_memory import CASES, HEALTH_MS, measure

from moembed.server.errors import TooLargeError, TooManyTextsError, clipped, quoted
from moembed.server.http.json_counts import count_json
from moembed.server.settings import Settings
from support.serving import BODIES, message_of, serving

LONG = 300_000
NAMES = {
    "letters": "x" * LONG,
    "quotes": "'\"" * (LONG // 2),
    "controls": "\x01" * LONG,
    "beyond the first plane": "\U000e0001" * LONG,
    "colons": ":" * LONG,
    "suffixes": "moembed" + ":latest" * (LONG // 7),
}
# Fields whose values an error quotes.
FIELDS = [
    ("/v1/embeddings", "model", {"input": "a"}),
    ("/v1/embeddings", "prompt_name", {"input": "a", "model": "moembed"}),
    ("/v1/embeddings", "input_type", {"input": "a", "model": "moembed", "prompt_name": "query"}),
    ("/v1/embeddings", "encoding_format", {"input": "a", "model": "moembed"}),
    ("/v1/embeddings", "overlong", {"input": "a", "model": "moembed"}),
    ("/v1/embeddings", "dimensions", {"input": "a", "model": "moembed"}),
    ("/embed", "prompt_name", {"inputs": "a"}),
    ("/embed", "truncation_direction", {"inputs": "a"}),
    ("/embed_all", "prompt_name", {"inputs": "a"}),
    ("/tokenize", "prompt_name", {"inputs": "a"}),
    ("/v2/embed", "model", {"texts": ["a"]}),
    ("/v2/embed", "input_type", {"texts": ["a"], "model": "moembed"}),
    ("/v2/embed", "truncate", {"texts": ["a"], "model": "moembed"}),
    ("/api/embed", "model", {"input": "a"}),
    ("/api/embed", "prompt_name", {"input": "a", "model": "moembed"}),
    ("/api/embeddings", "model", {"prompt": "a"}),
    ("/api/show", "model", {}),
    ("/routing", "model", {"input": "a"}),
    ("/routing", "input_type", {"input": "a"}),
]


@pytest.fixture(scope="module")
def server():
    with serving() as started:
        yield started


@pytest.mark.parametrize(("path", "field", "others"), FIELDS, ids=[f"{p} {f}" for p, f, _ in FIELDS])
def test_errors_quote_only_the_start_of_long_values(server, path, field, others):
    for name in NAMES.values():
        answer = server.post(path, others | {field: name})
        assert 400 <= answer.status < 500
        assert len(answer.body) < 5000
    key = server.post(path, others | {"y" * LONG: 1})
    assert len(key.body) < 5000 if key.status >= 400 else key.status == 200


def test_long_paths_and_methods_are_clipped(server):
    for method, path in (("GET", "/v1/" + "x" * 20_000), ("G" * 20_000, "/embed"), ("GET", "/" + "%01" * 10_000)):
        answer = server.ask(method, path)
        assert answer.status in (400, 404)
        assert len(answer.body) < 2000
        assert len(str(answer.headers)) < 2000


def test_clipped_values_state_their_length():
    assert quoted("short\n") == "'short\\n'"
    assert quoted("x" * 1000) == f"'{'x' * 200}'... (1000 characters)"
    assert clipped("x" * 201) == f"{'x' * 200}... (201 characters)"
    assert len(str(TooLargeError("x" * 10**6))) < 5000


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-999, 999)
    | st.text(max_size=8)
    | st.sampled_from(['"', "\\", '\\"', "[,{"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def counts(value):
    """Count the strings, characters, containers and commas of a value by walking it."""
    if isinstance(value, str):
        return 1, len(value), 0, 0
    if not isinstance(value, list | dict):
        return 0, 0, 0, 0
    parts = list(value) if isinstance(value, list) else [*value.keys(), *value.values()]
    below = [counts(part) for part in parts]
    strings, characters, containers, commas = (
        (sum(column) for column in zip(*below, strict=True)) if below else (0,) * 4
    )
    return strings, characters, containers + 1, commas + max(len(value) - 1, 0)


@settings(max_examples=200, deadline=None)
@given(_JSON, st.booleans(), st.integers(1, 40))
def test_counts_match_the_decoded_body(value, ascii_only, block):
    raw = json.dumps(value, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    found = count_json(raw, block)
    strings, characters, containers, commas = counts(json.loads(raw))
    assert (found.strings, found.containers, found.commas) == (strings, containers, commas)
    # Escapes count as more than one character if they are a surrogate pair or cross the edge of a block.
    assert found.characters >= characters


def test_characters_are_counted_exactly_except_surrogate_pairs():
    for text in ("abc", "\u4e2d\u6587", "\U0001f600", 'say "hi" \\ \n\t', "\x01\x02"):
        for ascii_only in (True, False):
            found = count_json(json.dumps([text], ensure_ascii=ascii_only).encode())
            assert len(text) <= found.characters <= 2 * len(text)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"[" + b"[]," * 40_000 + b"[]]", TooManyTextsError),
        (b"[" + b'"",' * 40_000 + b'""]', TooManyTextsError),
        (b"[" + b"1," * 1_100_000 + b"1]", TooManyTextsError),
        (b'{"a":' * 40_000, TooManyTextsError),
        (b'"' + b"x" * 8_000_001 + b'"', TooLargeError),
    ],
)
def test_bodies_beyond_every_request_bodyare_rejected(body, error):
    with pytest.raises(error, match="the limit is"):
        count_json(body).check(Settings())


@pytest.mark.parametrize(
    "request_body",
    [
        {"input": ["\u4e2d" * 1950] * 2048},  # six bytes each
        {"input": ["x" * 1950] * 2048},
        {"input": [[1000] * 500] * 2048},
        {"inputs": [{"content": [{"type": "text", "text": 'a,[{"'}]}] * 2048},
        {"input": ['\\\\\\"' * 480] * 2048},
        {"input": ["," * 1950] * 2048},
    ],
    ids=["escaped", "plain", "token ids", "Cohere's parts", "backslashes", "commas"],
)
def test_largest_valid_requests_pass(request_body):
    count_json(json.dumps(request_body).encode()).check(Settings())


@pytest.mark.parametrize("path", BODIES)
def test_large_body_of_small_values_is_rejected(server, path):
    answer = server.ask("POST", path, b'{"model":"m","input":[[]' + b",[]" * 100_000 + b"]}")
    assert answer.status in (413, 422)
    assert "arrays and objects; the limit is 2048 texts" in message_of(path, answer)


def test_large_body_of_invalid_json(server):
    for raw in (b'{"inputs": "' + b"x" * 100_000, b"[" * 30_000 + b" " * 70_000, b'"\\' * 50_000):
        answer = server.ask("POST", "/embed", raw)
        assert answer.status == 422
        assert answer.json["error"].startswith("the body")


def test_tokenize_limits_the_tokens_of_a_response(server, model):
    text = "a b c d " * 65_000
    answer = server.post("/tokenize", {"inputs": ["a", text], "add_special_tokens": False})
    assert answer.status == 200
    one, all_tokens = answer.json
    assert [token["text"] for token in one] == ["a"]
    ids, spans = model.tokenizer.encode_with_offsets(text)
    assert [token["id"] for token in all_tokens] == ids.tolist()
    assert [[token["start"], token["stop"]] for token in all_tokens] == spans.tolist()
    rejected = server.post("/tokenize", {"inputs": ["a b c d " * 65_000, "a b c d " * 2000]})
    assert rejected.status == 413
    assert "more than 262144 tokens" in rejected.json["error"]


@pytest.mark.parametrize("special", [True, False])
@pytest.mark.parametrize("texts", [[], [""], ["", "a", ""], ["a"]])
def test_tokenize_accepts_empty_texts(server, texts, special):
    answer = server.post("/tokenize", {"inputs": texts, "add_special_tokens": special})
    assert [len(tokens) for tokens in answer.json] == [len(text) + 2 * special for text in texts]


def test_very_long_texts_are_counted_in_part(server):
    start = time.monotonic()
    answer = server.post("/embed", {"inputs": "a " * 1_900_000, "prompt_name": "query"})
    assert answer.status == 413
    assert "more than 4096 tokens" in answer.json["error"]
    exact = server.post("/embed", {"inputs": "a " * 1000, "prompt_name": "query"})
    assert "more than" not in exact.json["error"]
    assert time.monotonic() - start < 20


def test_windows_count_as_texts():
    with serving(max_inputs=3) as small:
        for words, status in ((1000, 200), (3000, 422)):
            answer = small.post("/v1/embeddings", {"model": "moembed:query", "input": "a " * words, "overlong": "mean"})
            assert answer.status in (status, 400)
            if status != 200:
                assert "more than 3 windows of 512 tokens" in message_of("/v1", answer)


def test_token_vectors_are_encoded_in_chunks(server, model):
    texts = ["one two three", "four", "five six"]
    answer = server.post("/embed_all", {"inputs": texts, "prompt_name": "query"})
    assert answer.headers["content-type"] == "application/json"
    assert [len(states) for states in answer.json] == [
        len(ids) for ids in model.tokenizer.encode(texts, prefix=model.prompts["query"])
    ]


WORST = ["ligatures, cut (Ollama)", "arrays of a token id"]


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is Linux's to tell")
@pytest.mark.parametrize("name", [*WORST, *(pytest.param(n, marks=pytest.mark.long) for n in CASES if n not in WORST)])
def test_memory_and_health(name):
    found = measure(name)
    assert found.status
    assert found.peak <= found.allowed, found
    # Other processes may use the machine.
    assert found.health <= 20 * HEALTH_MS, found
