"""Memory of `moembed serve` under the worst request bodies that its limits admit.

    python tests/benchmarks/serve_memory.py [CASE ...] [--write]

Each case is one request to a fresh server. The peak is the kernel's VmHWM minus the resident memory at rest. During the request,
`/health` is polled over another connection, and its slowest response is recorded. If that exceeds the target, the request is
repeated twice with fresh servers; the fastest `/health` and the highest peak count. Linux only. `--write` rewrites the table in
`docs/limits.md`.
"""

import argparse
import http.client
import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from blocks import ROOT, Block
from processes import Process, running

from moembed.server.settings import Settings

BLOCK = Block(ROOT / "docs" / "limits.md", "memory", "python tests/benchmarks/serve_memory.py --write")
# Target: the memory for a body may be FACTOR times its size, plus MARGIN MB.
FACTOR, MARGIN = 3, 50
HEALTH_MS = 100

MOST_BYTES, MOST_CHARACTERS = Settings().max_body_bytes, Settings().max_characters
# A character of 3 bytes that the normalizer replaces by 18 characters.
LIGATURE = "\ufdfa"


def _json(**fields: Any) -> bytes:
    return json.dumps(fields, ensure_ascii=False).encode()


def _filled(head: bytes, unit: bytes, tail: bytes) -> bytes:
    """Return the longest allowed body: a head, as many units as fit, and a tail."""
    return head + unit * ((MOST_BYTES - len(head) - len(tail)) // len(unit)) + tail


def _nested(opening: bytes, closing: bytes, inner: bytes = b"1", *, field: bytes = b"inputs") -> bytes:
    depth = (MOST_BYTES - 100) // (len(opening) + len(closing))
    return b'{"prompt_name":"query","%b":%b%b%b}' % (field, opening * depth, inner, closing * depth)


def _ollama(text: str | list[str], **fields: Any) -> bytes:
    return _json(model="moembed:query", input=text, **fields)


def _many(size: int) -> list[str]:
    return ["a " * (size // 2)] * Settings().max_inputs


_LIGATURES = LIGATURE * (MOST_CHARACTERS - 100)
_WORDS = "a " * (MOST_CHARACTERS // 2 - 50)
_ONE_WORD = "abcdefghij" * (MOST_CHARACTERS // 10 - 10)
_MARKS = "e" + "\u0301" * (MOST_CHARACTERS - 100)
_CHINESE = "\u4e2d\u6587\u5b57\u7b26" * (MOST_CHARACTERS // 4 - 25)
_UNKNOWN = "\U00012000" * (MOST_CHARACTERS - 100)
_FLAGS = "\U0001f1e6" * (MOST_CHARACTERS - 100)
_SPACES = "\u3000" * (MOST_CHARACTERS - 100)
_SPECIAL = "<s>" * (MOST_CHARACTERS // 3 - 100)
_ESCAPES = b"\\u0041"

# Name -> path, and the body that is made when it is sent.
CASES: dict[str, tuple[str, Callable[[], bytes]]] = {
    "ligatures, cut (Ollama)": ("/api/embed", lambda: _ollama(_LIGATURES)),
    "ligatures, cut (Ollama, older)": ("/api/embeddings", lambda: _json(model="moembed:query", prompt=_LIGATURES)),
    "ligatures, refused (OpenAI)": ("/v1/embeddings", lambda: _json(model="moembed:query", input=_LIGATURES)),
    "ligatures, cut (OpenAI)": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input=_LIGATURES, overlong="truncate"),
    ),
    "ligatures, cut at the start (OpenAI)": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input=_LIGATURES, overlong="truncate_start"),
    ),
    "ligatures, in windows (OpenAI)": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input=_LIGATURES, overlong="mean"),
    ),
    "ligatures, cut (TEI)": ("/embed", lambda: _json(inputs=_LIGATURES, prompt_name="query", truncate=True)),
    "ligatures, all tokens (TEI)": ("/embed_all", lambda: _json(inputs=_LIGATURES, prompt_name="query", truncate=True)),
    "ligatures, similarity (TEI)": (
        "/similarity",
        lambda: _json(
            inputs={"source_sentence": "a", "sentences": [_LIGATURES]},
            parameters={"prompt_name": "query", "truncate": True},
        ),
    ),
    "ligatures, cut (Cohere)": (
        "/v2/embed",
        lambda: _json(model="moembed", input_type="search_query", texts=[_LIGATURES]),
    ),
    "ligatures, routing": ("/routing", lambda: _json(input=_LIGATURES, input_type="query")),
    "ligatures, tokens (TEI)": ("/tokenize", lambda: _json(inputs=_LIGATURES)),
    "one word, cut": ("/api/embed", lambda: _ollama(_ONE_WORD)),
    "one word, cut at the start": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input=_ONE_WORD, overlong="truncate_start"),
    ),
    "one word, tokens": ("/tokenize", lambda: _json(inputs=_ONE_WORD)),
    "one letter, cut": ("/api/embed", lambda: _ollama("a" * (MOST_CHARACTERS - 100))),
    "one letter, cut at the start": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input="a" * (MOST_CHARACTERS - 100), overlong="truncate_start"),
    ),
    "quadruple primes, cut": ("/api/embed", lambda: _ollama("\u2057" * (MOST_CHARACTERS - 100))),
    "short words, cut": ("/api/embed", lambda: _ollama(_WORDS)),
    "short words, cut at the start": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input=_WORDS, overlong="truncate_start"),
    ),
    "short words, in windows": ("/v1/embeddings", lambda: _json(model="moembed:query", input=_WORDS, overlong="mean")),
    "short words, refused": ("/v1/embeddings", lambda: _json(model="moembed:query", input=_WORDS)),
    "short words, tokens": ("/tokenize", lambda: _json(inputs=_WORDS)),
    "marks on one letter, cut": ("/api/embed", lambda: _ollama(_MARKS)),
    "Chinese without spaces, cut": ("/api/embed", lambda: _ollama(_CHINESE)),
    "unknown characters, cut": ("/api/embed", lambda: _ollama(_UNKNOWN)),
    "half flags, cut": ("/api/embed", lambda: _ollama(_FLAGS)),
    "spaces, cut": ("/api/embed", lambda: _ollama(_SPACES)),
    "special tokens, cut": ("/api/embed", lambda: _ollama(_SPECIAL)),
    "2048 texts, cut": (
        "/api/embed",
        lambda: _ollama(_many(MOST_CHARACTERS // Settings().max_inputs), options={"num_ctx": 32}),
    ),
    "2048 texts (OpenAI)": ("/v1/embeddings", lambda: _json(model="moembed:query", input=["a"] * 2048)),
    "2048 texts in all types (Cohere)": (
        "/v2/embed",
        lambda: _json(
            model="moembed",
            input_type="search_query",
            texts=["a"] * 2048,
            embedding_types=["float", "int8", "uint8", "binary", "ubinary", "base64"],
        ),
    ),
    "all tokens of 40 texts (TEI)": (
        "/embed_all",
        lambda: _json(inputs=["word " * 600] * 40, prompt_name="query", truncate=True),
    ),
    "2048 texts, windows": (
        "/v1/embeddings",
        lambda: _json(model="moembed:query", input=_many(MOST_CHARACTERS // Settings().max_inputs), overlong="mean"),
    ),
    "2048 texts, tokens": ("/tokenize", lambda: _json(inputs=_many(MOST_CHARACTERS // Settings().max_inputs))),
    "tiny texts": ("/embed", lambda: _filled(b'{"prompt_name":"query","inputs":["a"', b',"a"', b"]}")),
    "tiny texts (Cohere)": ("/v2/embed", lambda: _filled(b'{"model":"m","texts":["a"', b',"a"', b"]}")),
    "empty texts": ("/tokenize", lambda: _filled(b'{"inputs":[""', b',""', b"]}")),
    "inputs of no parts (Cohere)": (
        "/v2/embed",
        lambda: _filled(b'{"model":"m","inputs":[{"content":[]}', b',{"content":[]}', b"]}"),
    ),
    "embedding types (Cohere)": (
        "/v2/embed",
        lambda: _filled(b'{"model":"m","texts":["a"],"embedding_types":["int8"', b',"int8"', b"]}"),
    ),
    "token ids": ("/v1/embeddings", lambda: _filled(b'{"model":"moembed","input":[1', b",1", b"]}")),
    "arrays of a token id": ("/v1/embeddings", lambda: _filled(b'{"model":"moembed","input":[[1]', b",[1]", b"]}")),
    "empty arrays": ("/v1/embeddings", lambda: _filled(b'{"model":"moembed","input":[[]', b",[]", b"]}")),
    "nested arrays": ("/embed", lambda: _nested(b"[", b"]")),
    "nested arrays, open": ("/embed", lambda: _filled(b'{"inputs":', b"[", b"")),
    "nested arrays, nothing else": ("/embed", lambda: _filled(b"", b"[", b"")),
    "nested arrays, unknown field": ("/api/show", lambda: _nested(b"[", b"]", field=b"x")),
    "nested objects": ("/embed", lambda: _nested(b'{"a":', b"}")),
    "nested objects, unknown field": ("/api/show", lambda: _nested(b'{"a":', b"}", field=b"x")),
    "name of a model (OpenAI)": ("/v1/embeddings", lambda: _filled(b'{"input":"a","model":"', b"\xc3\xa9", b'"}')),
    "name of a model of quotes (Ollama)": ("/api/embed", lambda: _filled(b'{"input":"a","model":"', b"'\\\"", b'"}')),
    "name of a model of colons (Ollama)": ("/api/show", lambda: _filled(b'{"model":"', b":", b'"}')),
    "name of a model of controls (Cohere)": (
        "/v2/embed",
        lambda: _filled(b'{"texts":["a"],"model":"', b"\\u0001", b'"}'),
    ),
    "task (TEI)": ("/embed", lambda: _filled(b'{"inputs":"a","prompt_name":"', "\U000e0001".encode(), b'"}')),
    "task (OpenAI)": (
        "/v1/embeddings",
        lambda: _filled(b'{"input":"a","model":"moembed","input_type":"query","prompt_name":"', b"\\u0001", b'"}'),
    ),
    "task (page)": ("/routing", lambda: _filled(b'{"input":"a","input_type":"', b"\\u0001", b'"}')),
    "value of an enumeration": ("/embed", lambda: _filled(b'{"inputs":"a","encoding_format":"', b"x", b'"}')),
    "one key": ("/embed", lambda: _filled(b'{"inputs":"a","', b"x", b'":1}')),
    "one key, unknown field": ("/api/show", lambda: _filled(b'{"model":"moembed","', b"\\u0041", b'":1}')),
    "keys, each another": (
        "/api/show",
        lambda: b'{"model":"moembed"%b}' % b"".join(b',"%07d":1' % n for n in range(MOST_BYTES // 12 - 10)),
    ),
    "the same key": ("/embed", lambda: _filled(b'{"prompt_name":"query"', b',"inputs":"a"', b"}")),
    "a number": ("/embed", lambda: _filled(b'{"inputs":"a","dimensions":', b"9", b"}")),
    "a fraction": ("/api/embed", lambda: _filled(b'{"model":"moembed:query","input":"a","keep_alive":0.', b"9", b"}")),
    "whitespace": ("/embed", lambda: _filled(b'{"inputs":"a","prompt_name":"query"', b" \n", b"}")),
    "escapes, cut": ("/api/embed", lambda: _filled(b'{"model":"moembed:query","input":"', _ESCAPES, b'"}')),
    "escapes, tokens": ("/tokenize", lambda: _filled(b'{"inputs":"', _ESCAPES, b'"}')),
    "a text of 16 MB": ("/embed", lambda: _filled(b'{"prompt_name":"query","inputs":"', b"a ", b'"}')),
    "a text without end": ("/embed", lambda: _filled(b'{"prompt_name":"query","inputs":"', b"a ", b"")),
    "not UTF-8": ("/embed", lambda: _filled(b'{"prompt_name":"query","inputs":"', b"\xff", b'"}')),
}


@dataclass(frozen=True)
class Measured:
    """Measured cost of a case.

    Attributes:
        name: name of the case.
        status: HTTP status, 0 if there was no response.
        body: bytes of the request body.
        answer: bytes of the response body.
        peak: peak memory over rest, in MB.
        kept: memory over rest a second later, in MB.
        health: slowest response of `/health` during the request, in ms.
        seconds: time until the response was complete.
    """

    name: str
    status: int
    body: int
    answer: int
    peak: float
    kept: float
    health: float
    seconds: float

    @property
    def allowed(self) -> float:
        """Target for the peak, in MB."""
        return FACTOR * self.body / 1e6 + MARGIN


def measure(name: str) -> Measured:
    """Send the body of a case to a fresh server."""
    path, make = CASES[name]
    body = make()
    with running("--threads", "1") as server:
        # Warm up with a call of the largest size: its memory does not depend on the body of the case.
        _exchange(server, "/embed", _json(inputs=["word " * 600] * 4, prompt_name="query", truncate=True))
        slowest, over = [0.0], threading.Event()
        watching = threading.Thread(target=_watch, args=(server, slowest, over))
        watching.start()
        time.sleep(0.2)
        slowest[0] = 0.0
        rest = _megabytes(server, "VmRSS")
        start = time.perf_counter()
        try:
            status, answer = _exchange(server, path, body)
        except (OSError, http.client.HTTPException):
            status, answer = 0, 0
        seconds = time.perf_counter() - start
        over.set()
        watching.join()
        peak = _megabytes(server, "VmHWM") - rest
        time.sleep(1)
        kept = _megabytes(server, "VmRSS") - rest
    return Measured(name, status, len(body), answer, peak, kept, slowest[0], seconds)


def _exchange(server: Process, path: str, body: bytes) -> tuple[int, int]:
    with server.connect() as connection:
        connection.settimeout(600)
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode())
        connection.sendall(body)
        response = http.client.HTTPResponse(connection)
        response.begin()
        size = 0
        while part := response.read(2**20):
            size += len(part)
        return response.status, size


def _watch(server: Process, slowest: list[float], over: threading.Event) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", int(server.address), timeout=600)
    while not over.is_set():
        start = time.perf_counter()
        connection.request("GET", "/health")
        connection.getresponse().read()
        slowest[0] = max(slowest[0], 1e3 * (time.perf_counter() - start))
        time.sleep(0.01)
    connection.close()


def _megabytes(server: Process, name: str) -> float:
    lines = Path(f"/proc/{server.pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith(name))


def render(rows: list[Measured]) -> str:
    """Return the table of the page."""
    head = ["request", "path", "status", "body, MB", "peak over rest, MB", "target, MB", "slowest /health, ms"]
    lines = [" | ".join(head), "|".join(["---"] * len(head))]
    for row in rows:
        cells = [row.name, f"`{CASES[row.name][0]}`", row.status, f"{row.body / 1e6:.1f}", f"{row.peak:.0f}"]
        lines.append(" | ".join(map(str, [*cells, f"{row.allowed:.0f}", f"{row.health:.0f}"])))
    return "".join(f"| {line} |\n" for line in lines).replace("| ---|", "|---|").replace("|--- |", "|---|")


def main() -> None:
    """Measure the cases, print them, and write the table."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("case", nargs="*", help="parts of names of cases; all without any")
    arguments.add_argument("--write", action="store_true", help="rewrite the table in docs/limits.md")
    chosen = arguments.parse_args()
    names = [name for name in CASES if not chosen.case or any(part in name for part in chosen.case)]
    rows = []
    for name in names:
        row = measure(name)
        for _ in range(2):
            if row.health > HEALTH_MS:  # another process may have used the CPU
                again = measure(name)
                row = replace(row, peak=max(row.peak, again.peak), health=min(row.health, again.health))
        rows.append(row)
        verdict = "" if row.peak <= row.allowed and row.health <= HEALTH_MS else "  TOO MUCH"
        print(
            f"{name:40} {row.status:3} body {row.body / 1e6:5.1f} MB answer {row.answer / 1e6:6.1f} MB "
            f"peak {row.peak:6.0f} of {row.allowed:4.0f} MB, kept {row.kept:5.0f}, health {row.health:6.0f} ms, "
            f"{row.seconds:5.1f} s{verdict}",
            flush=True,
        )
    if chosen.write:
        BLOCK.write(render(rows))
    if any(row.peak > row.allowed for row in rows):
        sys.exit("a case exceeds its memory target")


if __name__ == "__main__":
    main()
