"""Repositories of training texts, and the rows and pairs read from a clone of one."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

MAIN_LANGUAGES = frozenset("ar de en es fa fr hi id it ja ko nl pl pt ru tr uk vi zh".split())  # get the most text
MAX_PASSAGE = 900  # characters
PAIRS_PER_PARAGRAPH = 3
_MAX_QUERY = 200  # characters of a sentence that may become a query


class Row(NamedTuple):
    """A text, its language (ISO 639-1 where there is such a code), and its kind: "q" for a query, "d" for a document."""

    language: str
    text: str
    kind: str


Kind = Literal["question", "heading", "translation", "context"]


class RawPair(NamedTuple):
    """A query and the document it should retrieve, without prompts.

    Attributes:
        query: a question, a heading, a text, or a sentence of a passage.
        document: the answer to the question, the text below the heading, a translation or a passage that contains one, or the
            rest of the passage; in the query's language or another.
        kind: relation of the two.
    """

    query: str
    document: str
    kind: Kind


RowReader = Callable[[Path], Iterable[Row]]


class Repository(NamedTuple):
    """A public repository on github.com.

    Attributes:
        name: owner and name.
        license: of its text.
        read_rows: reads rows from a clone.
        read_pairs: reads pairs from a clone; by default it has none.
    """

    name: str
    license: str
    read_rows: RowReader
    read_pairs: Callable[[Path], Iterable[RawPair]] = lambda _: ()


def passages(language: str, sentences: Sequence[str], seed: str) -> Iterator[Row]:
    """Yield consecutive sentences one by one, as queries or documents, then joined to passages of two to five."""
    generator = random.Random(seed)  # noqa: S311  (not for secrets)
    separator = "" if language in ("zh", "ja", "th") else " "
    for sentence in sentences:
        yield Row(language, sentence, "q" if len(sentence) < _MAX_QUERY and generator.random() < 0.5 else "d")
    rest = list(sentences)
    while rest:
        size = generator.randint(2, 5)
        joined = separator.join(rest[:size])[:MAX_PASSAGE]
        if len(rest) > 1:
            yield Row(language, joined, "d")
        rest = rest[size:]
