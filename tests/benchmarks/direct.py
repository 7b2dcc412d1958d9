"""An embedder in a process of its own, with the defaults of Python's API: what the server is compared with."""

import json
import statistics
import subprocess
import sys
import time

_CALLS = 200
_TEXTS = 1024


class Direct:
    """Process with an embedder.

    Args:
        bundle: the bundle, or built-in.
        texts: queries.
    """

    def __init__(self, bundle: str, texts: list[str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, bundle], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._ask(texts)

    def __enter__(self) -> "Direct":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def median_ms(self) -> float:
        """Return the median time of `encode_query` for one text, in ms."""
        return self._ask("median_ms")

    def texts_per_s(self) -> float:
        """Return the rate of `encode_query` for many texts, in batches of the default size."""
        return self._ask("texts_per_s")

    def _ask(self, question: object) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(question), file=self._process.stdin, flush=True)
        return float(json.loads(self._process.stdout.readline()))


def main() -> None:
    """Answer until the questions end."""
    from moembed import Embedder

    embedder = Embedder.from_pretrained(None if sys.argv[1] == "built-in" else sys.argv[1])
    texts: list[str] = json.loads(sys.stdin.readline())
    many = (texts * (_TEXTS // len(texts) + 1))[:_TEXTS]
    embedder.encode_query(many)

    def seconds(given: str | list[str]) -> float:
        start = time.perf_counter()
        embedder.encode_query(given)
        return time.perf_counter() - start

    print(json.dumps(0), flush=True)
    for line in sys.stdin:
        if json.loads(line) == "median_ms":
            answer = 1e3 * statistics.median(seconds(text) for text in many[:_CALLS])
        else:
            answer = _TEXTS / seconds(many)
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
