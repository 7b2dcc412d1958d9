"""The table of readers in docs/corpora.md is what the installed libraries read."""

from corpus import READERS, reader_table


def rows(text):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]


def test_the_page_shows_what_the_readers_see(monkeypatch):
    monkeypatch.setattr("support.parquet_readers.find_spec", lambda _name: None)
    found = rows(reader_table())
    assert [row[: len(found[0])] for row in rows(READERS.shown())] == found
    assert not [cell for row in found for cell in row if "refused" in cell or "other values" in cell]
