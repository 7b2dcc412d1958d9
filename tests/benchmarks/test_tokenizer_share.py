"""The table of the tokenizers' share."""

from types import SimpleNamespace

import tokenizer_share
from tokenizer_share import COUNT, PASSAGE, QUERY, TABLE, samples

from moembed import Embedder


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


def test_all_texts_are_tokenized_while_the_time_is_taken(int8, monkeypatch):
    model, counts = Embedder(int8, threads=1), []

    class Counted:
        def encode(self, texts):
            for ids in model.tokenizer.encode(texts):
                counts[-1] += 1
                yield ids

    def counted(call):
        counts.append(0)
        call()
        return 0.0

    monkeypatch.setattr(tokenizer_share, "milliseconds", counted)

    def embed(*_texts, **_options):
        pass

    stub = SimpleNamespace(tokenizer=Counted(), prompt_for=model.prompt_for, encode=embed, encode_query=embed)
    tokenizer_share.measure(stub, ["a query"], ["one passage", "another"], 0)
    assert counts == [1, 0, 2, 0]


def test_the_page_has_the_table():
    assert "| tokenizer |" in TABLE.shown()
