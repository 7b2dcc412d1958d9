"""Detection of training texts that overlap an evaluation set."""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from moembed.evaluation.text_lines import json_objects, numbered_lines

MIN_OVERLAP = 40  # consecutive characters
_STRIDE = MIN_OVERLAP // 2
MIN_SENTENCE = 20  # characters of an evaluation text that must not occur among other sentences
_MAX_RUN = 3  # sentences of an evaluation text shorter than `MIN_OVERLAP`
_SENTENCE_END = re.compile(r"(?<=[.!?؟।])\s+|(?<=[。！？])\s*|\n+")


class EvaluationTexts:
    """Texts of evaluation sets, indexed to find overlaps.

    Args:
        texts: of the sets.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._texts = [_normalized(text) for text in texts]
        self._whole = {_letters_and_digits(text) for text in self._texts}
        # Any forty consecutive characters of a text contain one of these blocks completely.
        self._blocks: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, text in enumerate(self._texts):
            for start in range(0, len(text) - _STRIDE + 1, _STRIDE):
                self._blocks[text[start : start + _STRIDE]].append((index, start))

    def overlap(self, text: str) -> bool:
        """Check for an overlap: a whole text, `MIN_OVERLAP` consecutive characters, or sentences of `MIN_SENTENCE` or more."""
        return (
            _letters_and_digits(text) in self._whole or self._contains_sentences(text) or self._shares_characters(text)
        )

    def _contains_sentences(self, text: str) -> bool:
        sentences = _SENTENCE_END.split(text)
        runs = (" ".join(sentences[at : at + size]) for size in range(1, _MAX_RUN + 1) for at in range(len(sentences)))
        return any(len(run) >= MIN_SENTENCE and _letters_and_digits(run) in self._whole for run in runs)

    def _shares_characters(self, text: str) -> bool:
        text = _normalized(text)
        for at in range(len(text) - _STRIDE + 1):
            for index, start in self._blocks.get(text[at : at + _STRIDE], ()):
                if _common_length(text, at, self._texts[index], start) >= MIN_OVERLAP:
                    return True
        return False


def _common_length(one: str, at: int, other: str, start: int) -> int:
    """Extend a common block of `_STRIDE` characters to the left and right, up to `MIN_OVERLAP`, and return its length."""
    first, last = 0, _STRIDE
    while (
        first > _STRIDE - MIN_OVERLAP and min(at, start) + first > 0 and one[at + first - 1] == other[start + first - 1]
    ):
        first -= 1
    while last - first < MIN_OVERLAP and one[at + last : at + last + 1] == other[start + last : start + last + 1] != "":
        last += 1
    return last - first


def _normalized(text: str) -> str:
    return " ".join(text.lower().split())


def _letters_and_digits(text: str) -> str:
    """Drop punctuation and spaces; a text without letters and digits stays as it is."""
    return "".join(filter(str.isalnum, text.lower())) or _normalized(text)


def read_evaluation_texts(folders: Sequence[Path]) -> EvaluationTexts:
    """Read every string in the JSONL and TSV files below the folders.

    Raises:
        InputError: a file cannot be read.
    """

    def strings() -> Iterator[str]:
        for folder in folders:
            for path in sorted([*folder.rglob("*.jsonl"), *folder.rglob("*.tsv")]):
                if path.suffix == ".tsv":
                    for _, line in numbered_lines(path):
                        yield from line.split("\t")
                else:
                    for _, record in json_objects(path):
                        yield from (value for value in record.values() if isinstance(value, str))

    return EvaluationTexts(strings())
