"""The table of the tokenizers' share."""

import tokenizer_share
from tokenizer_share import COUNT, PASSAGE, QUERY, TABLE, samples


def test_queries_and_passages():
    texts = [
        f"text {number} of a file with words that a person wrote for other people to read, and some more"
        for number in range(900)
    ]
    queries, passages = samples(texts)
    assert {len(query) for query in queries} == {QUERY}
    assert {len(passage) for passage in passages} == {PASSAGE}
    assert len(queries) == len(set(passages)) == COUNT


def test_the_command(int8, tmp_path, monkeypatch, capsys):
    (tmp_path / "t.txt").write_text("\n".join(f"line {i}: {'words and words ' * 8}" for i in range(700)))
    monkeypatch.setattr(tokenizer_share, "ROUNDS", 1)
    monkeypatch.setattr("sys.argv", ["tokenizer_share", str(tmp_path / "t.txt"), str(int8.folder)])
    tokenizer_share.main()
    row = capsys.readouterr().out.splitlines()[-2]
    assert f"| {int8.manifest.name} | " in row
    assert row.count("%") == 2


def test_the_page_has_the_table():
    assert TABLE.shown() == "" or "| tokenizer |" in TABLE.shown()
