"""Texts and pairs from clones of public repositories, on small clones with their layout."""

import gzip
import io
import json
import random
import tarfile
import zipfile

import pytest

from moembed.cli import main
from moembed.train.data import corpus, pairs, public_repositories
from moembed.train.data.decontamination import MIN_OVERLAP, EvaluationTexts
from moembed.train.recipe import Prompts

EVALUATION_TEXT = (
    "The water from the river of the valley has been used for mills since the tenth century, and still is."
)
PROMPTS = Prompts(query="query: ", passage="passage: ")


@pytest.fixture
def clones(tmp_path):
    """One clone of every layout: news, quality estimates, questions, a treebank, articles."""
    folder = tmp_path / "clones"
    news = folder / "NTREX" / "NTREX-128"
    news.mkdir(parents=True)
    (news.parent / "DOCUMENT_IDS.tsv").write_text("a.1\na.1\na.1\nb.2\n")
    for code in (*public_repositories._WIDELY_SPOKEN, "zul"):
        lines = [f"{code} number {n} says what happened, and to whom it did, at length." for n in range(4)]
        (news / f"newstest2019-ref.{code}.txt").write_text("\n".join(lines) + "\n", "utf-8")
    estimates = folder / "mlqe-pe" / "data" / "direct-assessments" / "train"
    estimates.mkdir(parents=True)
    table = 'index\toriginal\ttranslation\n0\tA "quoted sentence that is long enough.\tEin Satz, der gelesen wird.\n'
    with tarfile.open(estimates / "en-de-train.tar.gz", "w:gz") as archive:
        member = tarfile.TarInfo("en-de-train/train.ende.df.short.tsv")
        member.size = len(table.encode())
        archive.addfile(member, io.BytesIO(table.encode()))
    questions = folder / "SOQAL" / "data"
    questions.mkdir(parents=True)
    paragraph = {"context": f"Before. {EVALUATION_TEXT}", "qas": [{"question": "متى استخدمت المياه؟"}]}
    other = {"context": "نص آخر", "qas": [{"question": "ما هو؟"}]}
    (questions / "arcd.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph, other]}]}), "utf-8")
    treebank = folder / "UD_German-PUD"
    treebank.mkdir()
    sentence = "# sent_id = n01001{n}\n# text = Satz {n} eines Textes.\n1\tSatz\n\n"
    (treebank / "de_pud-ud-test.conllu").write_text("".join(sentence.format(n=n) for n in range(3)), "utf-8")
    articles = folder / "NEREL" / "NEREL-v1.0" / "dev"
    articles.mkdir(parents=True)
    (articles / "1_text.txt").write_text("Заголовок\n\nПервый   абзац, который достаточно длинен.\nВторой.\n", "utf-8")
    return folder


@pytest.fixture
def evaluation(tmp_path):
    folder = tmp_path / "evaluation" / "some-set"
    folder.mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(json.dumps({"_id": "1", "text": EVALUATION_TEXT}) + "\n")
    return folder.parent


def _gather(clones, evaluation, folder):
    folder.mkdir(exist_ok=True)
    paths = folder / "texts.jsonl.gz", folder / "pairs.jsonl.gz"
    arguments = ["gather", clones, "-o", paths[0], "--pairs", paths[1], "--without", evaluation]
    return main(list(map(str, arguments))), *paths


def _rows(path):
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def test_training_reads_the_gathered_texts_and_pairs(clones, evaluation, tmp_path, capsys):
    code, texts, paired = _gather(clones, evaluation, tmp_path / "out")
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert found["left out"] == 1
    rows = _rows(texts)
    assert sum(found.values()) == len(rows) + len(_rows(paired)) + found["left out"]
    by_language = {
        language: [row["t"] for row in rows if row["l"] == language] for language in ("ar", "de", "en", "ru", "zh")
    }
    assert by_language["ar"][-3:] == ["متى استخدمت المياه؟", "نص آخر", "ما هو؟"]
    assert "Satz 0 eines Textes. Satz 1 eines Textes." in " ".join(by_language["de"])
    assert by_language["ru"][-3:] == ["Заголовок", "Первый абзац, который достаточно длинен.", "Второй."]
    assert 'A "quoted sentence that is long enough.' in by_language["en"]
    assert not any(" zul " in row["t"] or "zul number" in row["t"] for row in rows)  # its language is not selected
    train, validation = corpus.read_texts([texts], PROMPTS, 0.5)
    assert len(train) + len(validation) == len(rows)
    kind = {(row["q"], row["d"]): row["k"] for row in _rows(paired)}
    assert sum(map(len, pairs.read_pairs([paired], PROMPTS, 0.5))) == len(kind) > 10
    assert kind["ما هو؟", "نص آخر"] == "question"
    assert not any(EVALUATION_TEXT in document for _, document in kind)
    assert kind["Заголовок", "Первый абзац, который достаточно длинен."] == "heading"
    kinds = set()
    for query, document in kind:
        if " number " in query:  # a sentence of the news
            numbers = {number for number in "0123" if f"number {number}" in document}
            own = query[query.index("number ") + len("number ")]
            assert numbers <= ({"3"} if own == "3" else {"0", "1", "2"})  # the fourth sentence is from another document
            translated = query.split(" ", 1)[0] != document.split(" ", 1)[0]
            assert kind[query, document] == ("translation" if own in numbers else "context")
            if own in numbers:
                assert translated
                assert query.split(" ", 1)[1] in document
            else:
                assert numbers == {"0", "1", "2"} - {own}
            kinds.add((translated, own in numbers))
    assert kinds == {(True, True), (True, False), (False, False)}


def test_the_same_clones_give_the_same_bytes(clones, evaluation, tmp_path):
    first, second = (_gather(clones, evaluation, tmp_path / name) for name in ("one", "two"))
    for one, other in zip(first[1:], second[1:], strict=True):
        assert one.read_bytes() == other.read_bytes()


def test_the_repositories_are_listed_with_their_licenses(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["gather", "--list"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"{one.name}\t{one.license}" for one in public_repositories.REPOSITORIES]


def test_a_folder_without_clones_is_refused(tmp_path, evaluation, capsys):
    assert _gather(tmp_path / "nothing", evaluation, tmp_path / "out")[0] == 2
    assert "has no clone of any of MicrosoftTranslator/NTREX" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("content", ["{", '{"data": 3}', '{"data": [{"paragraphs": [{}]}]}'])
def test_a_clone_with_another_layout_is_named_and_nothing_is_written(clones, evaluation, tmp_path, capsys, content):
    (clones / "SOQAL" / "data" / "arcd.json").write_text(content)
    assert _gather(clones, evaluation, tmp_path / "out")[0] == 2
    assert "SOQAL does not have the expected layout of husseinmozannar/SOQAL" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_enough_common_characters_are_an_overlap():
    generator = random.Random(0)
    known = ["".join(generator.choices("abcdefgh  ", k=generator.randrange(30, 200))).strip() for _ in range(30)]
    evaluation = EvaluationTexts(known)
    plain = [" ".join(text.split()) for text in known]
    for _ in range(2000):
        text, at = generator.choice(plain), generator.randrange(100)
        length = generator.randrange(MIN_OVERLAP - 6, MIN_OVERLAP + 6)
        piece = text[at : at + length]
        made = "XY" + piece.upper() + "QZ"
        shared = " ".join(made.lower().split())
        expected = any(
            shared[i : i + MIN_OVERLAP] in other for other in plain for i in range(len(shared) - MIN_OVERLAP + 1)
        )
        assert evaluation.overlap(made) == expected


def _sources(clones, name):
    (source,) = [source for source in public_repositories.REPOSITORIES if source.name.endswith(f"/{name}")]
    clone = clones / name
    return list(source.read_rows(clone)), list(source.read_pairs(clone))


def test_common_voice_sentences_are_in_their_language(tmp_path):
    for code, name, text in (
        ("de", "zeno.txt", "Wer hat das gesagt?\nkurz\n"),
        ("de", "german-cities.txt", "Rothenburg ob der Tauber\n"),
        ("ar", "sentence-collector.txt", "! أراك الأسبوع القادم\nالدَّرْسُ الأَوَّلُ قَدِ انْتَهَى\nnot in this language\n"),
        ("ab", "wiki.txt", "A language that is not among ours.\n"),
    ):
        folder = tmp_path / "common-voice" / "server" / "data" / code
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, "utf-8")
    rows, _ = _sources(tmp_path, "common-voice")
    assert [row[:2] for row in rows] == [("ar", "أراك الأسبوع القادم"), ("de", "Wer hat das gesagt?")]


def test_a_translation_memory_is_read_unit_by_unit(tmp_path):
    folder = tmp_path / "tico-19.github.io" / "data" / "TM"
    folder.mkdir(parents=True)
    unit = (
        '<tu tuid="{key}:{n}">\n<prop type="note">x</prop>\n<tuv xml:lang="en">\n<seg>Text {n} &amp; what it says, at length.'
        '</seg></tuv>\n<tuv xml:lang="ru"><seg>Текст {n}.</seg></tuv>\n</tu>'
    )
    with zipfile.ZipFile(folder / "all.en-ru.tmx.zip", "w") as archive:
        archive.writestr(
            "all.en-ru.tmx", "\n".join(unit.format(key=key, n=n) for key, n in (("a", 1), ("a", 2), ("b", 3)))
        )
    rows, paired = _sources(tmp_path, "tico-19.github.io")
    texts = [(row.language, row.text) for row in rows]
    assert ("ru", "Текст 1. Текст 2.") in texts
    assert ("en", "Text 3 & what it says, at length.") in texts
    assert not any("2" in text and "3" in text for _, text in texts)  # they are from two documents
    assert ("Text 1 & what it says, at length.", "Текст 1.", "translation") in paired
    assert ("Текст 2.", "Text 2 & what it says, at length.", "translation") in paired


def test_lines_of_two_files_are_translations(tmp_path):
    folder = tmp_path / "machine-translation-gender-eval" / "data" / "sentences" / "dev"
    folder.mkdir(parents=True)
    for language, text in (("en", "She is a doctor.\n"), ("ar", "هي طبيبة.\n")):
        (folder / f"geneval-sentences-feminine-dev.en_ar.{language}").write_text(text, "utf-8")
    rows, paired = _sources(tmp_path, "machine-translation-gender-eval")
    assert [row[:2] for row in rows] == [("en", "She is a doctor."), ("ar", "هي طبيبة.")]
    assert paired == [("She is a doctor.", "هي طبيبة.", "translation")]


PAGE = """---
title: not prose
---
# {0} heading
## {0} asks whether this is kept?

{0} says a **little** of [what it](http://a.b) does,
and `code` too.

```sh
{0} is code in a fence.
```
- {0} is the first of a list of some items that say very much more than others do.
- no prose
| {0} | is a table. |
<!-- {0} is a comment. -->
{0} {1}
"""


def test_prose_is_read_from_pages_and_their_translations(tmp_path):
    clone = tmp_path / "edgeai-for-beginners"
    for code, word in (("", "English"), ("de", "Deutsch"), ("fr", "Français"), ("ru", "not Russian")):
        path = clone / "translations" / code / "a.md" if code else clone / "a.md"
        path.parent.mkdir(parents=True, exist_ok=True)
        end = "has been changed, and is not what was translated." if code == "fr" else "stays."
        page = PAGE.format(word, end)
        path.write_text(page if code != "fr" else page.replace("- no", "- one more\n- no"), "utf-8")
    rows, paired = _sources(tmp_path, "edgeai-for-beginners")
    assert {row.language for row in rows} == {"en", "de", "fr"}
    alone = [row.text for row in rows if row.language == "de"][:3]
    assert alone == [
        "Deutsch asks whether this is kept?",
        "Deutsch says a little of what it does, and code too.",
        "Deutsch is the first of a list of some items that say very much more than others do.",
    ]
    under = " says a little of what it does, and code too."
    headed = [pair for pair in paired if pair.query.endswith("kept?") and under in pair.document]
    numbers = {(pair.query.split()[0], pair.document.split()[0]) for pair in headed}
    assert numbers >= {(word, word) for word in ("English", "Deutsch", "Français")}
    assert len(numbers) > 3  # including translations
    for pair in headed:
        word = pair.document.split()[0]
        assert pair.document.startswith(
            f"{word}{under} {word} is the first of a list of some items that say very much more than others do."
        )
    aligned = [pair for pair in paired if pair not in headed]
    assert aligned
    assert {pair.kind for pair in headed} == {"heading"}
    for one, other, kind in aligned:  # the French page has one more block
        assert kind == "translation"
        assert {one.split()[0], other.split()[0]} == {"English", "Deutsch"}
        assert one.split()[1:] == other.split()[1:]


def test_a_repeated_heading_is_skipped(tmp_path):
    clone = tmp_path / "edgeai-for-beginners"
    clone.mkdir()
    for name in "ab":
        prose = f"This is what is written on page {name}, at length."
        text = f"# 1. The heading of {name}\n\n{prose}\n\n# Summary\n\nThat was page {name} in few words.\n"
        (clone / f"{name}.md").write_text(text, "utf-8")
    _, paired = _sources(tmp_path, "edgeai-for-beginners")
    assert paired == [
        (f"The heading of {name}", f"This is what is written on page {name}, at length.", "heading") for name in "ab"
    ]


def test_short_evaluation_texts_are_found_whole_and_among_sentences():
    evaluation = EvaluationTexts(["Where is the train station?", "He ran.", "12"])
    assert evaluation.overlap("he  ran!")
    assert evaluation.overlap("Where is the train station")
    assert evaluation.overlap("I asked him.\nWhere is the train station?")
    assert evaluation.overlap("I asked. Where is the train station? He left.")
    assert not evaluation.overlap("I saw it. He ran. She left.")
    assert not evaluation.overlap("Nobody knows where is the train station?")
    assert not evaluation.overlap("?!")
