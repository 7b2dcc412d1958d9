"""Which texts repeat an evaluation set."""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

SHARED = 40  # characters in a row
_STRIDE = SHARED // 2
SENTENCE = 20  # characters of an evaluation text that may not stand among other sentences
_RUN = 3  # sentences of an evaluation text shorter than `SHARED`, at most
_END = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])\s*|\n+")


class Measured:
    """Texts of evaluation sets, to tell whether a text repeats it.

    Args:
        texts: of the sets.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [_plain(text) for text in texts]
        self._whole = {_bare(text) for text in self._texts}
        # Forty characters in a row hold one of these blocks whole, wherever they begin.
        self._blocks: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, text in enumerate(self._texts):
            for start in range(0, len(text) - _STRIDE + 1, _STRIDE):
                self._blocks[text[start : start + _STRIDE]].append((index, start))

    def repeated(self, text: str) -> bool:
        """Whether a set has it whole, or `SHARED` characters in a row of it, or a run of its sentences of `SENTENCE` or more."""
        if _bare(text) in self._whole or self._quotes(text):
            return True
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

    def _quotes(self, text: str) -> bool:
        sentences = _END.split(text)
        runs = (" ".join(sentences[at : at + size]) for size in range(1, _RUN + 1) for at in range(len(sentences)))
        return any(len(run) >= SENTENCE and _bare(run) in self._whole for run in runs)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def _bare(text: str) -> str:
    """Letters and digits alone: sentences that differ in punctuation are the same; the text itself, where it has none."""
    return "".join(filter(str.isalnum, text.lower())) or _plain(text)


def measured(folders: Sequence[Path]) -> Measured:
    """The texts of evaluation sets: every string in the JSONL and TSV files below the folders."""

    def texts() -> Iterator[str]:
        for folder in folders:
            for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.tsv")]):
                for line in path.read_text("utf-8").splitlines():
                    values = json.loads(line).values() if path.suffix == ".jsonl" else line.split("\t")
                    yield from (value for value in values if isinstance(value, str))

    return Measured(texts())
