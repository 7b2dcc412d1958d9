"""A public repository, and the rows and pairs that are read of a clone of it."""

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

READ = frozenset("ar de en es fa fr hi id it ja ko nl pl pt ru tr uk vi zh".split())  # languages that are read of most
LONG = 900  # characters that a passage grows to
TURNS = 3  # pairs of a paragraph
_SHORT = 200  # characters: what is read as a query now and then


class Row(NamedTuple):
    """A text, its language (ISO 639-1 where there is such a code), and `k`: "q" for a query, "d" for a document."""

    language: str
    text: str
    kind: str


Kind = Literal["question", "heading", "translation", "context"]


class Asked(NamedTuple):
    """A query, the document that it is to find, and what the query is of it.

    Attributes:
        query: a question that the document answers, its heading, a text of which it is or holds the translation, or a sentence
            from between those of the document.
        document: in the query's language or another.
        kind: which of these.
    """

    query: str
    document: str
    kind: Kind


Reader = Callable[[Path], Iterable[Row]]


class Source(NamedTuple):
    """A public repository at github.com.

    Attributes:
        repository: owner and name.
        licence: of its text.
        read: makes rows of a clone.
        pairs: makes pairs of it, where it has any.
    """

    repository: str
    licence: str
    read: Reader
    pairs: Callable[[Path], Iterable[Asked]] = lambda _: ()


def passages(language: str, sentences: Sequence[str], seed: str) -> Iterator[Row]:
    """Running sentences: each alone, as a query or a document, and then joined to passages of two to five."""
    generator = random.Random(seed)  # noqa: S311  (not for secrets)
    glue = "" if language in ("zh", "ja", "th") else " "
    for sentence in sentences:
        yield Row(language, sentence, "q" if len(sentence) < _SHORT and generator.random() < 0.5 else "d")
    rest = list(sentences)
    while rest:
        size = generator.randint(2, 5)
        joined = glue.join(rest[:size])[:LONG]
        if len(rest) > 1:
            yield Row(language, joined, "d")
        rest = rest[size:]
