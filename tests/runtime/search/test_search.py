"""`moembed search`: passages, their line numbers, and the cache of their vectors."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moembed.cli import main
from moembed.errors import InputError
from moembed.inference.kernels import PORTABLE, usable_kernels
from moembed.search.passages import passages, split

MARKDOWN = """# Manual

Intro paragraph
on two lines.

## Install

Run this:

```
pip install thing

# not a heading
```

Then go on.

## GPU
Use CUDA.
"""


def test_markdown_passages():
    found = list(split(Path("m.md"), MARKDOWN))
    assert [(p.line, p.heading, p.text.splitlines()[0]) for p in found] == [
        (3, "Manual", "Intro paragraph"),
        (8, "Install", "Run this:"),
        (16, "Install", "Then go on."),
        (19, "GPU", "Use CUDA."),
    ]
    assert found[1].text == "Run this:\n\n```\npip install thing\n\n# not a heading\n```", (
        "code stays with its sentence"
    )


def test_list_items_are_passages_of_their_own():
    text = "Intro:\n- one\n  goes on\n- two\n1. three\n\n```\n- not an item\n```"
    assert [(p.line, p.text) for p in split(Path("m.md"), text)] == [
        (1, "Intro:"),
        (2, "- one\n  goes on"),
        (4, "- two"),
        (5, "1. three\n\n```\n- not an item\n```"),
    ]


@given(st.lists(st.sampled_from(["- item", "# head", "text", "", "```", "~~~", "  indented", "#no"]), max_size=25))
def test_every_passage_is_where_it_says(lines):
    found = list(split(Path("x.md"), "\n".join(lines)))
    covered = set()
    for passage in found:
        own = passage.text.split("\n")
        assert lines[passage.line - 1 : passage.line - 1 + len(own)] == own
        covered.update(range(passage.line - 1, passage.line - 1 + len(own)))
    assert [n for n, line in enumerate(lines) if line.strip() and not line.startswith("#") and n not in covered] == []


def test_plain_text_has_no_headings():
    assert [p.text for p in split(Path("x.txt"), "# one\n\n```\n\ntwo")] == ["# one", "```", "two"]


def test_which_files_are_read(tmp_path):
    for name, content in {
        "a.md": b"alpha",
        "b.py": b"no",
        ".hidden/c.md": b"no",
        "sub/d.txt": b"delta",
        "sub/bad.txt": b"\xff",
        "sub/nul.txt": b"a\0b",
        "node_modules/e.md": b"no",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    skipped = []
    found = [p.text for p in passages([tmp_path, tmp_path / "a.md", tmp_path / "b.py"], skipped=skipped.append)]
    assert found == ["alpha", "delta", "no"], "a file once, and one that is named whatever its suffix"
    assert len(skipped) == 2
    with pytest.raises(InputError, match="bad.txt cannot be searched: it is not UTF-8"):
        list(passages([tmp_path / "sub/bad.txt"], skipped=skipped.append))
    with pytest.raises(InputError, match="no file or folder"):
        list(passages([tmp_path / "nothing"], skipped=skipped.append))


@pytest.fixture
def docs(tmp_path, monkeypatch):
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "docs"
    folder.mkdir()
    (folder / "manual.md").write_text(MARKDOWN)
    (folder / "story.txt").write_text("The cat sleeps on the sofa.\n\nFish swim in the river.\n")
    return folder


@pytest.fixture
def search(capsys):
    def run(*argv):
        code = main(["search", *map(str, argv)])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def test_the_best_passage_comes_first_with_its_line(docs, search):
    code, out, err = search(docs, "where do cats rest?", "-k", 1)
    assert code == 0
    first, second = out.splitlines()
    assert first.split()[1] == f"{docs}/story.txt:1"
    assert second.strip() == "The cat sleeps on the sofa."
    assert err == "moembed: 6 passages, 6 embedded now\n"
    record = json.loads(search(docs, "graphics card", "-k", 1, "--json")[1])
    assert (record["path"], record["line"], record["heading"]) == (f"{docs}/manual.md", 19, "GPU")


@pytest.mark.skipif(usable_kernels() == (PORTABLE,), reason="no native library")
def test_vectors_of_other_kernels_are_not_mixed(docs, search, monkeypatch):
    _, native, _ = search(docs, "cats")
    monkeypatch.setenv("MOEMBED_KERNELS", "plain")
    assert search(docs, "cats")[1:] == (native, "moembed: 6 passages, 0 embedded now\n"), "the same bytes"
    monkeypatch.setenv("MOEMBED_KERNELS", PORTABLE)
    assert "6 passages, 6 embedded now" in search(docs, "cats")[2]
    assert "6 passages, 0 embedded now" in search(docs, "cats")[2]


def test_only_what_changed_is_embedded_again(docs, search):
    _, first, _ = search(docs, "cats")
    _, again, err = search(docs, "cats")
    assert again == first
    assert "6 passages, 0 embedded now" in err
    (docs / "story.txt").write_text("The cat sleeps on the sofa.\n\nFish swim in the sea.\n")
    assert "6 passages, 1 embedded now" in search(docs, "cats")[2]
    (docs / "copy.txt").write_text("The cat sleeps on the sofa.\n")
    assert "7 passages, 0 embedded now" in search(docs, "cats")[2]
    assert "7 passages, 6 embedded now" in search(docs, "cats", "--no-cache")[2]


def test_a_long_passage_is_found_by_its_end(docs, search):
    lines = [f"Line {i} speaks of taxes and forms." for i in range(150)] + ["A penguin dances on the ice."]
    (docs / "long.txt").write_text("\n".join(lines))
    hit = json.loads(search(docs / "long.txt", "dancing penguin", "-k", 1, "--json")[1])
    assert "penguin" in hit["text"]
    assert hit["line"] > 1
    assert lines[hit["line"] - 1].endswith(hit["text"].splitlines()[0])


def test_a_cache_that_cannot_be_made(docs, search, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    right = search(docs, "cats", "--no-cache")[1]
    monkeypatch.setenv("MOEMBED_CACHE", str(tmp_path / "file"))
    code, out, err = search(docs, "cats")
    assert (code, out) == (0, right)
    assert "--no-cache" in err


def test_nothing_to_search(docs, search, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no text found in" in search(tmp_path / "empty", "cats")[2]
    assert search(docs, "cats", "-k", 0)[0] == 2
