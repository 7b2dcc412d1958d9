"""The tables of docs/corpora.md: readers see what it says, and measurements name their machine."""

import corpus
import pytest
from corpus import MEMORY, READERS, SPEED, reader_table


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_page_shows_what_the_readers_see(monkeypatch):
    monkeypatch.setattr("support.parquet_readers.find_spec", lambda _name: None)
    found = rows(reader_table())
    assert [row[: len(found[0])] for row in rows(READERS.shown())] == found
    assert not [cell for row in found for cell in row if "refused" in cell or "other values" in cell]


def test_the_table_of_memory_has_its_form_and_names_the_machine(monkeypatch):
    measured = corpus.Measured(1.0, 1.0, 90.4, 200.6, 0)
    monkeypatch.setattr(corpus, "measure", lambda *_arguments: measured)
    monkeypatch.setattr(corpus, "FEW", 100)
    monkeypatch.setattr(corpus, "MANY", 2_000)
    table = corpus.memory(1)
    assert table.splitlines()[1].startswith(
        f"{corpus.machine(corpus.Embedder.from_pretrained())}. The rows repeat 64 texts"
    )
    assert rows(table)[-1] == ["jsonl", "90 MiB", "201 MiB", "201 MiB"]


@pytest.mark.parametrize("block", [MEMORY, SPEED], ids=lambda block: block.name)
def test_the_page_names_the_machine(block):
    assert ", kernels `" in block.shown().splitlines()[1]
