"""Texts of files and pipes one by one as they come, by the rules of corpora; a row that cannot be used is an error.

A corpus is read more than once, so that its columns are settled before the first row. Here each row is read once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from moembed.corpus.columns import check_columns
from moembed.corpus.inventory import File
from moembed.corpus.rows import RecordReader, Selection
from moembed.corpus.sources import Source
from moembed.corpus.text_rows import opened, records
from moembed.errors import InputError

RecordId = str | int | float | None


@dataclass(frozen=True, slots=True)
class Streamed:
    """Text and its id in the source, if it has one."""

    text: str
    id: RecordId = None


def stream(source: Source, selection: Selection) -> Iterator[Streamed]:
    """Yield the texts of a source of lines, JSONL, CSV or TSV; reads no more of it than has been asked for.

    Args:
        source: the file, or stdin.
        selection: what is read of a row; nothing is kept.

    Raises:
        InputError: the source cannot be read or does not have its format, or a row has no text.
    """

    def check_header(columns: list[str]) -> None:
        repeated = sorted({name for name in columns if columns.count(name) > 1})
        if columns:
            check_columns(File(source.name, source.form, names=columns, repeated=repeated), selection)

    reader = RecordReader(source, selection)
    with opened(source) as content:
        for record in records(source, content, header=check_header):
            text, reason, own = reader.read(record)
            if text is None:
                raise InputError(f"{source.name}:{record.line}: {reason}")
            yield Streamed(text, own)
