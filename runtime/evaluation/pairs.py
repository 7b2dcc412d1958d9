"""Files of sentence pairs: with a similarity score (STS), or translations of each other (bitext).

STS: `.jsonl` with `sentence1`, `sentence2`, `score`; `.csv` or `.tsv` with a header of these names, or with exactly these three
columns and no header. Bitext: `.tsv` with two columns, foreign TAB English, and no header. TSV files have no quoting. Every file
may be gzipped (`.gz`).
"""

import csv
import math
from collections.abc import Iterator
from pathlib import Path

from moembed.errors import InputError
from moembed.evaluation.tasks import Bitext, Similarity
from moembed.evaluation.text_lines import json_objects, numbered_lines, string_field

SUFFIXES = (".jsonl", ".tsv", ".csv", ".jsonl.gz", ".tsv.gz", ".csv.gz")
_FIELDS = ("sentence1", "sentence2", "score")


def pair_files(folder: Path) -> list[Path]:
    """Return the files of the folder that may have pairs, sorted by name."""
    return sorted(path for path in folder.iterdir() if path.name.endswith(SUFFIXES))


def stem(path: Path) -> str:
    """Return the name without the suffix of its format."""
    return path.name.removesuffix(".gz").rpartition(".")[0]


def read_pairs(name: str, path: Path) -> Similarity | Bitext:
    """Read a file of pairs.

    Raises:
        InputError: a line is malformed, or there are fewer than two pairs.
    """
    rows = list(_records(path) if ".jsonl" in path.suffixes else _table(path))
    if len(rows) < 2:
        raise InputError(f"{path} has {len(rows)} pairs; at least two are needed")
    if len(rows[0][1]) == 2:
        left, right = zip(*(row for _, row in rows), strict=True)
        return Bitext(name, left, right)
    scores = [_score(row[2], path, number) for number, row in rows]
    if len(set(scores)) < 2:
        raise InputError(f"{path}: every score is {scores[0]}, so no correlation is defined")
    return Similarity(name, tuple(row[0] for _, row in rows), tuple(row[1] for _, row in rows), tuple(scores))


def _records(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    for number, record in json_objects(path):
        score = record.get("score")
        if not isinstance(score, int | float | str) or isinstance(score, bool):
            raise InputError(f"{path}:{number}: expected a number in field 'score', found {score!r}")
        yield number, (*(string_field(record, field, path, number) for field in _FIELDS[:2]), str(score))


def _table(path: Path) -> Iterator[tuple[int, tuple[str, ...]]]:
    columns: list[int] | None = None
    for number, row in _rows(path):
        if columns is None:
            named = [field.strip().lower() for field in row]
            if set(_FIELDS) <= set(named):
                columns = [named.index(field) for field in _FIELDS]
                continue
            if len(row) not in (2, 3):
                raise InputError(
                    f"{path}:{number}: expected a header with {', '.join(_FIELDS)}, these three columns, or two (bitext); "
                    f"found {len(row)} columns"
                )
            columns = list(range(len(row)))
        if len(row) <= max(columns) or (len(columns) == 2 and len(row) != 2):
            raise InputError(f"{path}:{number}: expected {max(columns) + 1} columns, found {len(row)}")
        yield number, tuple(row[column] for column in columns)


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    if ".tsv" in path.suffixes:
        for number, line in numbered_lines(path):
            yield number, line.split("\t")
        return
    reader = csv.reader(line + "\n" for _, line in numbered_lines(path))
    try:
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise InputError(f"{path}:{reader.line_num}: not CSV ({error})") from error


def _score(text: str, path: Path, number: int) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{path}:{number}: score {text!r} is not a number")
    return value
