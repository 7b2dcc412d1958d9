"""Requests of the server benchmarks: queries of a few words, and documents of the model's maximum length."""

import json
from pathlib import Path

from load import request

from moembed import Embedder

ROOT = Path(__file__).parents[2]
_QUERY_WORDS = 7
_DOCUMENTS = 64


def requests_of(embedder: Embedder, task: str) -> list[bytes]:
    """Return requests of one text each, as OpenAI's client sends them; `task` is query or document."""
    lines = (ROOT / "tests" / "data" / "sentences.txt").read_text("utf-8").splitlines()
    if task == "query":
        texts = [" ".join(line.split()[:_QUERY_WORDS]) for line in lines if len(line.split()) >= _QUERY_WORDS]
    else:
        words = " ".join(lines).split()
        starts = range(0, len(words), len(words) // _DOCUMENTS)[:_DOCUMENTS]
        texts = [_as_long_as_fits(embedder, words[start:] + words[:start]) for start in starts]
    return [embed([text], task) for text in texts]


def embed(texts: list[str], task: str) -> bytes:
    """Return a request for some texts."""
    body = {"model": f"moembed:{task}", "input": texts, "encoding_format": "base64"}
    return request("/v1/embeddings", json.dumps(body).encode(), content_type="application/json")


def texts_of(requests: list[bytes]) -> list[str]:
    """Return the texts of requests."""
    return [json.loads(raw.partition(b"\r\n\r\n")[2])["input"][0] for raw in requests]


def _as_long_as_fits(embedder: Embedder, words: list[str]) -> str:
    """Return the first words, as many as fit into the model's limit."""
    fits, over = 1, embedder.max_tokens
    while over - fits > 1:
        middle = (fits + over) // 2
        tokens = embedder.count_tokens(" ".join(words[:middle]), prompt_name="document")
        fits, over = (middle, over) if tokens <= embedder.max_tokens else (fits, middle)
    return " ".join(words[:fits])
