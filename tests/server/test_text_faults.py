"""Invalid Unicode is reported with its location; offers of other protocols are ignored."""

import json
import logging
import socket

import pytest

from moembed.server.http.unicode_errors import find_invalid_text
from support.serving import message_of

LONE = "is half of a surrogate pair"
NO_UTF8 = "is not UTF-8"

# By path: bodies with TEXT in one field, and the location of that field.
PLACES = {
    "/v1/embeddings": [
        ('{"model":"moembed:query","input":"TEXT"}', "input"),
        ('{"model":"moembed:query","input":["a","b","TEXT","c"]}', "input[2]"),
        ('{"model":"TEXT","input":"a"}', "model"),
        ('{"model":"moembed","input":"a","input_type":"TEXT"}', "input_type"),
        ('{"model":"moembed","input":"a","prompt_name":"TEXT"}', "prompt_name"),
        ('{"model":"moembed","input":"a","user":"TEXT"}', "user"),
    ],
    "/embed": [
        ('{"inputs":["a","TEXT"],"prompt_name":"query"}', "inputs[1]"),
        ('{"inputs":"a","prompt_name":"TEXT"}', "prompt_name"),
    ],
    "/v2/embed": [
        ('{"model":"moembed","texts":["a","TEXT"]}', "texts[1]"),
        (
            '{"model":"moembed","inputs":[{"content":[{"type":"text","text":"TEXT"}]}]}',
            "inputs[0].content[0].text",
        ),
    ],
    "/api/embed": [
        ('{"model":"moembed:query","input":["TEXT"]}', "input[0]"),
        ('{"model":"moembed:query","input":"a","keep_alive":"TEXT"}', "keep_alive"),
    ],
}
CASES = [(path, *case) for path, cases in PLACES.items() for case in cases]


@pytest.mark.parametrize(("path", "body", "place"), CASES)
def test_error_names_field_and_character(server, path, body, place):
    for fault, words in ((rb"\ud800", LONE), (rb"\uDC00", LONE), (b"\xff", NO_UTF8), (b"\xed\xa0\x80", NO_UTF8)):
        answer = server.post(path, body.encode().replace(b"TEXT", "hé👍".encode() + fault + b"llo"))
        assert answer.status in (400, 422)
        message = message_of(path, answer)
        assert message.startswith(f"{place}: at character 3, "), message
        assert words in message
        if path == "/v1/embeddings":
            assert answer.json["error"]["param"] == place


@pytest.mark.parametrize(("path", "place"), [("/similarity", "inputs.sentences[1]"), ("/tokenize", "inputs[1]")])
def test_other_tei_endpoints(server, path, place):
    inputs = '{"source_sentence":"a","sentences":["b","\\udfff"]}' if path == "/similarity" else '["b","\\udfff"]'
    answer = server.post(path, f'{{"inputs":{inputs}}}'.encode())
    assert answer.status == 422
    assert answer.json["error"].startswith(f"{place}: at character 0, the escape \\udfff {LONE}")


def test_first_of_several_errors_is_reported(server):
    answer = server.post("/v1/embeddings", rb'{"model":"moembed:query","input":["ok","\ud83d","\udc00","\ud83d"]}')
    assert message_of("/v1", answer).startswith("input[1]: at character 0, the escape \\ud83d")
    answer = server.post("/v1/embeddings", b'{"model":"moembed:query","input":["ok","\\ud83d","x\xff\xfe\\ud800"]}')
    assert message_of("/v1", answer).startswith("input[2]: at character 1, byte 0xff")


def test_valid_escapes_are_embedded(server, model):
    texts = ["\U0001f600 é \\ud800 \\\\ \x00 \ufffd \ufdd0", '"\\"', "\ud7ff\ue000"]
    for ascii_only in (True, False):
        body = json.dumps(
            {"model": "moembed:query", "input": texts, "encoding_format": "base64"}, ensure_ascii=ascii_only
        )
        assert server.post("/v1/embeddings", body.encode()).status == 200
    right = rb'{"model":"moembed:query","input":"\\ud800 \\\\ud800 \uD83D\uDE00"}'
    assert server.post("/v1/embeddings", right).status == 200
    wrong = rb'{"model":"moembed:query","input":["\\ud800","\\\ud800"]}'
    assert message_of("/v1", server.post("/v1/embeddings", wrong)).startswith("input[1]: at character 1")


def test_error_outside_all_fields_is_reported_by_byte(server):
    answer = server.post("/v1/embeddings", b"\xff\xfe{\x00}\x00")
    assert message_of("/v1", answer) == "the body: at byte 0, byte 0xff is not UTF-8; send the body in UTF-8"
    answer = server.post("/embed", rb'{"inputs":"x","prompt_name":"query","note":"\ud800"}')
    assert (answer.status, "the body: at byte" in answer.json["error"]) == (422, True)
    answer = server.post("/v1/embeddings", b'{"model":"moembed:query","input":')
    assert "is not valid JSON" in message_of("/v1", answer)


def test_valid_body_has_no_error():
    import msgspec

    decoder = msgspec.json.Decoder(dict[str, str])
    for raw in (b"", b"{", b"[1,", rb'"\\ud800', '{"a":"é'.encode(), rb'{"a":"\ud83d\ude00"'):
        assert find_invalid_text(raw, decoder) is None


OFFERS = {
    "h2c": b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
    "websocket": b"connection: Upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
    b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    "TLS": b"connection: keep-alive, Upgrade\r\nupgrade: TLS/1.2, h2c\r\n",
}


@pytest.mark.parametrize("offer", OFFERS)
def test_upgrade_offers_are_ignored_silently(server, offer, caplog):
    body = b'{"model":"moembed:query","input":"hello"}'
    request = b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n%bcontent-length: %d\r\n\r\n%b" % (
        OFFERS[offer],
        len(body),
        body,
    )
    with (
        caplog.at_level(logging.WARNING),
        socket.create_connection(("127.0.0.1", server.port), timeout=30) as raw,
        raw.makefile("rb") as answers,
    ):
        for _ in range(2):  # the connection is kept alive
            raw.sendall(request)
            assert answers.readline() == b"HTTP/1.1 200 OK\r\n"
            headers = dict(line.rstrip().split(b": ", 1) for line in iter(answers.readline, b"\r\n"))
            assert "upgrade" not in {name.decode().lower() for name in headers}
            assert json.loads(answers.read(int(headers[b"content-length"])))["object"] == "list"
    assert [record for record in caplog.records if record.name.startswith(("uvicorn", "moembed"))] == []
