"""Which texts repeat an evaluation set."""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SHARED = 40  # characters in a row
_STRIDE = SHARED // 2


class Measured:
    """What evaluation sets say, to tell whether a text repeats it.

    Args:
        texts: of the sets.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [_plain(text) for text in texts]
        # Forty characters in a row hold one of these blocks whole, wherever they begin.
        self._blocks: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, text in enumerate(self._texts):
            for start in range(0, len(text) - _STRIDE + 1, _STRIDE):
                self._blocks[text[start : start + _STRIDE]].append((index, start))

    def repeated(self, text: str) -> bool:
        """Whether `SHARED` characters in a row are those of a set."""
        plain = _plain(text)
        for at in range(len(plain) - _STRIDE + 1):
            for index, start in self._blocks.get(plain[at : at + _STRIDE], ()):
                other, first, last = self._texts[index], 0, _STRIDE
                while (
                    first > _STRIDE - SHARED
                    and min(at, start) + first > 0
                    and plain[at + first - 1] == other[start + first - 1]
                ):
                    first -= 1
                while (
                    last - first < SHARED
                    and plain[at + last : at + last + 1] == other[start + last : start + last + 1] != ""
                ):
                    last += 1
                if last - first >= SHARED:
                    return True
        return False


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def measured(folders: Sequence[Path]) -> Measured:
    """The texts of evaluation sets: every string in the JSONL and TSV files below the folders."""

    def texts() -> Iterator[str]:
        for folder in folders:
            for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.tsv")]):
                for line in path.read_text("utf-8").splitlines():
                    values = json.loads(line).values() if path.suffix == ".jsonl" else line.split("\t")
                    yield from (value for value in values if isinstance(value, str) and len(value) >= SHARED)

    return Measured(texts())
