"""The table of readers in docs/stamps.md is what the installed libraries read."""

from readers import BLOCK, READERS, rows


def test_the_page_shows_what_the_libraries_read():
    shown = [line.strip("| ").split(" | ") for line in BLOCK.shown().splitlines() if line.startswith("|")]
    assert shown[0][1:] == list(READERS)
    assert shown[2:] == rows()
    assert not [cell for row in shown[2:] for cell in row if "refused" in cell or "other values" in cell]
